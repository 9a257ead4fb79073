"""The loss on a CPU, forward and backward: time and memory of each implementation beside the original's form.

    python benchmarks/loss.py                             64 images, 2 + 8 crops, 65,536 prototypes, minutes
    python benchmarks/loss.py --images 16 --rounds 5

Implementations take turns, each in a process of its own. Memory is what the process's peak grows by beyond the logits;
the gradient is part of it. Equality to the reference is a matter of the tests.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

# A script finds only its own folder.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.loader_peers.machine import machine
from benchmarks.original_step import original_loss
from fastdino import blocked_loss
from fastdino.files import write_atomically
from fastdino.reference.loss import dino_loss as reference_loss

Loss = Callable[[Tensor, Tensor, Tensor, int, float, float], Tensor]


LOSSES: dict[str, Loss] = {
    "original": original_loss,
    "reference": reference_loss,
    "blocked": lambda *arguments: blocked_loss.dino_loss(*arguments)[0],
}


def main() -> None:
    """Measure, print, write."""
    arguments = _parse()
    if arguments.one:
        print(json.dumps(_measure(LOSSES[arguments.one], arguments.images, arguments.prototypes)))
        return
    results: dict[str, list[dict[str, float]]] = {name: [] for name in LOSSES}
    for _ in range(arguments.rounds):
        for name, measured in results.items():
            command = [sys.executable, __file__, "--one", name, *_sizes(arguments)]
            measured.append(json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout))
    summary = {
        name: {
            "seconds": statistics.median(each["seconds"] for each in measured),
            "mebibytes": statistics.median(each["mebibytes"] for each in measured),
            "times_as_fast": statistics.median(
                first["seconds"] / each["seconds"] for first, each in zip(results["original"], measured, strict=True)
            ),
        }
        for name, measured in results.items()
    }
    print("| loss | seconds | as fast as the original's | MiB beside the logits |\n|---|---:|---:|---:|")
    for name, row in summary.items():
        print(f"| {name} | {row['seconds']:.2f} | {row['times_as_fast']:.2f}x | {row['mebibytes']:.0f} |")
    if arguments.output:
        report = {"machine": machine(), "torch": torch.__version__, "settings": vars(arguments), "losses": summary}
        write_atomically(arguments.output, json.dumps(report, indent=2, default=str) + "\n")


def _measure(loss: Loss, images: int, prototypes: int) -> dict[str, float]:
    """The faster of two steps, since the first one pays for the process's memory."""
    torch.manual_seed(0)
    # Like products of unit vectors of 256 random numbers; in place, since what is freed would hide what comes later.
    student = torch.randn(10 * images, prototypes).div_(16).requires_grad_()
    teacher, center = torch.randn(2 * images, prototypes).div_(16), torch.zeros(1, prototypes)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    seconds = []
    for _ in range(2):
        start = time.perf_counter()
        torch.autograd.grad(loss(student, teacher, center, 10, 0.1, 0.04), student)
        seconds.append(time.perf_counter() - start)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    return {"seconds": min(seconds), "mebibytes": grown / 1024}


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--prototypes", type=int, default=65536)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--one", choices=list(LOSSES), help="measure this one in this process, and print JSON")
    parser.add_argument("--output", type=Path, help="JSON file")
    return parser.parse_args()


def _sizes(arguments: argparse.Namespace) -> list[str]:
    return ["--images", str(arguments.images), "--prototypes", str(arguments.prototypes)]


if __name__ == "__main__":
    main()
