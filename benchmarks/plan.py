"""The memory that `fastdino plan` predicts beside what a process takes at most, on a CPU.

    python benchmarks/plan.py

Each configuration is predicted in one process and run in another for two optimiser steps, pictures left out: its crops
are made where the loader would deliver them. Measured is the process's peak of resident memory. It is valid on a busy
machine.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
from pathlib import Path

import torch

# A script finds only its own folder.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.loader_peers.machine import machine
from fastdino import TrainConfig
from fastdino.allocator import keep_freed_memory
from fastdino.files import write_atomically
from fastdino.plan.predict import VALUES, blank_batches, predict_step
from fastdino.plan.process import allocator_memory, process_memory
from fastdino.train.build import build_trainee
from fastdino.train.step import train_step

OUTPUT = Path(__file__).parent / "results" / "plan.json"
CONFIGURATIONS: dict[str, dict[str, object]] = {
    "vit_tiny, 8 pictures": {"arch": "vit_tiny", "batch_size_per_gpu": 8, "out_dim": 4096},
    "vit_small, patch 8, 2 x 96 + 4 x 48 pixels, 2 x 4 pictures": {
        "arch": "vit_small",
        "patch_size": 8,
        "global_size": 96,
        "local_size": 48,
        "local_crops_number": 4,
        "batch_size_per_gpu": 4,
        "accumulation_steps": 2,
        "out_dim": 16384,
    },
    "vit_small, 4 pictures, --checkpointing attention": {
        "arch": "vit_small",
        "batch_size_per_gpu": 4,
        "checkpointing": "attention",
    },
    "vit_small, 4 pictures, --checkpointing block": {
        "arch": "vit_small",
        "batch_size_per_gpu": 4,
        "checkpointing": "block",
    },
    "resnet50, sgd, 4 pictures": {"arch": "resnet50", "batch_size_per_gpu": 4, "optimizer": "sgd", "out_dim": 4096},
    "vit_base, 2 pictures": {"arch": "vit_base", "batch_size_per_gpu": 2, "out_dim": 4096},
    "vit_small, 8 pictures": {"arch": "vit_small", "batch_size_per_gpu": 8},
}


def main() -> None:
    """Predict, measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--one", nargs=2, metavar=("WHAT", "SETTINGS"), help="predict or measure in this process")
    parser.add_argument("--output", type=Path, default=OUTPUT, help="JSON file")
    arguments = parser.parse_args()
    if arguments.one:
        what, settings = arguments.one
        print((_predict if what == "predict" else _measure)(TrainConfig(**json.loads(settings))))
        return
    rows = []
    print("| run | predicted, MiB | measured, MiB | off by |\n|---|---:|---:|---:|")
    for name, settings in CONFIGURATIONS.items():
        predicted, measured = (_in_a_process(what, settings) for what in ("predict", "measure"))
        off = predicted / measured - 1
        rows.append({"name": name, "settings": settings, "predicted": predicted, "measured": measured, "off": off})
        print(f"| {name} | {predicted / 2**20:,.0f} | {measured / 2**20:,.0f} | {off:+.1%} |", flush=True)
        report = {"machine": machine(), "torch": torch.__version__, "bytes": rows}
        write_atomically(arguments.output, json.dumps(report, indent=2, default=str) + "\n")


def _predict(config: TrainConfig) -> int:
    process = process_memory()
    step = predict_step(config)
    return process + step.peak + allocator_memory(step.peak - step.lasting)


def _measure(config: TrainConfig) -> int:
    # As the command does.
    keep_freed_memory()
    trainee = build_trainee(config, torch.device("cpu"))
    for _ in range(2):
        train_step(trainee, blank_batches(config), VALUES, config.clip_grad, freeze_last_layer=0)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _in_a_process(what: str, settings: dict[str, object]) -> int:
    command = [sys.executable, __file__, "--one", what, json.dumps(settings)]
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


if __name__ == "__main__":
    main()
