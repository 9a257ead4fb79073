"""The demo from its pictures to three sentences that a newcomer understands."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from rich.console import Console

from fastdino.config import DemoConfig
from fastdino.data.sources import FolderSource
from fastdino.demo import pictures
from fastdino.demo.preset import demo_preset
from fastdino.files import write_atomically
from fastdino.train.guards import explained_failures
from fastdino.train.run import train


def run(config: DemoConfig) -> dict[str, Any]:
    """Make the pictures, train on them, measure on held-out ones; returns what it writes to metrics.json.

    Keys: `knn_top1`, `knn_top1_random_init`, `knn_top1_pixels`, `chance` (percent), `seconds`, `seed`. Interrupted, it
    goes on when run again. Raises what `fastdino.train` raises.
    """
    started = time.monotonic()
    console = Console()
    output_dir = Path(config.output_dir)
    folder = output_dir / "pictures"
    with explained_failures(output_dir):
        folder.mkdir(parents=True, exist_ok=True)
        console.print(
            f"Windows of {len(pictures.PHOTOGRAPHS)} photographs under changing light: {folder}", soft_wrap=True
        )
        pictures.write_pictures(folder, config.seed)
        preset = demo_preset(str(folder / "train"), str(output_dir), config.seed, config.num_workers)
        result = train(
            preset,
            held_out=FolderSource(folder / "val"),
            photographs=[(Path(name).stem, pictures.read_photograph(name)) for name in pictures.SHOWN],
        )
        assert result.knn is not None, "the demo's pictures have classes"
        metrics = {
            **{name: result.knn[name] for name in ("knn_top1", "knn_top1_random_init", "knn_top1_pixels", "chance")},
            "seconds": time.monotonic() - started,
            "seed": config.seed,
        }
        write_atomically(output_dir / "metrics.json", json.dumps(metrics, indent=2) + "\n")
    for line in closing_lines(metrics, output_dir):
        console.print(line, highlight=False, markup=False, soft_wrap=True)
    return metrics


def closing_lines(metrics: dict[str, Any], output_dir: Path) -> list[str]:
    """What happened, how that compares, and what to do next; then where the pictures are."""
    return [
        f"Shown a new picture, the network finds the right one of {len(pictures.PHOTOGRAPHS)} photographs "
        f"{metrics['knn_top1']:.0f} times in 100, and nobody told it what any picture shows.",
        f"Before training it was right {metrics['knn_top1_random_init']:.0f} times, comparing bare pixels is right "
        f"{metrics['knn_top1_pixels']:.0f} times, guessing {metrics['chance']:.0f}.",
        "Your turn: fastdino train --data_path FOLDER_OF_PICTURES --output_dir my_run",
        f"What it learned, in pictures (map.html beside it has all by likeness): {output_dir / 'report.html'}",
    ]
