"""The recipe that every peer carries out: two global and eight local views of one picture."""

from __future__ import annotations

from typing import NamedTuple

from fastdino.data.plan import BLUR_PROBABILITY, SOLARIZE_PROBABILITY, CropRecipe

RECIPE = CropRecipe()


class View(NamedTuple):
    """How one view is cut and how likely it is blurred and solarised."""

    size: int
    scale: tuple[float, float]
    blur: float
    solarize: float


VIEWS = (
    View(RECIPE.global_size, RECIPE.global_crops_scale, BLUR_PROBABILITY[0], SOLARIZE_PROBABILITY[0]),
    View(RECIPE.global_size, RECIPE.global_crops_scale, BLUR_PROBABILITY[1], SOLARIZE_PROBABILITY[1]),
    *[View(RECIPE.local_size, RECIPE.local_crops_scale, BLUR_PROBABILITY[2], SOLARIZE_PROBABILITY[2])]
    * RECIPE.local_crops_number,
)
