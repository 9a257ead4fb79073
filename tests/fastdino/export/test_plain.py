from __future__ import annotations

import pytest
import torch

from fastdino.errors import UserError
from fastdino.export.plain import at_size, plain
from fastdino.models.pretrained import Backbone

# The stored size, fewer and more patches, not square, a single patch.
SIZES = [(32, 32), (16, 24), (40, 40), (96, 56), (32, 40), (8, 8)]


@torch.no_grad()
@pytest.mark.parametrize("size", SIZES)
def test_plain_computes_what_the_packed_model_does(small: Backbone, size: tuple[int, int]) -> None:
    pictures = torch.randn(2, 3, *size)
    # Features are of order 1 (a LayerNorm's output); sums of 32 to 128 float32 products, added in another order.
    torch.testing.assert_close(
        plain(small, fixed_size=False)(pictures), small.model(pictures), rtol=0, atol=128 * torch.finfo().eps
    )


@torch.no_grad()
def test_at_size_keeps_the_features(small: Backbone) -> None:
    resized = at_size(small, 48)
    pictures = torch.randn(2, 3, 48, 48)
    assert resized.model.pos_embed.shape == (1, 37, 32)
    assert torch.equal(resized.model(pictures), small.model(pictures))
    assert small.model.pos_embed.shape == (1, 17, 32)


def test_at_size_takes_whole_patches(small: Backbone) -> None:
    with pytest.raises(UserError, match="--image_size is 50, and patches have 8 pixels"):
        at_size(small, 50)
