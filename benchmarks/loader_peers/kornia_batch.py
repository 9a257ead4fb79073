"""kornia: pictures cropped one by one, then one chain over each view of the whole batch, where kornia is fastest."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import kornia.augmentation as K
import torch
from torch import nn
from torchvision.io import ImageReadMode, decode_jpeg

from benchmarks.loader_peers import data_loader
from benchmarks.loader_peers.pictures import read_pictures
from benchmarks.loader_peers.recipe import RECIPE, VIEWS, View
from fastdino.data import plan
from fastdino.data.normalize import IMAGENET_MEAN, IMAGENET_STD

BLUR_PIXELS = 9


class Crops:
    """A picture's bytes to ten crops on a 0 .. 1 scale."""

    def __init__(self) -> None:
        self._crops = [
            K.RandomResizedCrop(
                (view.size, view.size), view.scale, plan.ASPECT_RATIO, "BICUBIC", align_corners=False, keepdim=True
            )
            for view in VIEWS
        ]

    def __call__(self, picture: bytes) -> list[torch.Tensor]:
        image = decode_jpeg(torch.frombuffer(bytearray(picture), dtype=torch.uint8), ImageReadMode.RGB)
        scaled = image.to(torch.float32).div_(255)
        # As rounding to uint8 does elsewhere: the filter overshoots.
        return [crop(scaled).clamp_(0, 1) for crop in self._crops]


class Collate:
    """Crops of several pictures to normalised batches."""

    def __init__(self) -> None:
        self._views = [_chain(view) for view in VIEWS]

    def __call__(self, pictures: list[list[torch.Tensor]]) -> list[torch.Tensor]:
        crops = zip(*pictures, strict=True)
        return [view(torch.stack(each)) for view, each in zip(self._views, crops, strict=True)]


def batches(folder: Path, count: int, threads: int, batch_size: int) -> Iterator[list[torch.Tensor]]:
    """Endless batches."""
    return data_loader.batches(read_pictures(folder, count), Crops(), threads, batch_size, Collate())


def _chain(view: View) -> nn.Sequential:
    return nn.Sequential(
        K.RandomHorizontalFlip(plan.FLIP_PROBABILITY),
        K.ColorJiggle(RECIPE.brightness, RECIPE.contrast, RECIPE.saturation, RECIPE.hue, p=plan.JITTER_PROBABILITY),
        K.RandomGrayscale(p=plan.GRAYSCALE_PROBABILITY),
        K.RandomGaussianBlur(BLUR_PIXELS, plan.BLUR_RADIUS, p=view.blur),
        K.RandomSolarize((0.5, 0.5), (0.0, 0.0), p=view.solarize),
        K.Normalize(torch.tensor(IMAGENET_MEAN), torch.tensor(IMAGENET_STD)),
    )
