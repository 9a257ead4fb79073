"""The model card: what the network is, what it was trained on and what came of it, out of the run's own files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from fastdino import __version__
from fastdino.data.normalize import IMAGENET_MEAN, IMAGENET_STD
from fastdino.models.pretrained import Backbone
from fastdino.train.log import read_log

# What Hugging Face sorts models by.
FRONT_MATTER = """---
library_name: transformers
pipeline_tag: image-feature-extraction
tags: [dino, self-supervised, feature-extraction]
---
"""
# Names of the last epoch's figures in log.txt, and what they are.
FIGURES = {
    "train_loss": "loss",
    "train_teacher_entropy": "teacher entropy",
    "train_kl": "KL divergence of student from teacher",
    "train_feature_std": "spread of the features",
    "knn_top1": "percent of pictures whose class their nearest neighbours name",
    "images_per_second": "pictures a second",
}


def run_folder(weights: str | None) -> Path | None:
    """The folder of the run that left `weights`, None for weights of another origin."""
    folder = Path(weights or "").parent
    return folder if weights and Path(weights).is_file() else None


def model_card(backbone: Backbone, format: str, usage: str, run: Path | None) -> str:
    """Markdown. Sections whose facts the run's folder lacks are left out."""
    parameters = sum(parameter.numel() for parameter in backbone.model.parameters())
    facts = {
        "architecture": backbone.arch,
        "patches": f"{backbone.patch_size} x {backbone.patch_size} pixels" if backbone.patch_size else None,
        "size of pictures": f"{backbone.image_size} x {backbone.image_size} pixels, RGB",
        "mean of red, green, blue": ", ".join(map(str, IMAGENET_MEAN)),
        "standard deviation": ", ".join(map(str, IMAGENET_STD)),
        "features": f"{backbone.embed_dim} numbers a picture",
        "parameters": f"{parameters:,}",
        "written by": f"fastdino {__version__}",
    }
    sections = [
        f"# {backbone.arch}",
        table({name: value for name, value in facts.items() if value is not None}),
        f"```python\n{usage}\n```",
    ]
    if run is not None:
        sections += _training(run)
    return (FRONT_MATTER if format == "huggingface" else "") + "\n\n".join(sections) + "\n"


def table(rows: dict[str, Any]) -> str:
    """Two columns."""
    lines = [f"| {name} | {str(value).replace('|', chr(92) + '|')} |" for name, value in rows.items()]
    return "\n".join(["| | |", "|---|---|", *lines])


def _training(run: Path) -> list[str]:
    sections = []
    lines = read_log(run / "log.txt")
    if lines:
        last = lines[-1]
        results: dict[str, Any] = {"epochs": len(lines)}
        if "pictures" in last:
            results["pictures"] = last["pictures"]
        results |= {words: f"{last[name]:.4g}" for name, words in FIGURES.items() if name in last}
        skipped = run / "skipped.txt"
        if skipped.is_file():
            results["unreadable pictures"] = len(skipped.read_text().splitlines())
        sections += ["## Result\n\nThe last epoch's figures.", table(results)]
    settings = _settings(run / "config.json")
    if settings:
        sections += ["## Settings\n\nThe flags of `fastdino train`.", table(settings)]
    return sections


def _settings(path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(path.read_text()))
    except (OSError, ValueError, TypeError):
        return {}
