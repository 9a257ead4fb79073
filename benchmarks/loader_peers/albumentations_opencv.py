"""albumentations over OpenCV, whose resizing is fast and not DINO's: it has no antialiased bicubic filter."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import albumentations as A
import cv2
import numpy as np
import torch

from benchmarks.loader_peers import data_loader
from benchmarks.loader_peers.pictures import read_pictures
from benchmarks.loader_peers.recipe import RECIPE, VIEWS, View
from fastdino.data import plan
from fastdino.data.normalize import IMAGENET_MEAN, IMAGENET_STD

# Pillow and torchvision do not turn a picture as its EXIF says; OpenCV would.
_FLAGS = cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION


class AllViews:
    """A picture's bytes to its ten normalised float32 views."""

    def __init__(self, interpolation: int) -> None:
        self._views = [_chain(view, interpolation) for view in VIEWS]

    def __call__(self, picture: bytes) -> list[torch.Tensor]:
        image = cv2.imdecode(np.frombuffer(picture, dtype=np.uint8), _FLAGS)
        return [view(image=image)["image"] for view in self._views]


def batches(
    folder: Path, count: int, threads: int, batch_size: int, interpolation: str
) -> Iterator[list[torch.Tensor]]:
    """Endless batches; `interpolation` is the name of OpenCV's constant."""
    cv2.setNumThreads(1)
    views = AllViews(getattr(cv2, interpolation))
    return data_loader.batches(read_pictures(folder, count), views, threads, batch_size)


def _chain(view: View, interpolation: int) -> A.Compose:
    return A.Compose(
        [
            A.RandomResizedCrop((view.size, view.size), view.scale, plan.ASPECT_RATIO, interpolation),
            A.HorizontalFlip(p=plan.FLIP_PROBABILITY),
            A.ColorJitter(
                brightness=(1 - RECIPE.brightness, 1 + RECIPE.brightness),
                contrast=(1 - RECIPE.contrast, 1 + RECIPE.contrast),
                saturation=(1 - RECIPE.saturation, 1 + RECIPE.saturation),
                hue=(-RECIPE.hue, RECIPE.hue),
                p=plan.JITTER_PROBABILITY,
            ),
            A.ToGray(p=plan.GRAYSCALE_PROBABILITY),
            A.GaussianBlur(sigma_limit=plan.BLUR_RADIUS, p=view.blur),
            A.Solarize(p=view.solarize),
            A.Normalize(IMAGENET_MEAN, IMAGENET_STD),
            A.ToTensorV2(),
        ]
    )
