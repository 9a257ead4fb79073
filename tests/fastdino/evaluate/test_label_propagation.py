from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from fastdino.evaluate.label_propagation import LabelledFrame, LabelPropagation, propagate
from fastdino.reference import label_propagation as reference


def in_full(target: Tensor, frames: list[LabelledFrame], radius: int, topk: int) -> Tensor:
    """The plain formula, in float64."""
    return reference.propagate(
        target.double(), [(tokens.double(), labels.double()) for tokens, labels in frames], radius=radius, topk=topk
    )


def random_frame(height: int, width: int, generator: torch.Generator) -> LabelledFrame:
    tokens = F.normalize(torch.randn(height, width, 8, generator=generator), dim=-1)
    return LabelledFrame(tokens, torch.rand(height, width, 3, generator=generator))


@pytest.mark.parametrize(("height", "width"), [(11, 17), (8, 24), (1, 3)])
@pytest.mark.parametrize("radius", [0, 2, 9])
@pytest.mark.parametrize(("topk", "count"), [(1, 1), (5, 3), (400, 2)])
def test_only_near_patches_give_what_all_give(height: int, width: int, radius: int, topk: int, count: int) -> None:
    generator = torch.Generator().manual_seed(0)
    frames = [random_frame(height, width, generator) for _ in range(count)]
    target = random_frame(height, width, generator).tokens
    ours = propagate(target, frames, radius=radius, topk=topk)
    # A similarity is rounded by a few 6e-8, its exponent by ten times that, labels are up to 1.
    torch.testing.assert_close(ours.double(), in_full(target, frames, radius, topk), rtol=0, atol=1e-5)


def test_patches_as_similar_as_the_last_are_taken_too() -> None:
    generator = torch.Generator().manual_seed(0)
    # Products of such tokens are exactly 0 or 1.
    one_hot = torch.eye(4)[torch.randint(4, (6, 9), generator=generator)]
    frames = [LabelledFrame(one_hot, torch.rand(6, 9, 2, generator=generator)) for _ in range(4)]
    ours = propagate(one_hot, frames, radius=2, topk=3)
    torch.testing.assert_close(ours.double(), in_full(one_hot, frames, 2, 3), rtol=0, atol=1e-6)


def test_the_first_frame_and_the_last_few_are_looked_at() -> None:
    generator = torch.Generator().manual_seed(1)
    first, *others = (random_frame(5, 6, generator) for _ in range(6))
    propagation = LabelPropagation(first, last_frames=2, radius=3, topk=4)
    known = [first]
    for frame in others:
        labels = propagation.label(frame.tokens)
        expected = in_full(frame.tokens, [first, *known[1:][-2:]], 3, 4)
        torch.testing.assert_close(labels.double(), expected, rtol=0, atol=1e-5)
        known.append(LabelledFrame(frame.tokens, labels))
