"""What the augmentation does to one picture, drawn before any pixel is touched.

DINO's augmentation (Caron et al. 2021, section 3.1 and appendix E; its numbers are those of the original
code): two global and several local random resized crops, each followed by a flip, colour jitter, grayscale,
blur and, for the second global crop alone, solarisation. `crop_plan` draws all of it as plain numbers; the
reference and the native engine carry out the same plan.

Every draw is a pure function of (seed, epoch, index, crop). This text is the specification.

    words     Philox4x64-10 (Salmon et al. 2011) with key (seed, epoch) and counter
              (1 + 16 * crop + block, index, 0, 0), all modulo 2**64. The leading 1 is numpy's, which counts
              up before its first block.
    u[k]      (word k >> 11) * 2**-53, a double in [0, 1); k = 4 * block + the word's place in its block
    u[0]      flip if < 0.5                        u[4]   brightness factor
    u[1]      jitter if < 0.8                      u[5]   contrast factor
    u[2]      order of the jitter: floor(24 u)     u[6]   saturation factor
    u[3]      grayscale if < 0.2                   u[7]   hue shift
    u[8]      blur if < the crop's probability     u[9]   blur radius
    u[10]     solarise if < the crop's probability u[11]  unused
    u[12 + 4 a ...]  attempt a = 0 .. 9 at the box: area, aspect ratio, top, left

A value between low and high is low + u * (high - low). The order of the jitter counts the lexicographic
permutations of (brightness, contrast, saturation, hue); an operation of strength 0 is left out. The box
follows torchvision's `RandomResizedCrop.get_params`: target area = width * height * scale, aspect ratio = exp
of a value between log(3/4) and log(4/3), sides = round half to even of sqrt(area * ratio) and sqrt(area /
ratio); the first attempt whose sides are at least 1 and fit is taken, with top = floor(u * (height - h + 1))
and left alike; after ten failures the largest central box within the ratio limits. All in doubles without
fused multiply-add, so that another implementation gets the same integers.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from itertools import permutations
from typing import Any

import numpy as np

from fastdino.errors import UserError

ASPECT_RATIO = (3 / 4, 4 / 3)
FLIP_PROBABILITY = 0.5
JITTER_PROBABILITY = 0.8
GRAYSCALE_PROBABILITY = 0.2
# First global crop, second global crop, every local crop.
BLUR_PROBABILITY = (1.0, 0.1, 0.5)
SOLARIZE_PROBABILITY = (0.0, 0.2, 0.0)
BLUR_RADIUS = (0.1, 2.0)
BOX_ATTEMPTS = 10

_WORD = (1 << 64) - 1
_BLOCKS_PER_CROP = 16
_FIRST_BOX_DRAW = 12
_DRAWS = _FIRST_BOX_DRAW + 4 * BOX_ATTEMPTS
_ORDERS = tuple(permutations(range(4)))
_LOG_RATIO = (math.log(ASPECT_RATIO[0]), math.log(ASPECT_RATIO[1]))


@dataclass(frozen=True)
class CropRecipe:
    """What the crops are drawn from.

    Scales are shares of the picture's area, sizes are pixels, the four jitter strengths are those of
    torchvision's ColorJitter (0 leaves that operation out). Raises UserError for a value out of range.
    """

    global_crops_scale: tuple[float, float] = (0.4, 1.0)
    local_crops_scale: tuple[float, float] = (0.05, 0.4)
    local_crops_number: int = 8
    global_size: int = 224
    local_size: int = 96
    brightness: float = 0.4
    contrast: float = 0.4
    saturation: float = 0.2
    hue: float = 0.1

    def __post_init__(self) -> None:
        for name in ("global_crops_scale", "local_crops_scale"):
            low, high = getattr(self, name)
            if not 0 < low <= high <= 1:
                raise UserError(f"{name} is {low} {high}: give two shares of the area with 0 < low <= high <= 1.")
        for name in ("global_size", "local_size"):
            if getattr(self, name) < 1:
                raise UserError(f"{name} is {getattr(self, name)}: give a crop size of at least 1 pixel.")
        for name in (
            "local_crops_number",
            "brightness",
            "contrast",
            "saturation",
            "hue",
        ):
            if not getattr(self, name) >= 0:
                raise UserError(f"{name} is {getattr(self, name)}: give 0 or more.")
        if self.hue > 0.5:
            raise UserError(f"hue is {self.hue}: give at most 0.5, half of the colour circle.")

    def sizes(self) -> list[int]:
        """The side of each crop in pixels, the two global ones first."""
        return [self.global_size] * 2 + [self.local_size] * self.local_crops_number

    def jitter_ranges(self) -> tuple[tuple[str, float, float], ...]:
        """(operation, lowest, highest factor) of the four; hue is a shift, in turns of the colour circle."""
        multiplied = (
            ("brightness", self.brightness),
            ("contrast", self.contrast),
            ("saturation", self.saturation),
        )
        factors = tuple((name, max(0.0, 1 - strength), 1 + strength) for name, strength in multiplied)
        return (*factors, ("hue", -self.hue, self.hue))


@dataclass(frozen=True, slots=True)
class CropPlan:
    """One crop: the box in the picture's pixels, the side it is resized to, then what happens in field
    order.

    `jitter` lists (operation, factor) in the order in which they are carried out, empty for none;
    `blur_radius` is Pillow's, in pixels of the crop, 0 for none.
    """

    top: int
    left: int
    height: int
    width: int
    size: int
    flip: bool
    jitter: tuple[tuple[str, float], ...]
    grayscale: bool
    blur_radius: float
    solarize: bool


_DINO = CropRecipe()


def crop_plan(
    seed: int,
    epoch: int,
    index: int,
    width: int,
    height: int,
    recipe: CropRecipe = _DINO,
    **fields: Any,
) -> list[CropPlan]:
    """Draw the crops of one picture: two global ones, then `local_crops_number` local ones.

    `width` and `height` are the decoded picture's, in pixels. Fields of CropRecipe may be given by name and
    override `recipe`. Raises UserError for a recipe out of range.
    """
    if fields:
        recipe = replace(recipe, **fields)
    crops = 2 + recipe.local_crops_number
    ranges = recipe.jitter_ranges()
    return [
        _one_crop(crop, draws, width, height, recipe, ranges)
        for crop, draws in enumerate(_uniform_draws(seed, epoch, index, crops))
    ]


def _uniform_draws(seed: int, epoch: int, index: int, crops: int) -> list[list[float]]:
    key = np.array([seed & _WORD, epoch & _WORD], dtype=np.uint64)
    counter = np.array([0, index & _WORD, 0, 0], dtype=np.uint64)
    words = np.random.Philox(key=key, counter=counter).random_raw(crops * _BLOCKS_PER_CROP * 4)
    uniform = (words >> np.uint64(11)) * 2.0**-53
    return uniform.reshape(crops, -1)[:, :_DRAWS].tolist()


def _one_crop(
    crop: int,
    u: list[float],
    width: int,
    height: int,
    recipe: CropRecipe,
    ranges: tuple[tuple[str, float, float], ...],
) -> CropPlan:
    is_global = crop < 2
    kind = min(crop, 2)
    scale = recipe.global_crops_scale if is_global else recipe.local_crops_scale
    top, left, box_height, box_width = _box(u, width, height, scale)
    return CropPlan(
        top=top,
        left=left,
        height=box_height,
        width=box_width,
        size=recipe.global_size if is_global else recipe.local_size,
        flip=u[0] < FLIP_PROBABILITY,
        jitter=_jitter(u, ranges) if u[1] < JITTER_PROBABILITY else (),
        grayscale=u[3] < GRAYSCALE_PROBABILITY,
        blur_radius=_between(u[9], *BLUR_RADIUS) if u[8] < BLUR_PROBABILITY[kind] else 0.0,
        solarize=u[10] < SOLARIZE_PROBABILITY[kind],
    )


def _box(u: list[float], width: int, height: int, scale: tuple[float, float]) -> tuple[int, int, int, int]:
    """(top, left, height, width) of the region that is cut out."""
    area = width * height
    for attempt in range(BOX_ATTEMPTS):
        k = _FIRST_BOX_DRAW + 4 * attempt
        target = area * _between(u[k], *scale)
        ratio = math.exp(_between(u[k + 1], *_LOG_RATIO))
        w = round(math.sqrt(target * ratio))
        h = round(math.sqrt(target / ratio))
        if 0 < w <= width and 0 < h <= height:
            return (
                int(u[k + 2] * (height - h + 1)),
                int(u[k + 3] * (width - w + 1)),
                h,
                w,
            )
    w, h = width, height
    if width / height < ASPECT_RATIO[0]:
        h = round(width / ASPECT_RATIO[0])
    elif width / height > ASPECT_RATIO[1]:
        w = round(height * ASPECT_RATIO[1])
    return (height - h) // 2, (width - w) // 2, h, w


def _jitter(u: list[float], ranges: tuple[tuple[str, float, float], ...]) -> tuple[tuple[str, float], ...]:
    drawn = []
    for operation in _ORDERS[int(u[2] * len(_ORDERS))]:
        name, low, high = ranges[operation]
        if low < high:
            drawn.append((name, _between(u[4 + operation], low, high)))
    return tuple(drawn)


def _between(u: float, low: float, high: float) -> float:
    return low + u * (high - low)
