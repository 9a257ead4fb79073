"""Did training help? The same k-NN on the trained features, on those before training, and on bare pixels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from rich.console import Console
from torch import nn

from fastdino.data.sources import Source
from fastdino.errors import UserError
from fastdino.evaluate.features import Features, extract_features, pixel_features
from fastdino.evaluate.knn import Accuracies, knn_accuracy

# The original's best; fewer where there are not as many pictures.
NEIGHBOURS = (20,)


@dataclass(frozen=True)
class Comparison:
    """Features of the trained network, and k-NN accuracies in percent; the latter only where there are
    classes.

    `queries` is None when every picture of the gallery was classified by all the others.
    """

    gallery: Features
    queries: Features | None
    numbers: dict[str, Any] | None


def compare(
    trained: nn.Module,
    untrained: nn.Module,
    gallery: Source,
    queries: Source | None,
    *,
    image_size: int,
    num_workers: int = 0,
    device: torch.device | str = "cpu",
    console: Console | None = None,
) -> Comparison:
    """Measure `trained` (pictures -> features) against `untrained` and raw pixels.

    The pictures of `queries` are classified by those of `gallery`; without `queries` leave-one-out. Raises
    UserError when no picture can be read or the two have other classes.
    """
    if queries is not None and queries.classes != gallery.classes:
        raise UserError("the held-out pictures have other class folders than those to compare with: use the same names")
    sources = [gallery] if queries is None else [gallery, queries]

    def features_of(model: nn.Module, description: str) -> list[Features]:
        return [
            extract_features(
                model,
                source,
                image_size=image_size,
                num_workers=num_workers,
                device=device,
                description=description,
                console=console,
            )
            for source in sources
        ]

    learnt = features_of(trained, "Features after training")
    comparison = Comparison(learnt[0], learnt[1] if queries is not None else None, None)
    if len(gallery.classes) < 2 or min(len(part.labelled().labels) for part in learnt) < 2:
        return comparison
    by_k = _accuracies(learnt)
    before = _accuracies(features_of(untrained, "Features before training"))
    pixels = _accuracies([pixel_features(source, num_workers=num_workers, console=console) for source in sources])
    k = max(by_k)
    answered = learnt[-1].labelled()
    numbers = {
        "k": k,
        "knn_top1": by_k[k][0],
        "knn_top1_random_init": before[k][0],
        "knn_top1_pixels": pixels[k][0],
        "chance": 100.0 * answered.labels.bincount().max().item() / len(answered.labels),
        "by_k": by_k,
        "explanation": _explanation(
            k, len(answered.labels), len(answered.labels.unique()), leave_one_out=queries is None
        ),
    }
    return Comparison(comparison.gallery, comparison.queries, numbers)


def _accuracies(parts: list[Features]) -> Accuracies:
    gallery, *rest = (part.labelled() for part in parts)
    if rest:
        return knn_accuracy(gallery.features, gallery.labels, rest[0].features, rest[0].labels, NEIGHBOURS)
    return knn_accuracy(gallery.features, gallery.labels, nb_knn=NEIGHBOURS)


def _explanation(k: int, pictures: int, classes: int, *, leave_one_out: bool) -> str:
    voters = "nearest other pictures" if leave_one_out else "nearest training pictures"
    return (
        f"Each of {pictures} pictures gets the class that its {k} {voters} vote for, out of {classes}. "
        f"Nothing is trained for this, and the classes were not used in training."
    )
