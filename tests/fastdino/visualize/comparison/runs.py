"""Folders as runs leave them, without training any."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

from fastdino.config import TrainConfig

KNN = {"knn_top1_random_init": 30.0, "knn_top1_pixels": 25.0, "chance": 10.0, "k": 20, "pictures": 500}


def line(epoch: int, **changes: Any) -> dict[str, Any]:
    return {
        "epoch": epoch,
        "train_loss": 8 - 0.1 * epoch,
        "train_lr": 5e-4,
        "train_wd": 0.04,
        "train_teacher_entropy": 6 - 0.1 * epoch,
        "train_kl": 2.0,
        "train_feature_std": 0.5,
        "images_per_second": 321.0,
        "data_wait": 0.05,
        "pictures": 1000,
    } | changes


def original_line(epoch: int) -> dict[str, Any]:
    """What facebookresearch/dino writes."""
    return {"train_loss": 8 - 0.1 * epoch, "train_lr": 5e-4, "train_wd": 0.04, "epoch": epoch}


def write(
    folder: Path,
    *,
    top1: float | None = None,
    log: list[dict[str, Any]] | None = None,
    settings: dict[str, Any] | None = None,
    results: dict[str, Any] | None = None,
    knn: dict[str, Any] | None = None,
) -> str:
    """A finished run of ten epochs with `top1` in results.json; without it there is none. `settings` {} leaves
    config.json out. Returns the folder.
    """
    folder.mkdir(parents=True)
    lines = [line(epoch) for epoch in range(10)] if log is None else log
    (folder / "log.txt").write_text("".join(json.dumps(one) + "\n" for one in lines))
    if settings != {}:
        config = dataclasses.asdict(TrainConfig(epochs=10, out_dim=4096, output_dir=str(folder))) | (settings or {})
        (folder / "config.json").write_text(json.dumps(config))
    if top1 is not None:
        content = {
            "epochs": len(lines),
            "knn": KNN | {"knn_top1": top1} | (knn or {}),
            "measured_on": "these",
            "environment": {"torch": "2.14", "device": "CPU, 2 cores"},
        }
        (folder / "results.json").write_text(json.dumps(content | (results or {})))
        (folder / "report.html").write_text("<!doctype html>")
    return str(folder)
