"""The study behind the demo's preset: three seeds of it, or one setting changed at a time.

    python benchmarks/demo_study.py                     three seeds of the preset
    python benchmarks/demo_study.py --changes           seed 0 with each change of CHANGES
    python benchmarks/demo_study.py --epochs 9          shorter, for a first look

Prints a table and writes JSON (--output). Runs one training after the other, minutes each.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import tempfile
import time
from pathlib import Path
from typing import Any

from fastdino import TrainConfig
from fastdino.cores import usable_cores
from fastdino.data.sources import FolderSource
from fastdino.demo.pictures import write_pictures
from fastdino.demo.preset import demo_preset
from fastdino.files import write_atomically
from fastdino.train.run import train

CHANGES: dict[str, dict[str, Any]] = {
    "as shipped": {},
    "the paper's teacher temperature": {"warmup_teacher_temp": 0.04, "teacher_temp": 0.04},
    "the paper's teacher momentum": {"momentum_teacher": 0.996},
    "temperature 0.02, momentum 0.95": {
        "warmup_teacher_temp": 0.02,
        "teacher_temp": 0.02,
        "momentum_teacher": 0.95,
    },
    "no colour jitter": {"color_jitter": (0.0, 0.0, 0.0, 0.0)},
    "the paper's local crops": {"local_crops_scale": (0.05, 0.4)},
    "no local crops": {"local_crops_number": 0},
    "4,096 prototypes": {"out_dim": 4096},
}
COLUMNS = ("knn_top1", "knn_top1_random_init", "knn_top1_pixels", "seconds")


def measure(seed: int, change: dict[str, Any], epochs: int | None) -> dict[str, float]:
    """One training from scratch in a temporary folder; accuracies in percent and seconds of everything."""
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        pictures = Path(folder) / "pictures"
        pictures.mkdir()
        write_pictures(pictures, seed)
        preset: TrainConfig = demo_preset(str(pictures / "train"), folder, seed, num_workers=usable_cores())
        changed = dataclasses.replace(preset, **change, epochs=epochs or preset.epochs)
        result = train(changed, held_out=FolderSource(pictures / "val"))
    assert result.knn is not None
    row = {name: float(result.knn[name]) for name in COLUMNS[:-1]}
    return {**row, "seconds": time.monotonic() - started, "loss": result.log[-1]["train_loss"]}


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--changes", action="store_true", help="one setting at a time instead of seeds")
    parser.add_argument("--epochs", type=int, help="instead of the preset's")
    parser.add_argument("--output", type=Path, help="JSON file")
    arguments = parser.parse_args()
    if arguments.changes:
        runs = [(name, arguments.seeds[0], change) for name, change in CHANGES.items()]
    else:
        runs = [(f"seed {seed}", seed, {}) for seed in arguments.seeds]
    table: dict[str, dict[str, float]] = {}
    for name, seed, change in runs:
        table[name] = measure(seed, change, arguments.epochs)
        if arguments.output:
            write_atomically(arguments.output, json.dumps(table, indent=2) + "\n")
    if not arguments.changes:
        table["mean"] = {
            column: sum(row[column] for row in table.values()) / len(runs) for column in (*COLUMNS, "loss")
        }
    print(f"{'':38}" + "".join(f"{column:>22}" for column in COLUMNS))
    for name, row in table.items():
        print(f"{name:38}" + "".join(f"{row[column]:22.1f}" for column in COLUMNS))
    if arguments.output:
        write_atomically(arguments.output, json.dumps(table, indent=2) + "\n")


if __name__ == "__main__":
    main()
