"""The original's augmentation: Pillow pictures through torchvision's transforms."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import torch
from PIL import Image, ImageFilter, ImageOps
from torchvision import transforms

from benchmarks.loader_peers import data_loader
from benchmarks.loader_peers.pictures import read_pictures
from benchmarks.loader_peers.recipe import RECIPE, VIEWS, View
from fastdino.data import plan
from fastdino.data.normalize import IMAGENET_MEAN, IMAGENET_STD


class AllViews:
    """A picture's bytes to its ten normalised float32 views."""

    def __init__(self) -> None:
        self._views = [_chain(view) for view in VIEWS]

    def __call__(self, picture: bytes) -> list[torch.Tensor]:
        image = Image.open(io.BytesIO(picture)).convert("RGB")
        return [view(image) for view in self._views]


def batches(folder: Path, count: int, threads: int, batch_size: int) -> Iterator[list[torch.Tensor]]:
    """Endless batches."""
    return data_loader.batches(read_pictures(folder, count), AllViews(), threads, batch_size)


class _Blur:
    def __call__(self, image: Image.Image) -> Image.Image:
        return image.filter(ImageFilter.GaussianBlur(float(torch.empty(1).uniform_(*plan.BLUR_RADIUS))))


def _chain(view: View) -> transforms.Compose:
    bicubic = transforms.InterpolationMode.BICUBIC
    jitter = transforms.ColorJitter(RECIPE.brightness, RECIPE.contrast, RECIPE.saturation, RECIPE.hue)
    return transforms.Compose(
        [
            transforms.RandomResizedCrop(view.size, view.scale, plan.ASPECT_RATIO, bicubic),
            transforms.RandomHorizontalFlip(plan.FLIP_PROBABILITY),
            transforms.RandomApply([jitter], plan.JITTER_PROBABILITY),
            transforms.RandomGrayscale(plan.GRAYSCALE_PROBABILITY),
            transforms.RandomApply([_Blur()], view.blur),
            transforms.RandomApply([ImageOps.solarize], view.solarize),
            transforms.ToTensor(),
            transforms.Normalize(IMAGENET_MEAN, IMAGENET_STD),
        ]
    )
