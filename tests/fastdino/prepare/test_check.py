from __future__ import annotations

import json
import struct
import zlib
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from fastdino import cli, native
from fastdino.data.loader import MultiCropLoader
from fastdino.data.sources import FolderSource
from fastdino.prepare import check, speed
from fastdino.prepare.inspect import Picture, inspect
from tests.csrc import jpegs
from tests.fastdino.prepare.pictures import encoded, photo, write_bad, write_good, write_odd

needs_native = pytest.mark.skipif(not native.available(), reason=native.why_not() or "never")


@pytest.fixture(scope="module")
def messy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("messy")
    write_good(root)
    write_odd(root)
    write_bad(root)
    return root


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speed, "SECONDS", 0.1)


FLAGS = ["--num_workers", "1", "--global_size", "32", "--local_size", "96", "--local_crops_number", "1"]


def checked(root: Path, capsys: pytest.CaptureFixture[str]) -> tuple[int, dict[str, Any]]:
    code = cli.main(["check", str(root), "--json", *FLAGS])
    return code, json.loads(capsys.readouterr().out)


def test_a_good_set_passes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_good(tmp_path)
    code, report = checked(tmp_path, capsys)
    assert code == 0
    assert report["ok"] is True
    assert (report["pictures"], report["usable"], report["classes"]) == (6, 6, 2)
    assert report["bytes"] == sum(path.stat().st_size for path in tmp_path.glob("*/*"))
    assert report["unreadable"] == report["misnamed"] == {}
    assert report["duplicates"] == []
    assert report["formats"] == {"JPEG": 4, "PNG": 1, "WEBP": 1}
    assert report["modes"] == {"RGB": 4, "CMYK": 1, "grey": 1}
    assert (report["progressive"], report["rotated"], report["animated"], report["small"]) == (3, 0, 0, 0)
    assert report["sizes"]["width"] == {"min": 120, "median": 145, "max": 200}
    assert report["speed"]["images_per_second"] > 0
    assert report["speed"]["threads"] == 1


def test_finds_everything_in_a_messy_one(messy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, report = checked(messy, capsys)
    assert code == 1
    assert report["ok"] is False
    assert report["unreadable"].keys() == {"cat/cut.jpg", "cat/empty.jpg", "dog/text.png"}
    assert "truncated" in report["unreadable"]["cat/cut.jpg"]
    assert report["usable"] == report["pictures"] - 3
    assert report["duplicates"] == [["cat/1.jpg", "cat/copy.jpg", "dog/copy.jpg"]]
    assert (report["small"], report["smallest"]) == (2, ["dog/dot.png", "dog/small.png"])
    assert report["misnamed"] == {"dog/jpeg.png": "JPEG"}
    assert report["rotated"] == 2  # not the TIFF, which Pillow turns
    assert report["animated"] == 1
    assert report["modes"]["16-bit grey"] == 1


def test_judges_as_the_loader_does(messy: Path) -> None:
    loader = MultiCropLoader(messy, 1, num_threads=0, global_size=8, local_size=8, local_crops_number=0)
    for _ in loader:
        pass
    survey = check.survey_of(FolderSource(messy), 2, Console(quiet=True))
    assert {loader.source.name(index): reason for index, reason in survey.unreadable.items()} == loader.skipped


@pytest.mark.parametrize("implementation", ["reference", pytest.param("native", marks=needs_native)])
def test_judges_damage_as_the_loader_does(
    tmp_path: Path, implementation: Literal["native", "reference"], monkeypatch: pytest.MonkeyPatch
) -> None:
    if implementation == "reference":
        monkeypatch.setattr(native, "_import_error", ImportError("no such file"))
    whole = encoded(photo(9, 9))
    for number in range(150):
        (tmp_path / f"{number}.jpg").write_bytes(jpegs.flipped(whole, number))
    # The byte behind the first marker, without which Pillow does not take it for a JPEG though libjpeg reads on.
    (tmp_path / "no_marker.jpg").write_bytes(whole[:2] + b"?" + whole[3:])
    loader = MultiCropLoader(
        tmp_path, 1, num_threads=1, implementation=implementation, global_size=8, local_crops_number=0
    )
    for _ in loader:
        pass
    loader.close()
    survey = check.survey_of(FolderSource(tmp_path), 2, Console(quiet=True))
    assert {loader.source.name(index): reason for index, reason in survey.unreadable.items()} == loader.skipped
    assert 20 < len(loader.skipped) < 130
    assert "no_marker.jpg" in loader.skipped


def test_the_page_says_it_in_words(messy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["check", str(messy), *FLAGS]) == 1
    captured = capsys.readouterr()
    for sentence in (
        "19 pictures in 2 classes",
        "3 would be skipped",
        "cat/cut.jpg: image file is truncated",
        "cat/1.jpg = cat/copy.jpg = dog/copy.jpg",
        "2 pictures have a side below 96 pixels",
        "dog/jpeg.png is JPEG",
        "5 JPEGs are progressive",
        "EXIF wants 2 pictures turned",
        "ImageNet's mean",
        "pictures a second here with 1 thread",
    ):
        assert sentence in captured.out
    assert captured.err.strip() == (
        "fastdino: 3 of 19 pictures cannot be used: mend or remove them, or let training skip them."
    )


def test_long_lists_are_cut_on_the_page_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    copy = encoded(photo())
    for number in range(8):
        (tmp_path / f"{'long' * 30}{number}.jpg").write_bytes(copy)
        (tmp_path / f"cut{number}.jpg").write_bytes(copy[: len(copy) // 2 + number])
    assert cli.main(["check", str(tmp_path), *FLAGS]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert any(line.startswith("       8 × image file is truncated") for line in lines)
    assert sum("cut" in line for line in lines) == 5
    (group,) = (line for line in lines if " = " in line)
    assert group.count(" = ") == 5
    assert group.endswith(" = 3 more")
    _, report = checked(tmp_path, capsys)
    assert len(report["unreadable"]) == len(report["duplicates"][0]) == 8


def test_a_set_without_any_readable_picture(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.jpg").write_bytes(b"")
    code, report = checked(tmp_path, capsys)
    assert code == 1
    assert report["speed"] is None
    assert report["usable"] == 0
    assert cli.main(["check", str(tmp_path)]) == 1


def test_a_folder_that_is_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["check", str(tmp_path / "none")]) == 2
    assert cli.main(["check", str(tmp_path), "--local_size", "0"]) == 2
    assert capsys.readouterr().err.count("\n") == 2


def test_channel_statistics_are_those_of_the_pixels(tmp_path: Path) -> None:
    # As large as the sample: every pixel is a point.
    image = photo(64, 64)
    (tmp_path / "a.png").write_bytes(encoded(image, "PNG"))
    found = inspect(FolderSource(tmp_path), 0)
    assert isinstance(found, Picture)
    pixels = np.asarray(image, dtype=np.int64).reshape(-1, 3)
    assert found.sums.tolist() == pixels.sum(axis=0).tolist()
    assert found.squares.tolist() == (pixels**2).sum(axis=0).tolist()


@pytest.mark.parametrize(
    ("name", "content", "mode"),
    [
        ("a.png", encoded(Image.new("1", (9, 9)), "PNG"), "black and white"),
        ("a.png", encoded(Image.new("RGBA", (9, 9)), "PNG"), "RGB with transparency"),
        ("a.png", encoded(Image.new("P", (9, 9)), "PNG"), "palette"),
        ("a.tif", encoded(Image.new("F", (9, 9)), "TIFF"), "floating-point grey"),
        ("a.tif", encoded(Image.fromarray(np.zeros((9, 9), dtype=np.uint16)), "TIFF"), "16-bit grey"),
    ],
)
def test_names_the_kinds_of_pictures(tmp_path: Path, name: str, content: bytes, mode: str) -> None:
    (tmp_path / name).write_bytes(content)
    found = inspect(FolderSource(tmp_path), 0)
    assert isinstance(found, Picture)
    assert found.mode == mode
    assert not found.misnamed


def test_sixteen_bits_of_colour_are_seen(tmp_path: Path) -> None:
    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", 2, 1, 16, 2, 0, 0, 0)  # Pillow writes no such file
    rows = zlib.compress(bytes(1 + 2 * 3 * 2))
    png = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
    (tmp_path / "a.png").write_bytes(png)
    found = inspect(FolderSource(tmp_path), 0)
    assert isinstance(found, Picture)
    assert found.mode == "16-bit RGB"


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")  # the command silences it
def test_damaged_metadata_are_nobodys_business(tmp_path: Path) -> None:
    (tmp_path / "a.webp").write_bytes(encoded(photo(), "WEBP", exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff"))
    found = inspect(FolderSource(tmp_path), 0)
    assert isinstance(found, Picture)
    assert not found.rotated
