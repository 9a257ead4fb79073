"""fastdino: DINO pre-training on your own pictures. Names are imported when first used, so that `--help` is instant."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fastdino.config import TrainConfig as TrainConfig
    from fastdino.ema import update_teacher as update_teacher
    from fastdino.loss import DINOLoss as DINOLoss
    from fastdino.models.head import DINOHead as DINOHead
    from fastdino.models.multicrop import MultiCropWrapper as MultiCropWrapper
    from fastdino.models.vision_transformer import VisionTransformer as VisionTransformer
    from fastdino.models.vision_transformer import vit_base as vit_base
    from fastdino.models.vision_transformer import vit_large as vit_large
    from fastdino.models.vision_transformer import vit_small as vit_small
    from fastdino.models.vision_transformer import vit_tiny as vit_tiny
    from fastdino.train.run import TrainResult as TrainResult
    from fastdino.train.run import train as train

__version__ = "0.1.0"

_HOMES = {
    "TrainConfig": "fastdino.config",
    "update_teacher": "fastdino.ema",
    "DINOLoss": "fastdino.loss",
    "DINOHead": "fastdino.models.head",
    "MultiCropWrapper": "fastdino.models.multicrop",
    "VisionTransformer": "fastdino.models.vision_transformer",
    "vit_tiny": "fastdino.models.vision_transformer",
    "vit_small": "fastdino.models.vision_transformer",
    "vit_base": "fastdino.models.vision_transformer",
    "vit_large": "fastdino.models.vision_transformer",
    "TrainResult": "fastdino.train.run",
}

__all__ = ["__version__", "train", *_HOMES]


def __getattr__(name: str) -> Any:
    if name == "train":
        return importlib.import_module("fastdino.train")
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
