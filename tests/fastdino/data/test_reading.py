from __future__ import annotations

import struct
import threading
import warnings
import zlib
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fastdino.data.reading import UnreadableImage, read_image


def noise(width: int = 60, height: int = 45) -> Image.Image:
    """A smooth random RGB picture."""
    coarse = np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)


def encoded(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    buffer = BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


@pytest.mark.parametrize("kind", ["PNG", "BMP", "PPM", "TIFF"])
def test_rgb_is_read_as_it_is(kind: str) -> None:
    image = read_image(encoded(noise(), kind))
    assert image.mode == "RGB"
    np.testing.assert_array_equal(np.asarray(image), np.asarray(noise()))


@pytest.mark.parametrize(("kind", "options"), [("JPEG", {"quality": 90}), ("WEBP", {"lossless": True})])
def test_paths_and_bytes_give_the_same_pixels(tmp_path: Path, kind: str, options: dict[str, object]) -> None:
    content = encoded(noise(), kind, **options)
    path = tmp_path / "picture"
    path.write_bytes(content)
    expected = np.asarray(Image.open(BytesIO(content)).convert("RGB"))
    for source in (content, path, str(path)):
        np.testing.assert_array_equal(np.asarray(read_image(source)), expected)


def test_grey_and_bilevel_become_rgb() -> None:
    grey = np.asarray(read_image(encoded(noise().convert("L"))))
    np.testing.assert_array_equal(grey, np.repeat(np.asarray(noise().convert("L"))[..., None], 3, axis=2))
    bilevel = noise().convert("1")
    expected = np.asarray(bilevel).astype(np.uint8) * 255
    np.testing.assert_array_equal(np.asarray(read_image(encoded(bilevel)))[..., 0], expected)


def test_alpha_is_composited_over_white() -> None:
    image = Image.new("RGBA", (3, 1), (200, 100, 0, 0))
    image.putpixel((1, 0), (200, 100, 0, 255))
    image.putpixel((2, 0), (200, 100, 0, 128))
    pixels = np.asarray(read_image(encoded(image)))[0]
    np.testing.assert_array_equal(pixels[0], [255, 255, 255])
    np.testing.assert_array_equal(pixels[1], [200, 100, 0])
    # Exactly (c * 128 + 255 * 127) / 255, and Pillow rounds within one.
    np.testing.assert_allclose(pixels[2], [227.4, 177.2, 127], atol=1)


def test_grey_with_alpha_and_palette_with_transparency() -> None:
    grey = Image.new("LA", (2, 1), (10, 0))
    grey.putpixel((1, 0), (10, 255))
    np.testing.assert_array_equal(np.asarray(read_image(encoded(grey)))[0], [[255] * 3, [10] * 3])

    palette = Image.new("P", (2, 1), 0)
    palette.putpalette([1, 2, 3, 40, 50, 60])
    palette.putpixel((1, 0), 1)
    content = encoded(palette, transparency=0)
    np.testing.assert_array_equal(np.asarray(read_image(content))[0], [[255] * 3, [40, 50, 60]])


def test_cmyk_is_converted_by_pillow() -> None:
    content = encoded(noise().convert("CMYK"), "JPEG", quality=95)
    opened = Image.open(BytesIO(content))
    assert opened.mode == "CMYK"
    np.testing.assert_array_equal(np.asarray(read_image(content)), np.asarray(opened.convert("RGB")))


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_12_bits_in_16_are_stretched(kind: str) -> None:
    values = np.linspace(100, 4095, 20).astype(np.uint16).reshape(4, 5)
    pixels = np.asarray(read_image(encoded(Image.fromarray(values), kind)))[..., 0]
    expected = np.rint((values - 100.0) / 3995 * 255)
    np.testing.assert_array_equal(pixels, expected)


def test_32_bit_and_float_grey_are_stretched() -> None:
    integers = np.array([[-70000, 0, 70000]], dtype=np.int32)
    floats = np.array([[-1.0, np.nan, 0.0, 1.0]], dtype=np.float32)
    np.testing.assert_array_equal(
        np.asarray(read_image(encoded(Image.fromarray(integers), "TIFF")))[0, :, 0], [0, 128, 255]
    )
    np.testing.assert_array_equal(
        np.asarray(read_image(encoded(Image.fromarray(floats), "TIFF")))[0, :, 0], [0, 0, 128, 255]
    )


def test_constant_and_not_finite_wide_grey() -> None:
    constant = Image.fromarray(np.full((2, 2), 3000, dtype=np.uint16))
    assert np.asarray(read_image(encoded(constant))).max() == 0
    nothing = Image.fromarray(np.full((2, 2), np.nan, dtype=np.float32))
    with pytest.raises(UnreadableImage, match="no finite"):
        read_image(encoded(nothing, "TIFF"))


def test_first_frame_of_an_animation() -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    content = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    np.testing.assert_array_equal(np.asarray(read_image(content))[0, 0], [255, 0, 0])


def test_exif_orientation_is_ignored() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    content = encoded(noise(60, 45), "JPEG", exif=exif)
    assert read_image(content).size == (60, 45)


@pytest.mark.parametrize("size", [(1, 1), (1, 4000), (4000, 1)])
def test_extreme_shapes(size: tuple[int, int]) -> None:
    assert read_image(encoded(Image.new("RGB", size))).size == size


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "TIFF", "BMP"])
def test_truncated_files_are_refused_as_pillow_refuses_them(kind: str) -> None:
    content = encoded(noise(), kind)
    refused = 0
    for length in range(0, len(content), max(1, len(content) // 40)):
        piece = content[:length]
        try:
            Image.open(BytesIO(piece)).convert("RGB")
        except Exception:
            with pytest.raises(UnreadableImage):
                read_image(piece)
            refused += 1
        else:
            read_image(piece)
    assert refused >= 20


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "empty"),
        (b"hello, this is text", "format"),
        (b"\xff\xd8\xff\xe0", "."),
        (b"\x89PNG\r\n\x1a\n", "."),
    ],
)
def test_what_is_no_picture(content: bytes, reason: str) -> None:
    with pytest.raises(UnreadableImage, match=reason):
        read_image(content)


def test_reason_is_one_line_without_the_path(tmp_path: Path) -> None:
    for name, content in (("text.jpg", b"text"), ("cut.jpg", encoded(noise(), "JPEG")[:400])):
        path = tmp_path / name
        path.write_bytes(content)
        with pytest.raises(UnreadableImage) as caught:
            read_image(path)
        assert name not in str(caught.value) and "\n" not in str(caught.value) and "BytesIO" not in str(caught.value)


@pytest.mark.parametrize("missing", [True, False])
def test_paths_that_cannot_be_read(tmp_path: Path, missing: bool) -> None:
    with pytest.raises(UnreadableImage, match="No such file" if missing else "directory"):
        read_image(tmp_path / "gone.jpg" if missing else tmp_path)


def _png_header(width: int, height: int) -> bytes:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def test_decompression_bomb_is_refused() -> None:
    with pytest.raises(UnreadableImage, match="decompression bomb"):
        read_image(_png_header(65500, 65500))


def test_no_warning_leaks(recwarn: pytest.WarningsRecorder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 2000)
    content = encoded(noise())  # 2,700 pixels: Pillow warns, and refuses from 4,000 on
    with pytest.warns(Image.DecompressionBombWarning):
        Image.open(BytesIO(content))
    recwarn.clear()
    read_image(content)
    assert not recwarn.list


def test_warning_filters_survive_reading_in_threads() -> None:
    before = list(warnings.filters)
    content = encoded(noise(200, 200), "JPEG")
    threads = [threading.Thread(target=lambda: [read_image(content) for _ in range(30)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert list(warnings.filters) == before
