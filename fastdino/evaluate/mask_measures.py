"""How well masks follow an object: region similarity J and boundary accuracy F (Perazzi et al. 2016, section 5)."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from skimage.morphology import isotropic_dilation

Mask = npt.NDArray[np.bool_]

# Boundaries match up to this share of the picture's diagonal.
TOLERANCE = 0.008


def region_similarity(mask: Mask, truth: Mask) -> float:
    """J: intersection over union of two masks (H, W); 1 where both are empty."""
    union = np.count_nonzero(mask | truth)
    return np.count_nonzero(mask & truth) / union if union else 1.0


def boundary_accuracy(mask: Mask, truth: Mask) -> float:
    """F: harmonic mean of precision and recall of the boundary pixels of two masks (H, W).

    A boundary pixel is matched where one of the other mask lies within TOLERANCE of the diagonal, in whole pixels.
    """
    ours, theirs = boundary(mask), boundary(truth)
    if not ours.any() or not theirs.any():
        return float(ours.any() == theirs.any())
    reach = math.ceil(TOLERANCE * math.hypot(*mask.shape))
    precision = float(isotropic_dilation(theirs, reach)[ours].mean())
    recall = float(isotropic_dilation(ours, reach)[theirs].mean())
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def boundary(mask: Mask) -> Mask:
    """Pixels (H, W) that differ from their neighbour to the right, below or diagonally between the two."""
    padded = np.pad(mask, ((0, 1), (0, 1)), mode="edge")
    return (mask != padded[:-1, 1:]) | (mask != padded[1:, :-1]) | (mask != padded[1:, 1:])


@dataclass(frozen=True)
class Summary:
    """Mean, share of frames above 0.5, and how much is lost from the first quarter of the frames to the last."""

    mean: float
    recall: float
    decay: float


def summarize(values: Sequence[float]) -> Summary:
    """The protocol's statistics of one object's J or F, a value a frame; at least one."""
    array = np.array(values)
    edges = np.round(np.linspace(1, len(array), 5) + 1e-10).astype(int) - 1
    quarters = [array[start : end + 1] for start, end in itertools.pairwise(edges)]
    decay = float(quarters[0].mean() - quarters[-1].mean())
    return Summary(float(array.mean()), float((array > 0.5).mean()), decay)


class ObjectScores:
    """J and F of a video's objects, gathered frame by frame."""

    def __init__(self, objects: Iterable[int]) -> None:
        self.values: dict[int, tuple[list[float], list[float]]] = {number: ([], []) for number in objects}

    def add(self, labels: npt.NDArray[np.uint8], truth: npt.NDArray[np.uint8]) -> None:
        """Compare a frame's objects (H, W) with the true ones."""
        for number, (similarities, accuracies) in self.values.items():
            mask, true_mask = labels == number, truth == number
            similarities.append(region_similarity(mask, true_mask))
            accuracies.append(boundary_accuracy(mask, true_mask))

    def summaries(self) -> dict[int, tuple[Summary, Summary]]:
        """J and F by object; none where no frame was compared."""
        return {
            number: (summarize(similarities), summarize(accuracies))
            for number, (similarities, accuracies) in self.values.items()
            if similarities
        }


def davis_scores(objects: Sequence[tuple[Summary, Summary]]) -> dict[str, Any]:
    """Means over all objects of all videos, in percent, as DAVIS 2017 ranks by: {"j_and_f": ..., "j": ..., "f": ...}.

    `j` and `f` have `mean`, `recall` and `decay`; `j_and_f` is the mean of both means.
    """
    region, boundaries = (
        {
            name: 100 * float(np.mean([getattr(each[which], name) for each in objects]))
            for name in ("mean", "recall", "decay")
        }
        for which in (0, 1)
    )
    return {"j_and_f": (region["mean"] + boundaries["mean"]) / 2, "j": region, "f": boundaries}
