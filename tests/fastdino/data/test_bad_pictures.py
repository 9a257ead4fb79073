"""What every kind of damaged or odd picture becomes: used or skipped, alike in both implementations."""

from __future__ import annotations

import io
import resource
import tarfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from fastdino import native
from fastdino.data import IterableSource, MultiCropLoader, TarSource
from fastdino.data.order import EpochOrder
from fastdino.data.reading import UnreadableImage, read_image
from tests.fastdino.prepare.pictures import encoded, photo

needs_native = pytest.mark.skipif(not native.available(), reason=native.why_not() or "never")
IMPLEMENTATIONS = ["reference", pytest.param("native", marks=needs_native)]


def _sized(jpeg: bytes, side: int) -> bytes:
    """A baseline JPEG whose header promises side x side pixels."""
    frame = jpeg.index(b"\xff\xc0") + 5  # behind marker, length and precision
    return jpeg[:frame] + side.to_bytes(2, "big") * 2 + jpeg[frame + 4 :]


def _turned() -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = 6
    return exif


@cache
def _used() -> dict[str, bytes]:
    frames = [photo(60, 50), photo(60, 50).rotate(90)]
    deep = np.asarray(photo(50, 60).convert("L")).astype(np.uint16) * 16
    return {
        "plain.jpg": encoded(photo()),
        "progressive.jpg": encoded(photo(), progressive=True),
        "grey.jpg": encoded(photo(70, 50).convert("L")),
        "cmyk.jpg": encoded(photo(70, 50).convert("CMYK")),
        "png_inside.jpg": encoded(photo(70, 50), "PNG"),
        "jpeg_inside.png": encoded(photo(70, 50)),
        "deep.png": encoded(Image.fromarray(deep), "PNG"),
        "moving.gif": encoded(frames[0], "GIF", save_all=True, append_images=frames[1:]),
        "turned.jpg": encoded(photo(70, 50), exif=_turned()),
        "turned.tif": encoded(photo(70, 50), "TIFF", exif=_turned()),
        "dot.jpg": encoded(photo(1, 1)),
        "dot.png": encoded(photo(1, 1), "PNG"),
        "needle.jpg": encoded(photo(1, 400).resize((1, 4000))),
        "needle.png": encoded(photo(400, 1).resize((4000, 1)), "PNG"),
        "trailing.jpg": encoded(photo(70, 50)) + b"what a camera appends",
    }


@cache
def _skipped() -> dict[str, tuple[bytes, str]]:
    """Each with a part of the reason."""
    whole = encoded(photo())
    png = encoded(photo(), "PNG")
    progressive = encoded(photo(), progressive=True)
    cut = {f"cut_{tenth}.jpg": (whole[: len(whole) * tenth // 10], "truncated") for tenth in range(2, 10)}
    return cut | {
        # Here the header itself is incomplete.
        "cut_1.jpg": (whole[: len(whole) // 10], ""),
        "empty.jpg": (b"", "the file is empty"),
        "zeros.jpg": (bytes(5000), "not a picture"),
        "text.png": (b"no picture", "not a picture"),
        "huge.jpg": (_sized(whole, 65_500), "exceeds limit of 178956970 pixels"),
        "unfinished.jpg": (whole[:-1], "truncated"),
        "cut_progressive.jpg": (progressive[: len(progressive) // 2], "truncated"),
        # What a repaired disk leaves: the beginning of one file, the end of another.
        "two_files.jpg": (whole[: len(whole) // 2] + progressive[-len(whole) // 2 :], "broken data stream"),
        "leading.jpg": (bytes(10) + whole, "not a picture"),
        "no_marker.jpg": (whole[:2] + bytes(10) + whole[2:], "not a picture"),
        "cut.png": (png[: len(png) // 2], "truncated"),
    }


def _files() -> dict[str, bytes]:
    return _used() | {name: content for name, (content, _) in _skipped().items()}


def _as_folder(root: Path, files: dict[str, bytes]) -> Any:
    for name, content in files.items():
        (root / name).write_bytes(content)
    return root


def _as_shard(root: Path, files: dict[str, bytes]) -> Any:
    with tarfile.open(root / "set.tar", "w") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return TarSource(root)


class Named(IterableSource):
    """Files that only Python can read."""

    def __init__(self, files: dict[str, bytes]) -> None:
        super().__init__([(content, -1) for content in files.values()])
        self._names = list(files)

    def name(self, index: int) -> str:
        return self._names[index]


def _loader(source: Any, implementation: Any, **options: Any) -> MultiCropLoader:
    tiny: dict[str, Any] = {"global_size": 32, "local_size": 16, "local_crops_number": 1, "output": "uint8"}
    threads = 0 if implementation == "reference" else 3
    return MultiCropLoader(source, implementation=implementation, num_threads=threads, **(tiny | options))


@needs_native
@pytest.mark.parametrize("give", [_as_folder, _as_shard, lambda root, files: Named(files)], ids=["files", "tar", "own"])
def test_both_implementations_use_and_skip_the_same(tmp_path: Path, give: Callable[..., Any]) -> None:
    files = _files()
    source = give(tmp_path, files)
    loaders = [_loader(source, implementation, batch_size=4) for implementation in ("native", "reference")]
    for _ in range(3):
        ours, theirs = map(list, loaders)
        assert len(ours) == len(files) // 4
        for (our_crops, _), (their_crops, _) in zip(ours, theirs, strict=True):
            assert all(map(torch.equal, our_crops, their_crops))
        assert loaders[0].skipped == loaders[1].skipped
    for loader in loaders:
        loader.close()
    assert {name.rpartition("/")[2] for name in loaders[0].skipped} == _skipped().keys()


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_what_is_skipped_is_named_with_its_reason_and_followed_by_the_next(tmp_path: Path, implementation: str) -> None:
    # Each in a folder of its own, so that its label tells which one was used.
    for name, content in _files().items():
        (tmp_path / name).mkdir()
        (tmp_path / name / name).write_bytes(content)
    loader = _loader(tmp_path, implementation, batch_size=len(_files()))
    names = loader.classes
    for epoch in range(3):
        ((crops, labels),) = list(loader)
        assert [len(crop) for crop in crops] == [len(names)] * 3
        for index, label in zip(EpochOrder(0, epoch, len(names))[np.arange(len(names))], labels, strict=True):
            following = names[index:] + names[:index]
            assert names[label] == next(name for name in following if name in _used())
    loader.close()
    assert loader.skipped.keys() == {f"{name}/{name}" for name in _skipped()}
    for name, (_, reason) in _skipped().items():
        assert reason in loader.skipped[f"{name}/{name}"]
        assert "\n" not in loader.skipped[f"{name}/{name}"]


@needs_native
@pytest.mark.parametrize("progressive", [False, True])
def test_wherever_a_jpeg_is_cut_off_both_decoders_refuse_it(progressive: bool) -> None:
    from fastdino.data import engine

    whole = encoded(photo(50, 40), progressive=progressive)
    np.testing.assert_array_equal(engine.decode(whole), np.asarray(read_image(whole)))
    for length in range(len(whole)):
        with pytest.raises(ValueError):
            engine.decode(whole[:length])
        with pytest.raises(UnreadableImage):
            read_image(whole[:length])


@contextmanager
def _address_space(spare: int) -> Iterator[None]:
    """No more than `spare` bytes beyond what the process has already."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + spare, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_a_huge_header_takes_no_memory(tmp_path: Path, implementation: str) -> None:
    _as_folder(tmp_path, {"1.jpg": encoded(photo()), "2.jpg": _sized(encoded(photo()), 65_500)})
    loader = _loader(tmp_path, implementation, batch_size=2)
    # Its pixels would take 12 GB.
    with _address_space(1 << 30):
        assert len(list(loader)) == 1
        loader.close()
    assert "exceeds limit" in loader.skipped["2.jpg"]


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_a_picture_that_cannot_be_had_is_skipped_with_what_the_system_says(implementation: str) -> None:
    class Offline(Named):
        def read(self, index: int) -> bytes:
            if index == 1:
                raise OSError("the disk is\noffline")
            if index == 2:
                raise PermissionError(13, "Permission denied", "/secret/path")
            return super().read(index)

    loader = _loader(Offline({f"{number}.jpg": encoded(photo()) for number in range(4)}), implementation, batch_size=4)
    assert len(list(loader)) == 1
    loader.close()
    assert loader.skipped == {"1.jpg": "the disk is offline", "2.jpg": "Permission denied"}
