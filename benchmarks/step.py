"""A training step on a CPU: time and memory of ours beside the original's.

    python benchmarks/step.py                                    ViT-S/16, 8 images, 2 + 8 crops, 65,536 prototypes
    python benchmarks/step.py --arch vit_tiny --images 16 --global_size 64 --local_size 32 --patch_size 8 --out_dim 4096

Both start from the same weights and take the same crops; their losses must agree, or nothing is printed. They take
turns, each in a process of its own: the time is that of the fastest of its steps after the first, the memory the
process's peak, all included, the page faults those of the last step. Ours manages memory as the command `fastdino`
does. The original's step is benchmarks/original_step.py. Two micro-batches are what --accumulation_steps 2 makes of the
same pictures: the same step, its activations half at a time.

The last row is what no program that computes the same can go below on this processor: the floating-point operations of
our step's products of matrices, those within attention not counted, at the rate of a large product in the same round.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
import timeit
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

# A script finds only its own folder.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.loader_peers.machine import machine
from benchmarks.original_step import OriginalNetwork, OriginalStep
from fastdino import TrainConfig
from fastdino.allocator import keep_freed_memory
from fastdino.files import write_atomically
from fastdino.train.build import build_trainee
from fastdino.train.step import StepValues, train_step

VALUES = StepValues(epoch=1, lr=5e-4, weight_decay=0.04, momentum=0.996)
CLIP = 3.0
STEPS = 4
HALVES = "fastdino, in two micro-batches"
NAMES = ("original", "fastdino", HALVES, "fastdino, checkpointing")
PRODUCTS = "products alone, at the processor's rate"
# Large enough for the matrix library's best rate, and within the caches of few processors.
PRODUCT = 2048
SIZES = ("images", "global_size", "local_size", "local_crops_number", "patch_size", "out_dim")


def main() -> None:
    """Measure, compare, print, write."""
    arguments = _parse()
    if arguments.one:
        print(json.dumps(_measure(arguments.one, arguments)))
        return
    rounds = [{name: _in_a_process(name, arguments) for name in (*NAMES, PRODUCTS)} for _ in range(arguments.rounds)]
    for losses in ([torch.tensor(each[name]["losses"]) for name in NAMES] for each in rounds):
        for ours in losses[1:]:
            # AdamW's first steps amplify rounding where a gradient is near 0.
            torch.testing.assert_close(ours, losses[0], rtol=1e-3, atol=0)
    summary = {
        name: {
            "seconds": statistics.median(each[name]["seconds"] for each in rounds),
            "mebibytes": statistics.median(each[name]["mebibytes"] for each in rounds),
            "page_faults": statistics.median(each[name]["page_faults"] for each in rounds),
            "times_as_fast": statistics.median(each["original"]["seconds"] / each[name]["seconds"] for each in rounds),
            "share_of_memory": statistics.median(
                each[name]["mebibytes"] / each["original"]["mebibytes"] for each in rounds
            ),
        }
        for name in NAMES
    }
    floor = {
        key: statistics.median(each[PRODUCTS][key] for each in rounds) for key in ("seconds", "gflop", "gflop_a_second")
    }
    floor["times_as_fast"] = statistics.median(
        each["original"]["seconds"] / each[PRODUCTS]["seconds"] for each in rounds
    )
    print("| step | seconds | as fast as the original's | MiB, all included | share | page faults |")
    print("|---|---:|---:|---:|---:|---:|")
    for name, row in summary.items():
        print(
            f"| {name} | {row['seconds']:.2f} | {row['times_as_fast']:.2f}x | {row['mebibytes']:,.0f} | "
            f"{row['share_of_memory']:.0%} | {row['page_faults']:,.0f} |"
        )
    print(f"| {PRODUCTS} | {floor['seconds']:.2f} | {floor['times_as_fast']:.2f}x | | | |")
    print(f"{floor['gflop']:,.0f} GFLOP at {floor['gflop_a_second']:.0f} GFLOP/s")
    if arguments.output:
        report = {
            "machine": machine(),
            "torch": torch.__version__,
            "settings": vars(arguments),
            "steps": summary,
            "floor": floor,
        }
        write_atomically(arguments.output, json.dumps(report, indent=2, default=str) + "\n")


def _measure(name: str, arguments: argparse.Namespace) -> dict[str, Any]:
    settings = {size: getattr(arguments, size) for size in SIZES if size != "images"}
    checkpointing = "block" if name.endswith("checkpointing") else "none"
    config = TrainConfig(
        arch=arguments.arch, drop_path_rate=0.0, precision="fp32", checkpointing=checkpointing, **settings
    )
    torch.manual_seed(0)
    sizes = [arguments.global_size] * 2 + [arguments.local_size] * arguments.local_crops_number
    crops = [torch.randn(arguments.images, 3, size, size) for size in sizes]
    if name == PRODUCTS:
        return _products(_ours(config, [crops]))
    if name != "original":
        keep_freed_memory()
    half = arguments.images // 2
    batches = [[crop[:half] for crop in crops], [crop[half:] for crop in crops]] if name == HALVES else [crops]
    step = _original(config, crops) if name == "original" else _ours(config, batches)
    losses, seconds, faults = [], [], []
    for _ in range(STEPS):
        before, start = resource.getrusage(resource.RUSAGE_SELF).ru_minflt, time.perf_counter()
        losses.append(step())
        seconds.append(time.perf_counter() - start)
        faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"losses": losses, "seconds": min(seconds[1:]), "mebibytes": peak, "page_faults": faults[-1]}


def _products(step: Callable[[], float]) -> dict[str, float]:
    with FlopCounterMode(display=False) as counter:
        step()
    gflop = counter.get_total_flops() / 1e9
    left, right = torch.randn(PRODUCT, PRODUCT), torch.randn(PRODUCT, PRODUCT)
    rate = 2e-9 * PRODUCT**3 / min(timeit.repeat(lambda: left @ right, number=1, repeat=20))
    return {"gflop": gflop, "gflop_a_second": rate, "seconds": gflop / rate}


def _ours(config: TrainConfig, batches: list[list[Tensor]]) -> Callable[[], float]:
    trainee = build_trainee(config, torch.device("cpu"))
    return lambda: train_step(trainee, batches, VALUES, CLIP, 1).loss.item()


def _original(config: TrainConfig, crops: list[Tensor]) -> Callable[[], float]:
    trainee = build_trainee(config, torch.device("cpu"))
    student, teacher = (OriginalNetwork(each.backbone, each.head) for each in (trainee.student, trainee.teacher))  # type: ignore[arg-type]
    step = OriginalStep(student, teacher, config.ncrops)
    return lambda: step(crops, VALUES, config.teacher_temp, CLIP)


def _in_a_process(name: str, arguments: argparse.Namespace) -> dict[str, Any]:
    sizes = [text for size in ("arch", *SIZES) for text in (f"--{size}", str(getattr(arguments, size)))]
    command = [sys.executable, __file__, "--one", name, *sizes]
    measured: dict[str, Any] = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return measured


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--arch", default="vit_small")
    defaults = {"images": 8, "global_size": 224, "local_size": 96, "local_crops_number": 8, "patch_size": 16}
    for name, value in {**defaults, "out_dim": 65536}.items():
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--one", choices=(*NAMES, PRODUCTS), help="measure this one in this process, and print JSON")
    parser.add_argument("--output", type=Path, help="JSON file")
    return parser.parse_args()


if __name__ == "__main__":
    main()
