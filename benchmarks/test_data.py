"""From a file's bytes to what the network sees."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torchvision.transforms import functional as tv

from benchmarks.loader_peers.pictures import encoded_pictures
from benchmarks.side_by_side import Pair, SideBySide
from fastdino import native
from fastdino.data import apply_plan, crop_plan
from fastdino.data.normalize import IMAGENET_MEAN, IMAGENET_STD, normalize
from fastdino.data.reading import read_image

EXACTLY = {"rtol": 0.0, "atol": 0.0}


@pytest.mark.skipif(not native.available(), reason=native.why_not())
def test_crops(side_by_side: SideBySide) -> None:
    (picture,) = encoded_pictures(1)
    plan = crop_plan(0, 0, 0, *read_image(picture).size)
    side_by_side(lambda: apply_plan(picture, plan, "native"), lambda: apply_plan(picture, plan, "reference"), **EXACTLY)


def test_normalisation(pair: Pair, side_by_side: SideBySide) -> None:
    crops = torch.randint(256, (16 * pair.images, 3, 224, 224), dtype=torch.uint8, device=pair.device)

    def of(implementation: str) -> Callable[[], Tensor]:
        if implementation == "reference":
            return lambda: torch.stack([_as_torchvision(crop) for crop in crops])
        return lambda: normalize(crops, torch.float32, implementation)

    side_by_side(of(pair.ours), of(pair.reference), **EXACTLY)


def _as_torchvision(crop: Tensor) -> Tensor:
    return tv.normalize(tv.to_tensor(crop.permute(1, 2, 0).numpy()), list(IMAGENET_MEAN), list(IMAGENET_STD))
