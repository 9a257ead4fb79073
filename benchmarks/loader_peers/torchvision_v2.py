"""torchvision's second transforms, on uint8 tensors."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch
from torchvision.io import ImageReadMode, decode_jpeg
from torchvision.transforms import v2

from benchmarks.loader_peers import data_loader
from benchmarks.loader_peers.pictures import read_pictures
from benchmarks.loader_peers.recipe import RECIPE, VIEWS, View
from fastdino.data import plan
from fastdino.data.normalize import IMAGENET_MEAN, IMAGENET_STD

# As DINOv2 has it. Pillow's blur of radius 2 reaches a little farther.
BLUR_PIXELS = 9


class AllViews:
    """A picture's bytes to its ten normalised float32 views."""

    def __init__(self) -> None:
        self._views = [_chain(view) for view in VIEWS]

    def __call__(self, picture: bytes) -> list[torch.Tensor]:
        image = decode_jpeg(torch.frombuffer(bytearray(picture), dtype=torch.uint8), ImageReadMode.RGB)
        return [view(image) for view in self._views]


def batches(folder: Path, count: int, threads: int, batch_size: int) -> Iterator[list[torch.Tensor]]:
    """Endless batches."""
    return data_loader.batches(read_pictures(folder, count), AllViews(), threads, batch_size)


def _chain(view: View) -> v2.Compose:
    bicubic = v2.InterpolationMode.BICUBIC
    jitter = v2.ColorJitter(RECIPE.brightness, RECIPE.contrast, RECIPE.saturation, RECIPE.hue)
    return v2.Compose(
        [
            v2.RandomResizedCrop(view.size, view.scale, plan.ASPECT_RATIO, bicubic, antialias=True),
            v2.RandomHorizontalFlip(plan.FLIP_PROBABILITY),
            v2.RandomApply([jitter], plan.JITTER_PROBABILITY),
            v2.RandomGrayscale(plan.GRAYSCALE_PROBABILITY),
            v2.RandomApply([v2.GaussianBlur(BLUR_PIXELS, plan.BLUR_RADIUS)], view.blur),
            v2.RandomSolarize(128, view.solarize),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(IMAGENET_MEAN, IMAGENET_STD),
        ]
    )
