"""The crops' flags as the recipe that crops are drawn from."""

from __future__ import annotations

from fastdino.config import CropsConfig
from fastdino.data.plan import CropRecipe


def recipe_of(config: CropsConfig) -> CropRecipe:
    """Raises UserError for a value out of range."""
    return CropRecipe(
        config.global_crops_scale,
        config.local_crops_scale,
        config.local_crops_number,
        config.global_size,
        config.local_size,
        *config.color_jitter,
    )
