"""Where a training step spends its time: named ranges, the most expensive operations, and a trace to look at.

    python benchmarks/profile_step.py                                  ViT-S/16, 8 images, this machine's GPU or CPU
    python benchmarks/profile_step.py --images 64 --data_path FOLDER   with the loader's crops instead of noise
    python benchmarks/profile_step.py --nvtx                           ranges for nsys and ncu, no profiler of its own

Writes DIR/trace.json for chrome://tracing or Perfetto, and on a GPU DIR/memory.pickle for pytorch.org/memory_viz, and
prints the ranges, the operations that take longest, and on a GPU how long it stood idle and what share of its copy
speed the update reached. See docs/profiling.md.
"""

from __future__ import annotations

import argparse
import functools
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile, record_function

# A script finds only its own folder.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from fastdino import TrainConfig
from fastdino.data.loader import MultiCropLoader
from fastdino.data.normalize import normalize
from fastdino.doctor.timing import copy_bandwidth
from fastdino.train.build import build_trainee
from fastdino.train.fused_update import FusedUpdate
from fastdino.train.step import StepValues, Trainee, train_step

VALUES = StepValues(epoch=1, lr=5e-4, weight_decay=0.04, momentum=0.996)
CLIP = 3.0
WARM_UP = 2
RANGES = ("loader", "teacher", "student", "loss and backward", "update")
# Of clipping, AdamW, average and copies, per parameter: benchmarks/traffic.py counts them.
UPDATE_BYTES = 41.5


def main() -> None:
    """Profile, print, write."""
    arguments = _parse()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    config = TrainConfig(
        arch=arguments.arch,
        out_dim=arguments.out_dim,
        batch_size_per_gpu=arguments.images,
        implementation=arguments.implementation,
        data_path=arguments.data_path,
    )
    trainee = build_trainee(config, device)
    batches = _batches(config, device, arguments.data_path)
    named = torch.cuda.nvtx.range if arguments.nvtx else record_function
    name_ranges(trainee, named)

    def step() -> None:
        with named("loader"):
            crops = next(batches)
        train_step(trainee, [crops], VALUES, CLIP, 1)

    for _ in range(WARM_UP):
        step()
    if arguments.nvtx:
        with torch.autograd.profiler.emit_nvtx():
            for _ in range(arguments.steps):
                step()
        return
    arguments.output_dir.mkdir(parents=True, exist_ok=True)
    with _memory_recorded(device, arguments.output_dir), profile(activities=_activities(device)) as profiler:
        for _ in range(arguments.steps):
            step()
    profiler.export_chrome_trace(str(arguments.output_dir / "trace.json"))
    report(profiler, trainee, arguments.steps, device)


def name_ranges(trainee: Trainee, named: Callable[[str], AbstractContextManager[Any]]) -> None:
    """Let the parts of a step of `trainee` run under their names."""
    for owner, method, name in (
        (trainee.teacher, "features", "teacher"),
        (trainee.student, "forward", "student"),
        (trainee.dino_loss, "backward", "loss and backward"),
        (trainee.update, "finish", "update"),
    ):
        setattr(owner, method, _under(name, getattr(owner, method), named))


def _under(name: str, function: Callable[..., Any], named: Callable[[str], AbstractContextManager[Any]]) -> Any:
    @functools.wraps(function)
    def run(*args: Any, **kwargs: Any) -> Any:
        with named(name):
            return function(*args, **kwargs)

    return run


def report(profiler: profile, trainee: Trainee, steps: int, device: torch.device) -> None:
    """Print what the profiler saw of `steps` steps."""
    on_gpu = device.type == "cuda"
    averages = profiler.key_averages()
    unit = "device_time_total" if on_gpu else "cpu_time_total"
    took = {event.key: getattr(event, unit) / steps / 1000 for event in averages if event.key in RANGES}
    total = sum(took.values())
    print("| range | ms a step | share |\n|---|---:|---:|")
    for name in RANGES:
        if name in took:
            print(f"| {name} | {took[name]:,.1f} | {took[name] / total:.0%} |")
    print(averages.table(sort_by=f"self_{'device' if on_gpu else 'cpu'}_time_total", row_limit=15))
    if on_gpu:
        print(f"The GPU stood idle for {idle_share(profiler):.0%} of the time.")
        if isinstance(trainee.update, FusedUpdate):
            parameters = sum(p.numel() for p in trainee.student.parameters())
            reached = parameters * UPDATE_BYTES / (took["update"] / 1000)
            print(f"The update moved {reached / copy_bandwidth(device):.0%} of what a plain copy moves a second.")


def idle_share(profiler: profile) -> float:
    """Share of the time between the first and the last kernel in which none ran."""
    spans = sorted(
        (event.time_range.start, event.time_range.end)
        for event in profiler.events() or ()
        if event.device_type == torch.autograd.DeviceType.CUDA
    )
    if not spans:
        return 0.0
    busy, end = 0.0, spans[0][0]
    for first, last in spans:
        busy += max(0.0, last - max(first, end))
        end = max(end, last)
    return 1 - busy / (end - spans[0][0])


def _batches(config: TrainConfig, device: torch.device, data_path: str) -> Iterator[list[Tensor]]:
    """Normalised crops: of pictures where there are some, of noise otherwise."""
    if not data_path:
        torch.manual_seed(0)
        sizes = [config.global_size] * 2 + [config.local_size] * config.local_crops_number
        crops = [torch.randn(config.batch_size_per_gpu, 3, size, size, device=device) for size in sizes]
        while True:
            yield crops
    with closing(MultiCropLoader(data_path, config.batch_size_per_gpu, seed=0, output="uint8")) as loader:
        while True:
            for crops, _ in loader:
                yield [normalize(crop.to(device, non_blocking=True)) for crop in crops]


def _activities(device: torch.device) -> list[ProfilerActivity]:
    return [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if device.type == "cuda" else [])]


def _memory_recorded(device: torch.device, folder: Path) -> AbstractContextManager[Any]:
    return _MemoryRecord(folder) if device.type == "cuda" else nullcontext()


class _MemoryRecord:
    """The allocator's history, written at the end."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "memory.pickle"

    def __enter__(self) -> None:
        torch.cuda.memory._record_memory_history()

    def __exit__(self, *_: object) -> None:
        torch.cuda.memory._dump_snapshot(str(self.path))
        torch.cuda.memory._record_memory_history(enabled=None)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--arch", default="vit_small")
    parser.add_argument("--images", type=int, default=8)
    parser.add_argument("--out_dim", type=int, default=65536)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--implementation", default="auto")
    parser.add_argument("--data_path", default="", help="folder of pictures; noise without it")
    parser.add_argument("--nvtx", action="store_true", help="mark ranges for nsys and ncu instead of profiling")
    parser.add_argument("--output_dir", type=Path, default=Path("profile"))
    return parser.parse_args()


if __name__ == "__main__":
    main()
