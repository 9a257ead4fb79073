"""What a checkpoint of a ViT-B with 65,536 prototypes costs: how long training stands still, and memory to load it.

    python benchmarks/checkpoint.py --output benchmarks/results/checkpoint.json

The stall is the time that a save takes before training goes on, plus what a step then waits for the copy before it
moves the weights. Matrix products for `--pass_seconds` stand for its forward and backward pass, which takes longer than
that on most CPUs; how much slower they go beside the thread is given, too. The first save also asks for the copy's
memory. Memory is the process's own peak while loading, above what
it had with the networks built, as a multiple of the file's size.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from fastdino import TrainConfig
from fastdino.models.weights import read_weights
from fastdino.train.build import build_trainee
from fastdino.train.checkpoint import checkpoint_content, require_intact, restore
from fastdino.train.position import Position
from fastdino.train.saving import NAME, CheckpointWriter
from fastdino.train.step import Trainee

# A matrix product of as many rows and columns, on all cores.
SIDE = 1024


def main() -> int:
    """Parse the flags, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--arch", default="vit_base")
    parser.add_argument("--out_dim", type=int, default=65536)
    parser.add_argument("--pass_seconds", type=float, default=4.0)
    parser.add_argument("--folder", help="where to write the file; by default a temporary folder")
    parser.add_argument("--output", type=Path, help="JSON file for the figures")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        figures = measure(arguments.arch, arguments.out_dim, arguments.pass_seconds, Path(folder))
    print(json.dumps(figures, indent=2))
    if arguments.output:
        arguments.output.write_text(json.dumps(figures, indent=2) + "\n")
    return 0


def measure(arch: str, out_dim: int, seconds: float, folder: Path) -> dict[str, Any]:
    """All figures, with the file in the empty `folder`."""
    trainee = build_trainee(TrainConfig(arch=arch, out_dim=out_dim), torch.device("cpu"))
    take_moments(trainee)
    content = checkpoint_content(trainee, Position(), {})
    writer = CheckpointWriter(folder, 2)
    alone = products_a_second(seconds)
    stalls = []
    for _ in range(2):
        before = writer.stalled
        writer.start(content)
        beside = products_a_second(seconds)
        writer.wait_for_copy()
        stalls.append(writer.stalled - before)
        writer.finish()
    write = writer.writing / 2
    size = (folder / NAME).stat().st_size
    del content
    trainee.optimizer.state.clear()
    started = time.perf_counter()
    require_intact(folder / NAME)
    checked = time.perf_counter() - started
    reset_peak()
    before_loading = memory("VmRSS")
    restore(read_weights(folder / NAME), trainee, folder / NAME)
    return {
        "size in GB": round(size / 1e9, 2),
        "seconds to write": round(write, 2),
        "first stall, share of the write": round(stalls[0] / write, 3),
        "stall, share of the write": round(stalls[1] / write, 3),
        "products beside the write, of their speed alone": round(beside / alone, 2),
        "check of the checksums, GB/s": round(size / 1e9 / checked, 2),
        "memory to load, of the size": round((memory("VmHWM") - before_loading) / size, 2),
    }


def take_moments(trainee: Trainee) -> None:
    """The optimiser's state, as after a step."""
    for parameter in trainee.student.parameters():
        if parameter.requires_grad:
            parameter.grad = torch.zeros_like(parameter)
    trainee.optimizer.step()
    trainee.optimizer.zero_grad()


def products_a_second(seconds: float) -> float:
    """Matrix products in a second, over at least so many seconds."""
    matrix = torch.randn(SIDE, SIDE)
    started, rounds = time.perf_counter(), 0
    while time.perf_counter() - started < seconds:
        torch.mm(matrix, matrix)
        rounds += 1
    return rounds / (time.perf_counter() - started)


def memory(kind: str) -> int:
    """VmRSS (now) or VmHWM (at the peak) in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line for line in lines if line.startswith(kind)).split()[1])


def reset_peak() -> None:
    """Let VmHWM begin anew."""
    Path("/proc/self/clear_refs").write_text("5")


if __name__ == "__main__":
    sys.exit(main())
