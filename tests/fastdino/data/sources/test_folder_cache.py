"""The kept list of a large folder: used while nothing has changed, and never a reason to fail."""

from __future__ import annotations

import os
import pwd
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from fastdino.data.sources import FolderSource, folder

Scans = list[Path]


@pytest.fixture
def scans(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Scans:
    """Folders that were scanned since, with a cache of the test's own, which keeps lists of three pictures and more."""
    done: Scans = []

    def counted(root: Path) -> folder.scan.Scan:  # type: ignore[name-defined]
        done.append(root)
        return scan(root)

    scan = folder.scan
    monkeypatch.setattr(folder, "scan", counted)
    monkeypatch.setattr(folder, "_WORTH_KEEPING", 3)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return done


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Four pictures in folders that last changed a minute ago."""
    root = tmp_path / "set"
    for name in ("top.png", "b/10.png", "b/deep/2.png", "ä/1.png"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(name.encode())
    _settle(root)
    return root


def _settle(root: Path) -> None:
    """As if nothing had changed in the last minute."""
    then = time.time() - 60
    for path in [root, *root.rglob("*")]:
        if path.is_dir():
            os.utime(path, (then, then))


def _contents(source: FolderSource) -> list[tuple[str, int, bytes]]:
    return [(source.name(index), source.label(index), source.read(index)) for index in range(len(source))]


def _kept() -> list[Path]:
    return list((Path(os.environ["XDG_CACHE_HOME"]) / "fastdino").glob("*"))


def test_the_second_time_no_folder_is_listed(root: Path, scans: Scans) -> None:
    first, second = FolderSource(root), FolderSource(str(root))
    assert scans == [root]
    assert _contents(second) == _contents(first)
    assert [name for name, _, _ in _contents(second)] == ["top.png", "b/10.png", "b/deep/2.png", "ä/1.png"]
    assert second.classes == first.classes == ["b", "ä"]
    ours, theirs = second.files(), first.files()
    assert (ours.root, ours.names, ours.ends.tolist()) == (theirs.root, theirs.names, theirs.ends.tolist())


def test_the_same_folder_by_another_path(root: Path, scans: Scans, monkeypatch: pytest.MonkeyPatch) -> None:
    FolderSource(root)
    monkeypatch.chdir(root.parent)
    assert len(_contents(FolderSource("set"))) == 4
    assert len(scans) == 1


def test_small_sets_are_not_kept(root: Path, scans: Scans, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folder, "_WORTH_KEEPING", 5)
    FolderSource(root)
    FolderSource(root)
    assert len(scans) == 2 and not _kept()


def _replaced(root: Path) -> None:
    root.rename(root.with_name("before"))
    root.mkdir()
    (root / "new.png").write_bytes(b"new")


CHANGES: dict[str, Callable[[Path], object]] = {
    "a new picture": lambda root: (root / "b" / "11.png").write_bytes(b""),
    "a picture gone": lambda root: (root / "top.png").unlink(),
    "a picture renamed": lambda root: (root / "b" / "deep" / "2.png").rename(root / "b" / "deep" / "3.png"),
    "a picture moved": lambda root: (root / "b" / "10.png").rename(root / "ä" / "10.png"),
    "a new folder": lambda root: (root / "c").mkdir(),
    "a folder gone": lambda root: shutil.rmtree(root / "ä"),
    "a folder renamed": lambda root: (root / "b").rename(root / "c"),
    "a new link": lambda root: (root / "link").symlink_to(root / "b"),
    "another folder in its place": _replaced,
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_is_seen(root: Path, scans: Scans, change: str) -> None:
    before = _contents(FolderSource(root))
    CHANGES[change](root)
    after = _contents(FolderSource(root))
    assert len(scans) == 2
    assert (after == before) == (change in ("a new folder", "a new link"))
    found = [name for name, _, _ in after]
    assert sorted(found) == sorted(path.relative_to(root).as_posix() for path in root.rglob("*.png"))


def test_a_change_behind_a_link_is_seen(root: Path, scans: Scans) -> None:
    outside = root.with_name("outside")
    outside.mkdir()
    (outside / "1.png").write_bytes(b"1")
    (root / "link").symlink_to(outside)
    _settle(root)
    _settle(outside)
    assert len(FolderSource(root)) == len(FolderSource(root)) == 5
    assert len(scans) == 1
    (outside / "2.png").write_bytes(b"2")
    assert len(FolderSource(root)) == 6


def test_a_folder_that_is_still_being_filled_is_not_kept(root: Path, scans: Scans) -> None:
    (root / "b" / "11.png").write_bytes(b"just now")
    FolderSource(root)
    FolderSource(root)
    assert len(scans) == 2 and not _kept()


def _array(path: Path) -> None:
    with path.open("wb") as file:
        np.save(file, np.arange(3))


def _pickled(path: Path) -> None:
    with path.open("wb") as file:
        np.savez(file, format=np.array("1"), names=np.array([object()], dtype=object))


def _without_ends(path: Path) -> None:
    with np.load(path) as stored:
        arrays = {name: stored[name] for name in stored.files if name != "ends"}
    with path.open("wb") as file:
        np.savez(file, **arrays)


def _of_another_format(path: Path) -> None:
    with np.load(path) as stored:
        arrays = {name: stored[name] for name in stored.files} | {"format": np.array("0")}
    with path.open("wb") as file:
        np.savez(file, **arrays)


def _with_directory_byte(place: int, value: int) -> Callable[[Path], object]:
    """Changes a byte of the zip archive's entry of its first member."""

    def change(path: Path) -> None:
        content = bytearray(path.read_bytes())
        content[content.index(b"PK\x01\x02") + place] = value
        path.write_bytes(content)

    return change


DAMAGES: dict[str, Callable[[Path], object]] = {
    "empty": lambda path: path.write_bytes(b""),
    "text": lambda path: path.write_text("no archive"),
    "cut off": lambda path: path.write_bytes(path.read_bytes()[:-100]),
    "overwritten": lambda path: path.write_bytes(path.read_bytes()[:200] + bytes(100) + path.read_bytes()[300:]),
    "encrypted": _with_directory_byte(8, 1),
    "compressed in an unknown way": _with_directory_byte(10, 99),
    "a bare array": _array,
    "pickled": _pickled,
    "incomplete": _without_ends,
    "of another format": _of_another_format,
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_list_is_made_anew(root: Path, scans: Scans, damage: str) -> None:
    expected = _contents(FolderSource(root))
    (path,) = _kept()
    DAMAGES[damage](path)
    assert _contents(FolderSource(root)) == expected
    assert _contents(FolderSource(root)) == expected
    # The second of these used the new list.
    assert len(scans) == 2


def test_a_cache_that_cannot_be_written_is_done_without(
    root: Path, scans: Scans, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Where everything is allowed to root, a file in the folder's place still is no folder.
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert _contents(FolderSource(root)) == _contents(FolderSource(root))
    assert len(scans) == 2


def test_a_full_disk_leaves_nothing_behind(root: Path, scans: Scans, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(file: object, **arrays: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez", full)
    assert len(FolderSource(root)) == 4
    assert not _kept()


def test_without_a_home_folder(root: Path, scans: Scans, monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(user: int) -> object:
        raise KeyError(user)

    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.setattr(pwd, "getpwuid", unknown)
    assert _contents(FolderSource(root)) == _contents(FolderSource(root))
    assert len(scans) == 2
