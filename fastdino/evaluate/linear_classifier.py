"""A linear classifier on features: its accuracy, and its file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from fastdino.errors import UserError
from fastdino.evaluate.knn import target_ranks
from fastdino.models.weights import read_weights, save_weights, strip_prefix

# Logits of this many pictures at once: with 1000 classes and 11 learning rates they take 45 MB.
PIECE = 1024


@dataclass(frozen=True)
class LinearClassifier:
    """`weight` (classes, D) and `bias` (classes,), float32."""

    weight: Tensor
    bias: Tensor

    def accuracy(self, features: Tensor, labels: Tensor) -> dict[str, Any]:
        """Accuracies in percent on features (m, D), labels (m,) int64, of which those from `classes` on count as wrong.

        Returns `top1`, `top5` (from five classes on) and `per_class` {label: top-1} of the labels that occur.
        """
        classes = len(self.bias)
        unknown = max(0, int(labels.max()) + 1 - classes)
        ranks = torch.cat(
            [
                target_ranks(F.pad(F.linear(piece, self.weight, self.bias), (0, unknown), value=-torch.inf), wanted)
                for piece, wanted in zip(features.split(PIECE), labels.split(PIECE), strict=True)
            ]
        )
        result: dict[str, Any] = {"top1": _percent(ranks < 1)}
        if classes >= 5:
            result["top5"] = _percent(ranks < 5)
        result["per_class"] = {label: _percent(ranks[labels == label] < 1) for label in labels.unique().tolist()}
        return result


def save_classifier(classifier: LinearClassifier, path: Path) -> None:
    """Write the original's layout, in which DistributedDataParallel's `module.` is part of the names."""
    state = {"module.linear.weight": classifier.weight.cpu(), "module.linear.bias": classifier.bias.cpu()}
    save_weights({"state_dict": state}, path)


def load_classifier(path: str | Path) -> LinearClassifier:
    """What `save_classifier` or the original's eval_linear.py wrote. Raises UserError for any other file."""
    content = read_weights(path)
    state = content.get("state_dict", content)
    state = strip_prefix(strip_prefix(state, "module."), "linear.") if isinstance(state, dict) else {}
    weight, bias = state.get("weight"), state.get("bias")
    if not (isinstance(weight, Tensor) and isinstance(bias, Tensor) and weight.ndim == 2 and len(weight) == len(bias)):
        raise UserError(f"{path} holds no linear.weight and linear.bias: give a classifier as --pretrained_linear")
    return LinearClassifier(weight.float(), bias.float())


def _percent(right: Tensor) -> float:
    return int(right.sum()) * 100.0 / len(right)
