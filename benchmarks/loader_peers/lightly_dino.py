"""lightly's DINOTransform, with the number of local views set to DINO's."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from lightly.transforms import DINOTransform
from PIL import Image

from benchmarks.loader_peers import data_loader
from benchmarks.loader_peers.pictures import read_pictures
from benchmarks.loader_peers.recipe import RECIPE


class AllViews:
    """A picture's bytes to its ten normalised float32 views."""

    def __init__(self) -> None:
        # Everything else is DINO's by default; a test looks whether that is still so.
        self.transform = DINOTransform(n_local_views=RECIPE.local_crops_number)

    def __call__(self, picture: bytes) -> list[torch.Tensor]:
        # Declared as tensors or pictures: which of them depends on the transform.
        views: Any = self.transform(Image.open(io.BytesIO(picture)).convert("RGB"))
        return list(views)


def batches(folder: Path, count: int, threads: int, batch_size: int) -> Iterator[list[torch.Tensor]]:
    """Endless batches."""
    return data_loader.batches(read_pictures(folder, count), AllViews(), threads, batch_size)
