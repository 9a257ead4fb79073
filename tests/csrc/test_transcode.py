from __future__ import annotations

from io import BytesIO

import numpy as np
import pytest
from PIL import Image
from skimage import data

from fastdino import native
from tests.csrc import jpegs

pytestmark = pytest.mark.skipif(not native.available(), reason=native.why_not() or "never")

PHOTO = data.astronaut()[:203, :301]  # no multiple of a block, whatever the subsampling
SUBSAMPLINGS = {"4:4:4": 0, "4:2:2": 1, "4:2:0": 2}


def encoded(image: Image.Image, *, progressive: bool = True, **settings: object) -> bytes:
    stream = BytesIO()
    image.save(stream, "JPEG", quality=85, progressive=progressive, **settings)
    return stream.getvalue()


def opened(jpeg: bytes) -> Image.Image:
    image = Image.open(BytesIO(jpeg))
    image.load()
    return image


def pixels(jpeg: bytes) -> np.ndarray:
    return np.asarray(opened(jpeg))


def with_adobe_transform(jpeg: bytes, transform: int) -> bytes:
    """`jpeg` with the colour transform that its Adobe segment names replaced."""
    at = jpeg.index(b"Adobe") + 11
    return jpeg[:at] + bytes([transform]) + jpeg[at + 1 :]


@pytest.mark.parametrize("size", [(301, 203), (1, 1), (16, 16), (7, 300)])
@pytest.mark.parametrize("subsampling", SUBSAMPLINGS)
@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
def test_every_pixel_stays(mode: str, subsampling: str, size: tuple[int, int]) -> None:
    image = Image.fromarray(PHOTO).resize(size).convert(mode)
    before = encoded(image, subsampling=SUBSAMPLINGS[subsampling])
    after = native.to_baseline(before)
    assert native.jpeg_header(before) == native.jpeg_header(after)._replace(progressive=True)
    assert opened(after).mode == mode
    np.testing.assert_array_equal(pixels(after), pixels(before))


@pytest.mark.parametrize("transform", [0, 2])
def test_cmyk_and_ycck_keep_their_colours(transform: int) -> None:
    before = with_adobe_transform(encoded(Image.fromarray(PHOTO).convert("CMYK")), transform)
    np.testing.assert_array_equal(pixels(native.to_baseline(before)), pixels(before))


def test_rgb_without_a_colour_transform_keeps_its_colours() -> None:
    before = encoded(Image.fromarray(PHOTO), keep_rgb=True)
    assert opened(before).info["adobe_transform"] == 0
    np.testing.assert_array_equal(pixels(native.to_baseline(before)), pixels(before))


def test_quantisation_tables_of_16_bits_stay() -> None:
    table = [300] * 64
    before = encoded(Image.fromarray(PHOTO), qtables=[table, table])
    np.testing.assert_array_equal(pixels(native.to_baseline(before)), pixels(before))


def test_a_baseline_file_stays_what_it_shows_and_grows_no_larger() -> None:
    before = encoded(Image.fromarray(PHOTO), progressive=False)
    after = native.to_baseline(before)
    assert len(after) < len(before)
    np.testing.assert_array_equal(pixels(after), pixels(before))


def test_metadata_stay_once() -> None:
    exif = b"Exif\0\0" + jpegs.orientation_block(6, ">")
    profile = bytes(range(256)) * 400  # more than one segment holds
    before = encoded(Image.fromarray(PHOTO), exif=exif, icc_profile=profile, comment=b"a comment", dpi=(300, 300))
    info = opened(native.to_baseline(before)).info
    # Pillow writes both and reads them back; what is left is what it derives from the kind of file.
    same = set(opened(before).info) - {"progressive", "progression"}
    assert {"exif", "icc_profile", "comment", "dpi"} <= same
    assert {name: info[name] for name in same} == {name: opened(before).info[name] for name in same}
    assert native.jpeg_header(native.to_baseline(before)).orientation == 6
    assert native.to_baseline(before).count(b"JFIF\0") == 1


def test_the_same_bytes_twice() -> None:
    before = encoded(Image.fromarray(PHOTO))
    assert native.to_baseline(before) == native.to_baseline(before)
    assert native.to_baseline(native.to_baseline(before)) == native.to_baseline(before)


@pytest.mark.parametrize("data", [b"", b"\xff\xd8", b"\xff\xd8\xff\xd9", b"\x89PNG\r\n\x1a\n", bytes(100)])
def test_refuses_what_is_no_jpeg(data: bytes) -> None:
    with pytest.raises(ValueError):
        native.to_baseline(data)


def test_refuses_a_file_cut_off_anywhere() -> None:
    whole = encoded(Image.fromarray(PHOTO).resize((40, 30)))
    for length in range(len(whole)):
        with pytest.raises(ValueError):
            native.to_baseline(whole[:length])


@pytest.mark.parametrize("data", list(jpegs.corpus()))
def test_damage_is_refused_or_transcoded_but_never_crashes(data: bytes) -> None:
    outcomes = set()
    for seed in range(500):
        try:
            outcomes.add(bool(native.to_baseline(jpegs.flipped(data, seed))))
        except ValueError:
            outcomes.add(False)
    assert outcomes == {False, True}


@pytest.mark.parametrize("kind", [bytearray, memoryview])
def test_takes_any_buffer(kind: type) -> None:
    before = encoded(Image.fromarray(PHOTO))
    assert native.to_baseline(kind(before)) == native.to_baseline(before)
