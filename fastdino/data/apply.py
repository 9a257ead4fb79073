"""A plan carried out on a picture's bytes."""

from __future__ import annotations

import torch

from fastdino.data.plan import CropPlan
from fastdino.data.reading import read_image
from fastdino.reference import augment

IMPLEMENTATIONS = ("reference",)


def apply_plan(image_bytes: bytes, plan: list[CropPlan], implementation: str = "reference") -> list[torch.Tensor]:
    """Decode a picture and cut the planned crops out of it: one (3, size, size) uint8 tensor a crop.

    "reference" is Pillow and torchvision, step by step. Raises `UnreadableImage` for bytes that are no
    picture, and ValueError for an implementation that does not exist.
    """
    if implementation not in IMPLEMENTATIONS:
        raise ValueError(f"implementation is {implementation!r}; there is {', '.join(IMPLEMENTATIONS)}")
    crops = augment.apply_plan(read_image(image_bytes), plan)
    return [torch.tensor(crop).permute(2, 0, 1).contiguous() for crop in crops]
