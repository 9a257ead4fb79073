from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image, ImageFilter, ImageOps
from skimage import data
from torchvision import transforms

from fastdino.data.plan import CropPlan, crop_plan
from fastdino.reference.augment import apply_plan

OPERATIONS = ("brightness", "contrast", "saturation", "hue")


def _photograph(name: str) -> Image.Image:
    return Image.fromarray(getattr(data, name)()).convert("RGB")


def _original(image: Image.Image, crop: CropPlan, patch: pytest.MonkeyPatch) -> npt.NDArray[Any]:
    """The original's chain of torchvision transforms, its random numbers replaced by the plan's."""
    box = (crop.top, crop.left, crop.height, crop.width)
    patch.setattr(transforms.RandomResizedCrop, "get_params", staticmethod(lambda *_: box))
    factors = dict(crop.jitter)
    order = [OPERATIONS.index(name) for name, _ in crop.jitter]
    drawn = (order, *(factors.get(name) for name in OPERATIONS))
    patch.setattr(transforms.ColorJitter, "get_params", staticmethod(lambda *_: drawn))
    chain = transforms.Compose(
        [
            transforms.RandomResizedCrop(crop.size, interpolation=transforms.InterpolationMode.BICUBIC),
            transforms.RandomHorizontalFlip(p=float(crop.flip)),
            transforms.RandomApply([transforms.ColorJitter(0.4, 0.4, 0.2, 0.1)], p=1.0),
            transforms.RandomGrayscale(p=float(crop.grayscale)),
        ]
    )
    result = chain(image)
    if crop.blur_radius:
        result = result.filter(ImageFilter.GaussianBlur(radius=crop.blur_radius))
    if crop.solarize:
        result = ImageOps.solarize(result)
    return np.asarray(result)


@pytest.mark.parametrize("name", ["astronaut", "coffee", "chelsea"])
def test_equals_the_originals_transforms(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    image = _photograph(name)
    for index in range(4):
        plan = crop_plan(0, 0, index, *image.size)
        # Rare draws, so that the few pictures here meet each operation.
        plan[1] = replace(plan[1], solarize=True, grayscale=index % 2 == 0)
        for crop, ours in zip(plan, apply_plan(image, plan), strict=True):
            assert ours.shape == (crop.size, crop.size, 3) and ours.dtype == np.uint8
            np.testing.assert_array_equal(ours, _original(image, crop, monkeypatch))


PLAIN = CropPlan(10, 20, 64, 64, 64, False, (), False, 0.0, False)


def test_a_plan_without_operations_is_the_cut_itself() -> None:
    image = _photograph("astronaut")
    (cut,) = apply_plan(image, [PLAIN])
    np.testing.assert_array_equal(cut, np.asarray(image)[10:74, 20:84])


@pytest.mark.parametrize(
    "change",
    [{"flip": True}, {"grayscale": True}, {"blur_radius": 1.0}, {"solarize": True}]
    + [{"jitter": ((name, 0.1 if name == "hue" else 1.3),)} for name in OPERATIONS],
)
def test_every_operation_changes_the_crop(change: dict[str, Any]) -> None:
    image = _photograph("astronaut")
    plain, changed = apply_plan(image, [PLAIN, replace(PLAIN, **change)])
    assert (plain != changed).any()


def test_order_of_the_jitter_is_the_plans() -> None:
    image = _photograph("coffee")
    jitter = (("brightness", 1.4), ("contrast", 0.6))
    one, other = apply_plan(image, [replace(PLAIN, jitter=jitter), replace(PLAIN, jitter=jitter[::-1])])
    assert (one != other).any()


@pytest.mark.parametrize("size", [(1, 1), (1, 4000), (4000, 1)])
def test_extreme_pictures(size: tuple[int, int]) -> None:
    image = Image.new("RGB", size, (10, 200, 30))
    for crop in apply_plan(image, crop_plan(0, 0, 0, *size)):
        assert crop.dtype == np.uint8
