"""Where pictures come from, and the crops that training sees of them."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fastdino.data.apply import apply_plan
    from fastdino.data.loader import MultiCropLoader
    from fastdino.data.plan import CropPlan, CropRecipe, crop_plan
    from fastdino.data.sources import FolderSource, IterableSource, Source, TarSource, open_source

_HOME = {
    "MultiCropLoader": "loader",
    "crop_plan": "plan",
    "apply_plan": "apply",
    "CropPlan": "plan",
    "CropRecipe": "plan",
    "FolderSource": "sources",
    "IterableSource": "sources",
    "TarSource": "sources",
    "Source": "sources",
    "open_source": "sources",
}

__all__ = [
    "CropPlan",
    "CropRecipe",
    "FolderSource",
    "IterableSource",
    "MultiCropLoader",
    "Source",
    "TarSource",
    "apply_plan",
    "crop_plan",
    "open_source",
]


def __getattr__(name: str) -> Any:
    # Importing on first use keeps torch out of everything that only lists or plans pictures.
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
