"""Did training help? The same k-NN on the trained features, on those before training, and on bare pixels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from rich.console import Console
from torch import nn

from fastdino.data.sources import Source
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


@dataclass(frozen=True)
class Known:
    """What was measured on the same pictures before: features of the trained network, of the gallery and of the queries
    if there are any, and the top-1 accuracy of the untrained one in percent. None for what was not.
    """

    learnt: Sequence[Features] | None = None
    before: float | None = None


def compare(
    trained: nn.Module,
    untrained: nn.Module,
    gallery: Source,
    queries: Source | None,
    *,
    image_size: int,
    batch_size: int = 128,
    num_workers: int = 0,
    device: torch.device | str = "cpu",
    console: Console | None = None,
    known: Known | None = None,
) -> Comparison:
    """Measure `trained` (pictures -> features) against `untrained` and raw pixels, as far as it is not `known`.

    The pictures of `queries` are classified by those of `gallery`, which have the same classes; without `queries`
    leave-one-out. Raises UserError when no picture can be read.
    """
    sources = [gallery] if queries is None else [gallery, queries]

    def features_of(model: nn.Module, description: str) -> list[Features]:
        return [
            extract_features(
                model,
                source,
                image_size=image_size,
                batch_size=batch_size,
                num_workers=num_workers,
                device=device,
                description=description,
                console=console,
            )
            for source in sources
        ]

    known = known or Known()
    learnt = known.learnt or features_of(trained, "Features after training")
    comparison = Comparison(learnt[0], learnt[1] if queries is not None else None, None)
    by_k = accuracies(learnt) if len(gallery.classes) > 1 else {}
    if not by_k:
        return comparison
    before = known.before
    if before is None:
        before = top1(accuracies(features_of(untrained, "Features before training")))
    pixels = accuracies([pixel_features(source, num_workers=num_workers, console=console) for source in sources])
    k = max(by_k)
    answered = learnt[-1].labelled()
    numbers = {
        "k": k,
        "knn_top1": top1(by_k),
        "knn_top1_random_init": before,
        "knn_top1_pixels": top1(pixels),
        "chance": 100.0 * answered.labels.bincount().max().item() / len(answered.labels),
        "by_k": by_k,
        "pictures": len(answered.labels),
        "explanation": _explanation(
            k, len(answered.labels), len(answered.labels.unique()), leave_one_out=queries is None
        ),
    }
    return Comparison(comparison.gallery, comparison.queries, numbers)


def accuracies(parts: Sequence[Features]) -> Accuracies:
    """k-NN accuracies of the queries' features, the second of `parts`, among the gallery's, the first; leave-one-out
    where that is all. Empty where fewer than two pictures of either have a label.
    """
    gallery, *rest = (part.labelled() for part in parts)
    if min(len(part.labels) for part in (gallery, *rest)) < 2:
        return {}
    if rest:
        return knn_accuracy(gallery.features, gallery.labels, rest[0].features, rest[0].labels, NEIGHBOURS)
    return knn_accuracy(gallery.features, gallery.labels, nb_knn=NEIGHBOURS)


def top1(by_k: Accuracies) -> float:
    """That of the largest k, in percent."""
    return by_k[max(by_k)][0]


def _explanation(k: int, pictures: int, classes: int, *, leave_one_out: bool) -> str:
    voters = "nearest other pictures" if leave_one_out else "nearest training pictures"
    return (
        f"Each of {pictures} pictures gets the class that its {k} {voters} vote for, out of {classes}. "
        f"Nothing is trained for this, and the classes were not used in training."
    )
