"""Data sets and weights made to harm: nothing of them runs, fills the memory, or leaves its place."""

from __future__ import annotations

import io
import os
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import EpsImagePlugin

from fastdino import native
from fastdino.data import FolderSource, MultiCropLoader, TarSource
from fastdino.data.reading import UnreadableImage, read_image
from fastdino.data.sources import cache, folder
from fastdino.data.sources.protocol import MOST_BYTES
from fastdino.errors import UserError
from fastdino.models.weights import read_weights
from fastdino.prepare.members import Members
from tests.fastdino.prepare.pictures import encoded, photo


def header(name: str, size: int, kind: bytes = tarfile.REGTYPE) -> bytes:
    """A member's header alone, with the size it claims."""
    info = tarfile.TarInfo(name)
    info.size, info.type = size, kind
    return info.tobuf(tarfile.GNU_FORMAT)


def shard(path: Path, *parts: bytes) -> Path:
    """Some parts, behind one good picture."""
    path.write_bytes(header("good.jpg", 4) + b"good".ljust(512, b"\0") + b"".join(parts) + bytes(1024))
    return path


@pytest.fixture(autouse=True)
def own_lists(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.mark.parametrize(
    "parts",
    [
        [header("a.jpg", -512)],
        [header("a.jpg", -(10**6), b"?")],
        [header("a.jpg", 2**62)],
        [header("././@LongLink", 2**40, tarfile.GNUTYPE_LONGNAME)],
        [header("././@LongLink", -512, tarfile.GNUTYPE_LONGNAME)],
        [header("pax", 2**40, tarfile.XHDTYPE)],
        [header("pax", 512, tarfile.XHDTYPE), b"9999999999 path=x\n".ljust(512, b"\0")],
        [header("././@LongLink", 1, tarfile.GNUTYPE_LONGNAME), bytes(512)] * 2000,
        [header("a.jpg", 10**6, tarfile.GNUTYPE_SPARSE)],
    ],
    ids=["negative", "negative, unknown", "huge", "huge name", "negative name", "huge table", "table", "deep", "holes"],
)
def test_headers_that_lie_end_the_shard(tmp_path: Path, parts: list[bytes], caplog: pytest.LogCaptureFixture) -> None:
    source = TarSource(shard(tmp_path / "1.tar", *parts))
    assert [source.name(index) for index in range(len(source))] == ["1.tar/good.jpg"]
    assert source.read(0) == b"good"
    assert "1.tar is damaged after 1 pictures" in caplog.text


def test_a_name_leads_nowhere(tmp_path: Path) -> None:
    names = ["../../up.jpg", "/etc/absolute.jpg", "clear\x1b[2J\n.jpg", "a/../../b.jpg"]
    parts = [part for name in names for part in (header(name, 4), name[:4].encode().ljust(512, b"\0"))]
    special = [header(f"{number}.jpg", 0, kind) for number, kind in enumerate((b"1", b"2", b"3", b"4", b"6"))]
    source = TarSource(shard(tmp_path / "1.tar", *special, *parts))
    assert [source.read(index) for index in range(len(source))] == [b"good", *(name[:4].encode() for name in names)]
    shown = [source.name(index).removeprefix("1.tar/") for index in range(1, len(source))]
    assert shown == [*names[:2], r"clear\x1b[2J\n.jpg", names[3]]
    members = Members(source)
    packed = [members.picture(index) for index in range(len(source))]
    assert not any(part in ("", "..") for name in packed for part in name.split("/"))
    assert len(set(packed)) == len(packed)


def test_files_show_no_control_characters(tmp_path: Path) -> None:
    (tmp_path / "red\x1b[31m.jpg").write_bytes(b"")
    source = FolderSource(tmp_path)
    assert source.name(0) == r"red\x1b[31m.jpg"
    assert source.read(0) == b""


@pytest.mark.parametrize("threads", [0, 1])
@pytest.mark.parametrize("packed", [False, True])
def test_files_too_large_for_a_picture_are_not_read(tmp_path: Path, packed: bool, threads: int) -> None:
    if threads and not native.available():
        pytest.skip(native.why_not() or "")
    picture = encoded(photo(20, 20))
    path = tmp_path / ("1.tar" if packed else "large.jpg")
    parts = (header("good.jpg", len(picture)), picture.ljust(-(-len(picture) // 512) * 512, b"\0"))
    path.write_bytes(b"".join((*parts, header("large.jpg", MOST_BYTES + 1))) if packed else b"")
    # Without a byte of it on the disk.
    os.truncate(path, path.stat().st_size + MOST_BYTES + 512)
    if not packed:
        (tmp_path / "good.jpg").write_bytes(picture)
    loader = MultiCropLoader(
        tmp_path,
        2,
        num_threads=threads,
        global_size=8,
        local_crops_number=0,
        implementation="native" if threads else "reference",
    )
    assert len(list(loader)) == 1
    loader.close()
    assert list(loader.skipped.values()) == ["larger than 1 GiB"]


def test_postscript_is_no_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pillow would start Ghostscript for it."""
    started: list[Any] = []
    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", lambda *arguments, **_: started.append(arguments))
    with pytest.raises(UnreadableImage, match="not a picture in a format"):
        read_image(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n")
    assert not started


def listed(root: Path) -> dict[str, Any]:
    index = folder._index_of(folder.scan(root))
    return {**index, "folders": np.zeros(0, np.uint8), "changed": np.array([os.stat(root).st_mtime_ns])}


@pytest.mark.parametrize(
    "harm",
    [
        {"ends": np.array([10**12])},
        {"ends": np.array([-5])},
        {"ends": np.array([5], dtype=np.int32)},
        {"ends": np.array([[5]])},
        {"ends": np.array([2, 5])},
        {"labels": np.array([9], dtype=np.int32)},
        {"labels": np.zeros(0, dtype=np.int32)},
    ],
)
def test_a_kept_list_that_does_not_hold_together_is_made_anew(tmp_path: Path, harm: dict[str, Any]) -> None:
    root = tmp_path / "pictures"
    root.mkdir()
    (root / "a.jpg").write_bytes(b"a")
    cache.store("folder", str(root), listed(root))
    assert folder._kept_index(root) is not None
    cache.store("folder", str(root), {**listed(root), **harm})
    assert folder._kept_index(root) is None
    assert FolderSource(root).read(0) == b"a"


@pytest.mark.parametrize("field", ["offsets", "sizes", "lengths", "in_folder"])
def test_a_kept_index_points_into_its_shard(tmp_path: Path, field: str, monkeypatch: pytest.MonkeyPatch) -> None:
    path = shard(tmp_path / "1.tar")
    load = cache.load
    TarSource(path)
    monkeypatch.setattr(cache, "load", lambda *subject: {**(load(*subject) or {}), field: np.array([10**6])})
    assert TarSource(path).read(0) == b"good"


def test_a_packed_list_is_not_unpacked() -> None:
    cache.store("test", "packed", {})
    (path,) = (cache.cache_folder()).iterdir()
    np.savez_compressed(path, zeros=np.zeros(10**6), format=np.array("1"))
    Path(f"{path}.npz").unlink(missing_ok=True)
    assert cache.load("test", "packed") is None


def test_weights_that_grow_are_refused(tmp_path: Path) -> None:
    torch.save({"x": torch.zeros(10**6)}, tmp_path / "stored.pth")
    read_weights(tmp_path / "stored.pth")
    with zipfile.ZipFile(tmp_path / "stored.pth") as stored:
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as packed:
            for entry in stored.infolist():
                packed.writestr(entry.filename, stored.read(entry))
    (tmp_path / "packed.pth").write_bytes(buffer.getvalue())
    with pytest.raises(UserError, match="would unpack to 4,0"):
        read_weights(tmp_path / "packed.pth")
