"""The engine against the reference, from a photograph's bytes to its crops, on hundreds of drawn plans."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from io import BytesIO
from itertools import permutations
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image
from skimage import data

from fastdino import native
from fastdino.data import engine
from fastdino.data.plan import CropPlan, crop_plan
from fastdino.data.reading import read_image
from fastdino.reference.augment import apply_plan

pytestmark = pytest.mark.skipif(not native.available(), reason=native.why_not() or "never")


class Photograph(NamedTuple):
    """One of scikit-image's, whole, and how it is stored."""

    take: Callable[[], npt.NDArray[np.uint8]]
    options: dict[str, Any]
    plans: int
    """Fewer for the larger ones, whose plans take longer."""


PHOTOGRAPHS = {
    "chelsea": Photograph(data.chelsea, {"quality": 90}, 90),
    "coffee": Photograph(data.coffee, {"quality": 75, "progressive": True}, 90),
    "astronaut": Photograph(data.astronaut, {"quality": 95, "subsampling": 0}, 90),
    "rocket": Photograph(data.rocket, {"quality": 80, "subsampling": 1}, 90),
    "tissue": Photograph(data.immunohistochemistry, {"quality": 60, "restart_marker_rows": 1}, 80),
    "galaxies": Photograph(data.hubble_deep_field, {"quality": 85}, 40),
    "retina": Photograph(data.retina, {"quality": 85, "progressive": True}, 25),
}


@cache
def _jpeg(name: str) -> bytes:
    stream = BytesIO()
    Image.fromarray(PHOTOGRAPHS[name].take()).save(stream, "JPEG", **PHOTOGRAPHS[name].options)
    return stream.getvalue()


def _plans(name: str) -> list[list[CropPlan]]:
    width, height = Image.open(BytesIO(_jpeg(name))).size
    seed = list(PHOTOGRAPHS).index(name)
    return [crop_plan(seed, 0, index, width, height) for index in range(PHOTOGRAPHS[name].plans)]


@pytest.mark.parametrize("name", PHOTOGRAPHS)
def test_whole_chains_are_equal_to_the_last_bit(name: str) -> None:
    image = read_image(_jpeg(name))
    for number, plan in enumerate(_plans(name)):
        for crop, ours, theirs in zip(plan, engine.cut(_jpeg(name), plan), apply_plan(image, plan), strict=True):
            assert np.array_equal(ours, theirs.transpose(2, 0, 1)), f"plan {number}: {crop}"


def test_the_plans_are_many_and_leave_nothing_out() -> None:
    plans = [plan for name in PHOTOGRAPHS for plan in _plans(name)]
    assert len(plans) >= 500
    crops = [crop for plan in plans for crop in plan]
    whether: list[Callable[[CropPlan], bool]] = [
        lambda crop: crop.flip,
        lambda crop: crop.grayscale,
        lambda crop: crop.solarize,
        lambda crop: crop.blur_radius > 0,
        lambda crop: bool(crop.jitter),
        lambda crop: crop.height < crop.size and crop.width < crop.size,
        lambda crop: crop.height > crop.size > crop.width,
        lambda crop: crop.width > crop.size > crop.height,
        # Where Pillow since 13 resizes vertically first.
        lambda crop: crop.height > crop.size and crop.height - crop.size > 2 * (crop.width - crop.size),
    ]
    for happens in whether:
        assert {happens(crop) for crop in crops} == {False, True}
    orders = {tuple(name for name, _ in crop.jitter) for crop in crops if crop.jitter}
    assert orders == set(permutations(("brightness", "contrast", "saturation", "hue")))
