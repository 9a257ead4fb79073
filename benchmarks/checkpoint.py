"""What a checkpoint of a ViT-B with 65,536 prototypes costs: how long training stands still, and memory to load it.

    python benchmarks/checkpoint.py --output benchmarks/results/checkpoint.json

The stall is the copy to host memory, the second time it is made (the first one asks for that memory), and how much less
a thread of plain Python gets done while the file is written. Memory is the process's own peak while loading, above what
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

PASS = 20_000


def main() -> int:
    """Parse the flags, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--arch", default="vit_base")
    parser.add_argument("--out_dim", type=int, default=65536)
    parser.add_argument("--folder", help="where to write the file; by default a temporary folder")
    parser.add_argument("--output", type=Path, help="JSON file for the figures")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        figures = measure(arguments.arch, arguments.out_dim, Path(folder))
    print(json.dumps(figures, indent=2))
    if arguments.output:
        arguments.output.write_text(json.dumps(figures, indent=2) + "\n")
    return 0


def measure(arch: str, out_dim: int, folder: Path) -> dict[str, Any]:
    """All figures, with the file in the empty `folder`."""
    trainee = build_trainee(TrainConfig(arch=arch, out_dim=out_dim), torch.device("cpu"))
    take_moments(trainee)
    content = checkpoint_content(trainee, Position(), {})
    writer = CheckpointWriter(folder, 2)
    alone = steps_a_second(lambda: False, seconds=2.0)
    stalls = []
    for _ in range(2):
        before = writer.stalled
        writer.start(content)
        stalls.append(writer.stalled - before)
        beside = steps_a_second(lambda: writer.busy)
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
        "first copy, share of the write": round(stalls[0] / write, 3),
        "copy, share of the write": round(stalls[1] / write, 3),
        "Python beside the write, of its speed alone": round(beside / alone, 2),
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


def steps_a_second(while_this: Any, seconds: float = 0.0) -> float:
    """How often a loop goes round while a condition holds, or for some seconds."""
    started, rounds = time.perf_counter(), 0
    while while_this() or time.perf_counter() - started < seconds:
        for _ in range(PASS):
            pass
        rounds += 1
    return rounds / max(time.perf_counter() - started, 1e-9)


def memory(kind: str) -> int:
    """VmRSS (now) or VmHWM (at the peak) in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line for line in lines if line.startswith(kind)).split()[1])


def reset_peak() -> None:
    """Let VmHWM begin anew."""
    Path("/proc/self/clear_refs").write_text("5")


if __name__ == "__main__":
    sys.exit(main())
