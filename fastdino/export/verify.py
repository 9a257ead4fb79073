"""Whether a file gives the features of the model that it was written from."""

from __future__ import annotations

import torch

from fastdino.errors import CheckFailed
from fastdino.export.formats import Features
from fastdino.models.pretrained import Backbone

Case = tuple[int, int, int]


def cases(backbone: Backbone, fixed_size: bool) -> list[Case]:
    """(batch, height, width) of the pictures to compare with: batches of 1 and 3, and where sizes are open three."""
    side, patch_size = backbone.image_size, backbone.patch_size
    sizes = [(side, side)]
    if not fixed_size and patch_size is not None:
        sizes += [(side + patch_size, side + patch_size), (2 * patch_size, side + 2 * patch_size)]
    return [(batch, *size) for size in sizes for batch in (1, 3)]


@torch.no_grad()
def verify(features: Features, backbone: Backbone, compared: list[Case], tolerance: float) -> float:
    """Compare features of random pictures; returns the largest difference as a share of the largest feature.

    Raises CheckFailed if that exceeds `tolerance`.
    """
    generator = torch.Generator().manual_seed(0)
    worst = 0.0
    for batch, height, width in compared:
        pictures = torch.randn(batch, 3, height, width, generator=generator)
        expected, got = backbone.model(pictures), features(pictures)
        difference = float((got - expected).abs().max() / expected.abs().max())
        # Written so that NaN fails.
        if not difference <= tolerance:
            raise CheckFailed(
                f"nothing was written: loaded again, it gives features that differ by {difference:.1e} of the largest "
                f"for {batch} pictures of {height} x {width} pixels, and at most {tolerance:.0e} is rounding"
            )
        worst = max(worst, difference)
    return worst
