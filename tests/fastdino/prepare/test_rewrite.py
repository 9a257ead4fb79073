from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from fastdino import native
from fastdino.data.reading import UnreadableImage, read_image
from fastdino.prepare.rewrite import rewrite
from tests.fastdino.prepare.pictures import encoded, photo

needs_native = pytest.mark.skipif(not native.available(), reason=native.why_not() or "never")


@needs_native
@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
def test_a_progressive_file_becomes_baseline(mode: str) -> None:
    before = encoded(photo().convert(mode), progressive=True)
    after, how = rewrite(before, None)
    assert how == "transcoded"
    assert not native.jpeg_header(after).progressive
    np.testing.assert_array_equal(np.asarray(read_image(after)), np.asarray(read_image(before)))


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF"])
def test_other_files_stay(format: str) -> None:
    before = encoded(photo(), format)
    assert rewrite(before, None) == (before, "kept")
    assert rewrite(before, 120) == (before, "kept")


@needs_native
def test_a_file_that_would_look_otherwise_stays() -> None:
    whole = encoded(photo(), progressive=True)
    first_scan = whole[: second_scan(whole)] + b"\xff\xd9"
    # Decoders smooth what lacks its later scans, and cannot know that its coefficients once did.
    assert read_image(native.to_baseline(first_scan)).tobytes() != read_image(first_scan).tobytes()
    assert rewrite(first_scan, None) == (first_scan, "kept")


def second_scan(jpeg: bytes) -> int:
    """Where the second scan's tables or header start."""
    first = jpeg.index(b"\xff\xda")
    return min(at for marker in (b"\xff\xc4", b"\xff\xda") if (at := jpeg.find(marker, first + 2)) > 0)


def test_a_picture_too_long_for_jpeg_is_not_shrunk() -> None:
    before = encoded(Image.new("L", (140_000, 2)), "PNG")
    assert rewrite(before, 1) == (before, "kept")


def test_refuses_what_training_would_skip() -> None:
    with pytest.raises(UnreadableImage):
        rewrite(encoded(photo(), progressive=True)[:-500], None)
