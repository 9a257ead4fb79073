from __future__ import annotations

import struct
from collections.abc import Callable
from io import BytesIO
from typing import TypeAlias

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from fastdino import native
from fastdino.native import JpegHeader
from tests.csrc import jpegs

Reader: TypeAlias = Callable[[bytes], JpegHeader]

# Pillow warns of the damaged EXIF.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")

READERS = [
    pytest.param(
        native.jpeg_header,
        id="native",
        marks=pytest.mark.skipif(not native.available(), reason=native.why_not() or "never"),
    ),
    pytest.param(native._jpeg_header_pillow, id="pillow"),
]
every_reader = pytest.mark.parametrize("read", READERS)
needs_native = pytest.mark.skipif(not native.available(), reason=native.why_not() or "never")


@every_reader
@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("mode", jpegs.MODES)
@pytest.mark.parametrize("size", jpegs.SIZES)
def test_reads_what_pillow_wrote(read: Reader, size: tuple[int, int], mode: str, progressive: bool) -> None:
    data = jpegs.encode(mode, size, progressive=progressive)
    assert read(data) == JpegHeader(*size, jpegs.MODES[mode], progressive, 1)


@every_reader
@pytest.mark.parametrize("byte_order", "<>")
@pytest.mark.parametrize("kind", [3, 4])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_reads_the_orientation_that_pillow_reads(read: Reader, orientation: int, kind: int, byte_order: str) -> None:
    data = jpegs.encode("RGB", (8, 4), exif=jpegs.orientation_block(orientation, byte_order, kind=kind, others=2))
    with Image.open(BytesIO(data)) as image:
        assert image.getexif()[0x0112] == orientation
    assert read(data).orientation == orientation


@every_reader
@pytest.mark.parametrize(
    "block",
    [
        b"",
        b"II*\0",
        b"XX*\0" + jpegs.orientation_block(6, "<")[4:],
        jpegs.orientation_block(0, "<"),
        jpegs.orientation_block(9, ">"),
        jpegs.orientation_block(6, "<", count=2),
        jpegs.orientation_block(6, "<", kind=4)[:10] + b"\x12\x01\x07\0" + bytes(12),
        b"II*\0" + struct.pack("<I", 0xFFFFFFFF),
        b"II*\0" + struct.pack("<IH", 8, 0xFFFF),
        jpegs.orientation_block(6, ">")[:-7],
    ],
)
def test_a_damaged_orientation_means_upright(read: Reader, block: bytes) -> None:
    assert read(jpegs.with_app1(jpegs.encode("L", (8, 8)), b"Exif\0\0" + block)).orientation == 1


@every_reader
def test_finds_exif_among_other_app1_segments_and_across_two(read: Reader) -> None:
    block = jpegs.orientation_block(5, ">", padding=jpegs.LONG_EXIF_PADDING)
    cut = 65_000
    data = jpegs.with_app1(
        jpegs.encode("RGB", (8, 8)),
        b"http://ns.adobe.com/xap/1.0/\0<x/>",
        b"Exif",
        b"Exif\0\0" + block[:cut],
        b"Exif\0\0" + block[cut:],
    )
    assert read(data) == JpegHeader(8, 8, 3, False, 5)


@every_reader
@pytest.mark.parametrize("data", [b"", b"\xff", b"\xff\xd8", b"\xff\xd8\xff\xd9", b"\x89PNG\r\n\x1a\n", bytes(100)])
def test_refuses_what_is_no_jpeg(read: Reader, data: bytes) -> None:
    with pytest.raises(ValueError):
        read(data)


@every_reader
@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_takes_any_buffer(read: Reader, kind: type) -> None:
    assert read(kind(jpegs.encode("L", (5, 6)))) == JpegHeader(5, 6, 1, False, 1)


@every_reader
def test_refuses_what_is_no_contiguous_buffer(read: Reader) -> None:
    with pytest.raises(TypeError):
        read("picture.jpg")
    with pytest.raises(BufferError):
        read(memoryview(jpegs.encode("L", (5, 6)))[::2])


@every_reader
@pytest.mark.parametrize("data", list(jpegs.corpus()))
def test_a_truncated_file_is_refused_or_read_rightly(read: Reader, data: bytes) -> None:
    whole = read(data)
    # Within the start-of-scan segment libjpeg is content with less than Pillow is.
    scan = data.index(b"\xff\xda")
    scan_end = scan + 2 + int.from_bytes(data[scan + 2 : scan + 4], "big")
    for length in range(len(data)):
        if length < scan:
            with pytest.raises(ValueError):
                read(data[:length])
        elif length >= scan_end:
            assert read(data[:length]) == whole


@needs_native
@pytest.mark.parametrize("data", list(jpegs.corpus()))
def test_damaged_files_are_refused_or_read_but_never_crash(data: bytes) -> None:
    both_read = 0
    for seed in range(2000):
        damaged = jpegs.flipped(data, seed)
        fast, plain = attempt(native.jpeg_header, damaged), attempt(native._jpeg_header_pillow, damaged)
        if fast is not None and plain is not None:
            both_read += 1
            assert fast == plain
    assert both_read > 100  # else the comparison above says nothing


@needs_native
@settings(max_examples=500, deadline=None)
@given(st.sampled_from([b"II*\0", b"MM\0*"]), st.binary(max_size=60))
def test_native_and_python_read_the_same_orientation_from_any_bytes(magic: bytes, rest: bytes) -> None:
    block = magic + rest
    data = jpegs.with_app1(jpegs.encode("L", (1, 1)), b"Exif\0\0" + block)
    assert native.jpeg_header(data).orientation == native._exif_orientation(block)


@needs_native
@settings(max_examples=500, deadline=None)
@given(st.sampled_from("<>"), st.integers(0, 10), st.sampled_from([3, 4]), st.integers(0, 3), st.data())
def test_native_and_python_agree_on_damaged_directories(
    byte_order: str, orientation: int, kind: int, others: int, data: st.DataObject
) -> None:
    block = bytearray(jpegs.orientation_block(orientation, byte_order, kind=kind, others=others))
    for _ in range(data.draw(st.integers(0, 3))):
        block[data.draw(st.integers(4, len(block) - 1))] = data.draw(st.sampled_from([0, 1, 3, 4, 6, 18, 255]))
    block = block[: data.draw(st.integers(8, len(block)))]
    jpeg = jpegs.with_app1(jpegs.encode("L", (1, 1)), b"Exif\0\0" + bytes(block))
    assert native.jpeg_header(jpeg).orientation == native._exif_orientation(bytes(block))


@needs_native
def test_native_header_is_read_only() -> None:
    header = native._native.jpeg_header(jpegs.encode("L", (5, 6)))
    with pytest.raises(AttributeError):
        header.width = 7  # type: ignore[misc]


def test_without_the_extension_the_answer_comes_from_pillow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native, "_import_error", ImportError("no such file"))
    monkeypatch.setattr(native.importlib.util, "find_spec", lambda name: None)
    assert not native.available()
    assert "not built" in native.why_not()
    assert native.jpeg_header(jpegs.encode("L", (5, 6))) == JpegHeader(5, 6, 1, False, 1)


def test_an_extension_that_does_not_load_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native, "_import_error", ImportError("libjpeg.so.62: cannot open shared object file"))
    monkeypatch.setattr(native.importlib.util, "find_spec", lambda name: object())
    assert "libjpeg.so.62" in native.why_not()


def attempt(read: Reader, data: bytes) -> JpegHeader | None:
    try:
        return read(data)
    except ValueError:
        return None
