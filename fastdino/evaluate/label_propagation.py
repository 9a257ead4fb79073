"""Labels carried from frame to frame by the likeness of patches (DINO paper, section 4.2.3).

Shapes: a frame is h x w patches with C features and L labels each; n frames are looked back at.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

TEMPERATURE = 0.1
# Patches of TILE x TILE share one product with all that any of them looks at. Larger tiles compute more that is then
# thrown away, smaller ones copy more.
TILE = 8


class LabelledFrame(NamedTuple):
    """`tokens` (h, w, C) of unit length and `labels` (h, w, L): how much of each label a patch has."""

    tokens: Tensor
    labels: Tensor


class LabelPropagation:
    """Labels the frames of a video one after another, from its first frame and the last few.

    Args:
        first: the frame whose labels are known; it is looked at for the whole video.
        last_frames: how many frames before the current one are looked at as well.
        radius: patches look at those at most so many rows and columns away; 0 for all.
        topk: most similar patches whose labels are mixed.
    """

    def __init__(self, first: LabelledFrame, *, last_frames: int = 7, radius: int = 12, topk: int = 5) -> None:
        self.first = first
        self.recent: deque[LabelledFrame] = deque(maxlen=last_frames)
        self.radius = radius
        self.topk = topk

    def label(self, tokens: Tensor) -> Tensor:
        """The labels (h, w, L) of the next frame, from its tokens (h, w, C) of unit length."""
        labels = propagate(tokens, [self.first, *self.recent], radius=self.radius, topk=self.topk)
        self.recent.append(LabelledFrame(tokens, labels))
        return labels


def propagate(target: Tensor, frames: Sequence[LabelledFrame], *, radius: int, topk: int) -> Tensor:
    """Labels (h, w, L) of `target` (h, w, C): those of its `topk` most similar patches in `frames`, by softmax.

    Patches as similar as the last of them are taken too. Only patches within `radius` are compared, a tile of the
    target at a time, so that work and memory grow with the pictures' area and not with its square.
    """
    height, width, _ = target.shape
    reach = radius or max(height, width)
    # (h, n, w, ...): the rows that a tile looks at then lie in one piece.
    tokens = torch.stack([frame.tokens for frame in frames], dim=1)
    labels = torch.stack([frame.labels for frame in frames], dim=1)
    result = target.new_empty(height, width, labels.shape[-1])
    for columns, near_columns in _tiles(width, reach):
        strip, strip_labels = (each[:, :, near_columns].contiguous() for each in (tokens, labels))
        beside = _within(columns, near_columns, reach, target.device)
        for rows, near_rows in _tiles(height, reach):
            tile = target[rows, columns]
            near = strip[near_rows]
            similarities = tile.flatten(0, 1) @ near.flatten(0, 2).T
            above = _within(rows, near_rows, reach, target.device)
            allowed = above[:, None, :, None, None] & beside[None, :, None, None, :]
            similarities.view(*tile.shape[:2], *near.shape[:3]).masked_fill_(~allowed, -torch.inf)
            least = similarities.topk(min(topk, similarities.shape[1]), dim=1).values[:, -1:]
            similarities.masked_fill_(similarities < least, -torch.inf)
            weights = similarities.div_(TEMPERATURE).softmax(dim=1)
            mixed = weights @ strip_labels[near_rows].flatten(0, 2)
            result[rows, columns] = mixed.view(*tile.shape[:2], -1)
    return result


def _tiles(length: int, reach: int) -> list[tuple[slice, slice]]:
    """Pieces of a side, and what each piece looks at."""
    pieces = (slice(start, min(start + TILE, length)) for start in range(0, length, TILE))
    return [(piece, slice(max(0, piece.start - reach), min(length, piece.stop + reach))) for piece in pieces]


def _within(piece: slice, near: slice, reach: int, device: torch.device) -> Tensor:
    """Bool (piece, near): which places are at most `reach` apart."""
    own, others = (torch.arange(each.start, each.stop, device=device) for each in (piece, near))
    return (own[:, None] - others).abs() <= reach
