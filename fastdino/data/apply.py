"""A plan carried out on a picture's bytes."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

from fastdino import native
from fastdino.data import engine
from fastdino.data.plan import CropPlan
from fastdino.data.reading import read_image
from fastdino.reference import augment

IMPLEMENTATIONS = ("auto", "native", "reference")


def apply_plan(image_bytes: bytes, plan: list[CropPlan], implementation: str = "auto") -> list[torch.Tensor]:
    """Decode a picture and cut the planned crops out of it: one (3, size, size) uint8 tensor a crop.

    "reference" is Pillow and torchvision, step by step; "native" the C++ engine, which gives the same numbers;
    "auto" is "native" where the extension is built. Raises `UnreadableImage` for bytes that are no picture,
    ValueError for an implementation that does not exist, and RuntimeError for "native" without the extension.
    """
    if implementation not in IMPLEMENTATIONS:
        raise ValueError(f"implementation is {implementation!r}; there are {', '.join(IMPLEMENTATIONS)}")
    if implementation == "reference" or (implementation == "auto" and not native.available()):
        crops = augment.apply_plan(read_image(image_bytes), plan)
        return [torch.tensor(crop).permute(2, 0, 1).contiguous() for crop in crops]
    return [torch.from_numpy(crop) for crop in _cut(image_bytes, plan)]


def _cut(image_bytes: bytes, plan: list[CropPlan]) -> list[npt.NDArray[np.uint8]]:
    try:
        return engine.cut(image_bytes, plan)
    except ValueError:
        return engine.cut(np.asarray(read_image(image_bytes)), plan)
