from __future__ import annotations

from io import BytesIO
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from skimage import data

from fastdino import native
from fastdino.data import engine
from fastdino.data.reading import UnreadableImage, read_image
from fastdino.evaluate import cuts
from fastdino.evaluate.cuts import centre_crop, channels_first, cut_out

PHOTOGRAPH = Image.fromarray(data.coffee())


def encoded(picture: Image.Image, kind: str = "JPEG", **options: Any) -> bytes:
    stream = BytesIO()
    picture.save(stream, kind, **options)
    return stream.getvalue()


def by_pillow(jpeg: bytes, size: int) -> npt.NDArray[np.uint8]:
    return channels_first(centre_crop(read_image(jpeg), size))


@pytest.fixture
def without_pillow(monkeypatch: pytest.MonkeyPatch) -> None:
    if not native.available():
        pytest.skip(native.why_not())

    def read_nothing(_: bytes) -> Image.Image:
        raise AssertionError("Pillow decoded a picture")

    monkeypatch.setattr(cuts, "read_image", read_nothing)


# Shrunk, enlarged, as they are; so tall that Pillow takes the vertical pass first; sides that round either way.
SHAPES = [(600, 400), (400, 600), (256, 256), (150, 601), (601, 150), (20, 31), (1, 9), (257, 258), (1200, 799)]


@pytest.mark.usefixtures("without_pillow")
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("size", [224, 96, 33])
def test_the_engines_middle_is_pillows(mode: str, shape: tuple[int, int], size: int) -> None:
    jpeg = encoded(PHOTOGRAPH.convert(mode).resize(shape))
    np.testing.assert_array_equal(cut_out(jpeg, centre_crop, size), by_pillow(jpeg, size))


@pytest.mark.usefixtures("without_pillow")
@settings(deadline=None)
@given(width=st.integers(1, 200), height=st.integers(1, 200), size=st.integers(1, 70), seed=st.integers(0, 99))
def test_any_shape_and_size(width: int, height: int, size: int, seed: int) -> None:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    jpeg = encoded(Image.fromarray(pixels), quality=95)
    np.testing.assert_array_equal(cut_out(jpeg, centre_crop, size), by_pillow(jpeg, size))


@pytest.mark.skipif(not native.available(), reason=native.why_not())
@pytest.mark.parametrize("shrinking_first", [False, True])
def test_both_orders_of_the_passes(shrinking_first: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "SHRINKING_FIRST", shrinking_first)
    jpeg = encoded(PHOTOGRAPH.resize((150, 601)))
    # Alone, a pass in one direction is the same in every version of Pillow.
    halfway = (150, 200) if shrinking_first else (50, 601)
    shrunk = read_image(jpeg).resize(halfway, Image.Resampling.BICUBIC).resize((50, 200), Image.Resampling.BICUBIC)
    expected = np.asarray(shrunk)[80:120, 5:45].transpose(2, 0, 1)
    np.testing.assert_array_equal(engine.middle_square(jpeg, size=40, shorter=50), expected)


def test_what_is_no_jpeg_is_left_to_pillow() -> None:
    png = encoded(PHOTOGRAPH.convert("RGBA"), "PNG")
    np.testing.assert_array_equal(cut_out(png, centre_crop, 64), by_pillow(png, 64))


@pytest.mark.skipif(not native.available(), reason=native.why_not())
def test_so_is_a_picture_that_would_be_too_long() -> None:
    jpeg = encoded(PHOTOGRAPH.resize((1, 400)))
    with pytest.raises(ValueError, match="too large"):
        engine.middle_square(jpeg, size=224, shorter=256)
    np.testing.assert_array_equal(cut_out(jpeg, centre_crop, 224), by_pillow(jpeg, 224))


def test_and_every_other_cut() -> None:
    jpeg = encoded(PHOTOGRAPH)
    np.testing.assert_array_equal(cut_out(jpeg, cuts.square, 48), channels_first(cuts.square(read_image(jpeg), 48)))


def test_damage_is_told_in_pillows_words() -> None:
    truncated = encoded(PHOTOGRAPH)[:-900]
    with pytest.raises(UnreadableImage) as told:
        read_image(truncated)
    with pytest.raises(UnreadableImage) as now:
        cut_out(truncated, centre_crop, 64)
    assert str(now.value) == str(told.value)


def test_the_same_without_the_extension(monkeypatch: pytest.MonkeyPatch) -> None:
    jpeg = encoded(PHOTOGRAPH)
    expected = cut_out(jpeg, centre_crop, 64)
    monkeypatch.setattr(native, "available", lambda: False)
    monkeypatch.setattr(engine, "middle_square", None)
    np.testing.assert_array_equal(cut_out(jpeg, centre_crop, 64), expected)


@pytest.mark.skipif(not native.available(), reason=native.why_not())
@pytest.mark.parametrize("square", [(8, 8, 1, 0, 8), (8, 8, 0, -1, 4), (8, 8, 0, 0, 0), (1 << 15, 8, 0, 0, 8)])
def test_a_square_outside_the_resized_picture_is_refused(square: tuple[int, ...]) -> None:
    jpeg = encoded(PHOTOGRAPH.resize((9, 9)))
    with pytest.raises(ValueError, match="does not lie within"):
        native.extension().resize_jpeg(jpeg, *square, True)
