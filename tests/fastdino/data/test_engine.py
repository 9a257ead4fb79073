from __future__ import annotations

from dataclasses import replace
from io import BytesIO
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image
from skimage import data

from fastdino import native
from fastdino.data import engine
from fastdino.data.order import EpochOrder
from fastdino.data.plan import CropPlan, CropRecipe, crop_plan
from fastdino.reference.augment import apply_plan

PHOTOGRAPHS = [data.chelsea(), data.coffee(), data.astronaut()]
PLAIN: dict[str, Any] = {"jitter": (), "grayscale": False, "blur_radius": 0.0, "solarize": False}


def _assert_equal(pixels: npt.NDArray[np.uint8], plan: list[CropPlan]) -> None:
    """Not one byte differs: the engine has Pillow's roundings."""
    theirs = apply_plan(Image.fromarray(pixels), plan)
    for ours, their in zip(engine.cut(pixels, plan), theirs, strict=True):
        np.testing.assert_array_equal(ours, their.transpose(2, 0, 1))


@pytest.mark.parametrize("size", [1, 7, 8, 16, 33, 48, 100])
def test_any_size_of_crop(size: int) -> None:
    pixels = PHOTOGRAPHS[0]
    for index in range(5):
        plan = crop_plan(2, 0, index, pixels.shape[1], pixels.shape[0], global_size=size, local_size=size)
        _assert_equal(pixels, plan)
        _assert_equal(pixels, [replace(crop, blur_radius=1.9) for crop in plan])


@pytest.mark.parametrize("size", [(1, 1), (1, 400), (400, 1), (3, 2), (17, 31)])
def test_any_size_of_picture(size: tuple[int, int]) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    _assert_equal(pixels, crop_plan(0, 0, 0, size[1], size[0]))


@pytest.mark.parametrize("radius", [0.1, 0.5, 1.0, 1.41, 1.42, 2.0, 5.0, 20.0])
def test_blur(radius: float) -> None:
    pixels = PHOTOGRAPHS[1]
    (crop,) = crop_plan(0, 0, 0, pixels.shape[1], pixels.shape[0])[:1]
    _assert_equal(pixels, [replace(crop, **(PLAIN | {"blur_radius": radius}))])


@pytest.mark.parametrize("operation", ["brightness", "contrast", "saturation"])
@pytest.mark.parametrize("factor", [0.0, 0.61, 1.0, 1.39, 3.0])
def test_jitter(operation: str, factor: float) -> None:
    pixels = PHOTOGRAPHS[2]
    (crop,) = crop_plan(0, 0, 0, pixels.shape[1], pixels.shape[0])[:1]
    _assert_equal(pixels, [replace(crop, **(PLAIN | {"jitter": ((operation, factor),)}))])


@pytest.mark.parametrize("factor", [0.0, 0.1, -0.09, 0.5])
def test_hue_over_all_colours(factor: float) -> None:
    blue, green = np.meshgrid(np.arange(256, dtype=np.uint8), np.arange(256, dtype=np.uint8))
    whole = CropPlan(0, 0, 256, 256, 256, False, (("hue", factor),), False, 0.0, False)
    for red in range(256):
        _assert_equal(np.stack([np.full_like(blue, red), green, blue], axis=2), [whole])


@pytest.mark.parametrize("shrinking_first", [False, True])
def test_both_orders_of_the_passes(shrinking_first: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "SHRINKING_FIRST", shrinking_first)
    picture = Image.fromarray(PHOTOGRAPHS[1]).crop((0, 0, 300, 390))
    whole = CropPlan(0, 0, 390, 300, 224, False, (), False, 0.0, False)
    # Alone, a pass in one direction is the same in every version of Pillow.
    halfway = (300, 224) if shrinking_first else (224, 390)
    expected = picture.resize(halfway, Image.Resampling.BICUBIC).resize((224, 224), Image.Resampling.BICUBIC)
    (crop,) = engine.cut(np.asarray(picture), [whole])
    np.testing.assert_array_equal(crop.transpose(1, 2, 0), np.asarray(expected))


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"subsampling": 0}, {"subsampling": 1}])
@pytest.mark.parametrize("size", [(1, 1), (33, 50), (451, 300)])
def test_decodes_as_pillow_does(mode: str, options: dict[str, Any], size: tuple[int, int]) -> None:
    stream = BytesIO()
    Image.fromarray(data.chelsea()).convert(mode).resize(size).save(stream, "JPEG", **options)
    expected = Image.open(BytesIO(stream.getvalue())).convert("RGB")
    np.testing.assert_array_equal(engine.decode(stream.getvalue()), np.asarray(expected))


@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("subsampling", [0, 2])
def test_decodes_ycck_as_pillow_does(progressive: bool, subsampling: int) -> None:
    stream = BytesIO()
    Image.fromarray(data.chelsea()).convert("CMYK").save(
        stream, "JPEG", progressive=progressive, subsampling=subsampling
    )
    cmyk = stream.getvalue()
    # Pillow writes CMYK only; the same samples are YCCK where the Adobe segment names colour transform 2.
    at = cmyk.index(b"Adobe") + 11
    assert cmyk[at] == 0
    ycck = cmyk[:at] + b"\2" + cmyk[at + 1 :]
    expected = np.asarray(Image.open(BytesIO(ycck)).convert("RGB"))
    assert not np.array_equal(expected, engine.decode(cmyk))
    np.testing.assert_array_equal(engine.decode(ycck), expected)


def test_a_jpeg_gets_nothing_from_the_one_before() -> None:
    stream = BytesIO()
    Image.fromarray(data.chelsea()).save(stream, "JPEG")
    good = stream.getvalue()
    tables = good.index(b"\xff\xdb")
    length = int.from_bytes(good[tables + 2 : tables + 4], "big")
    engine.decode(good)
    with pytest.raises(ValueError, match=r"[Qq]uantization"):
        engine.decode(good[:tables] + good[good.index(b"\xff\xc0", tables + length) :])


@pytest.mark.parametrize("part", range(10))
def test_truncated_jpegs_are_refused(part: int) -> None:
    stream = BytesIO()
    Image.fromarray(data.chelsea()).save(stream, "JPEG")
    with pytest.raises(ValueError):
        engine.decode(stream.getvalue()[: len(stream.getvalue()) * part // 10])


@pytest.mark.parametrize("recipe", [CropRecipe(), CropRecipe((0.9, 1.0), (0.01, 0.02), 3, 64, 32, 0.0, 0.9, 0.0, 0.5)])
def test_draws_the_same_plans(recipe: CropRecipe) -> None:
    draw = np.random.default_rng(0)
    names = ("brightness", "contrast", "saturation", "hue")
    for seed in (0, 7, -3, 2**63):
        for index in draw.integers(0, 2**62, 300).tolist():
            width, height = draw.integers(1, 5000, 2).tolist()
            drawn = native.extension().draw_crops(
                engine.native_recipe(recipe), engine.word(seed), 5, index, width, height
            )
            ours = []
            for *box, jitter, grayscale, radius, solarize in drawn:
                named = tuple((names[i], factor) for i, factor in jitter)
                fields: list[Any] = [*box, named, grayscale, radius, solarize]
                ours.append(CropPlan(*fields))
            assert ours == crop_plan(seed, 5, index, width, height, recipe)


@pytest.mark.parametrize("length", [1, 2, 3, 1000, 10**9])
def test_the_same_order(length: int) -> None:
    positions = np.arange(max(0, length - 500), length)
    ours = native.extension().epoch_order(3, 4, length, positions)
    np.testing.assert_array_equal(ours, EpochOrder(3, 4, length)[positions])


def test_a_plan_that_does_not_fit_is_refused() -> None:
    plan = crop_plan(0, 0, 0, 500, 500)
    with pytest.raises(ValueError, match="does not lie within"):
        engine.cut(np.zeros((10, 10, 3), dtype=np.uint8), plan)
