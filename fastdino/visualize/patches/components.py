"""Principal components of the patches of several pictures: the first is the foreground, three more are its parts.

As in Oquab et al. 2023 (DINOv2), section 7.6.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

# A few extreme patches would leave all others the same grey.
STRETCHED_TO = (0.01, 0.99)


class Parts(NamedTuple):
    """What the patches (h, w) of one picture are."""

    foreground: Tensor
    """(h, w) bool."""
    colours: Tensor
    """(h, w, 3) in 0 .. 1, alike where patches are alike, in all the pictures; 0 in the background."""


def find_parts(features: Sequence[Tensor]) -> list[Parts]:
    """Foreground and parts of pictures from their patches' features (h, w, C), which are looked at together.

    Foreground is where the first component of all patches is above its mean, on the side that the pictures' edges are
    less on. The colours are the first three components of the foreground's patches alone.
    """
    patches = torch.cat([one.flatten(0, 1) for one in features])
    first = project(patches, principal_components(patches, 1))[:, 0]
    edges = torch.cat([_edge(*one.shape[:2]).flatten() for one in features])
    # A component has no sign of its own, and objects are seldom cut off by all four edges.
    if first[edges].mean() > 0:
        first = -first
    foreground = first > 0
    colours = torch.zeros(len(patches), 3)
    inside = patches[foreground]
    if len(inside):
        colours[foreground] = _stretched(project(inside, principal_components(inside, 3)))
    shapes = [one.shape[:2] for one in features]
    counts = [rows * columns for rows, columns in shapes]
    pictures = zip(shapes, foreground.split(counts), colours.split(counts), strict=True)
    return [Parts(where.reshape(shape), colour.reshape(*shape, 3)) for shape, where, colour in pictures]


def principal_components(vectors: Tensor, count: int) -> Tensor:
    """(n, C) -> the `count` directions (C, count) of largest variance, each with its largest coefficient positive."""
    centred = (vectors - vectors.mean(0)).double()
    _, directions = torch.linalg.eigh(centred.T @ centred)
    directions = directions[:, -count:].flip(1)
    largest = directions.gather(0, directions.abs().argmax(0, keepdim=True))
    return (directions * largest.sign()).to(vectors.dtype)


def project(vectors: Tensor, directions: Tensor) -> Tensor:
    """Vectors (n, C), from their mean, along directions (C, k): (n, k)."""
    return (vectors - vectors.mean(0)) @ directions


def _edge(rows: int, columns: int) -> Tensor:
    edge = torch.ones(rows, columns, dtype=torch.bool)
    edge[1:-1, 1:-1] = False
    return edge


def _stretched(values: Tensor) -> Tensor:
    """(n, 3) -> each column from 0 to 1."""
    low, high = values.quantile(torch.tensor(STRETCHED_TO), dim=0)
    return ((values - low) / (high - low).clamp(min=torch.finfo(values.dtype).tiny)).clamp(0, 1)
