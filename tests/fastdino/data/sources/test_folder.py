from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fastdino.data.sources import EXTENSIONS, FolderSource, Source
from fastdino.errors import UserError


def _touch(root: Path, *names: str) -> Path:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())
    return root


def _names(source: FolderSource) -> list[str]:
    return [source.name(index) for index in range(len(source))]


def test_flat_folder_in_natural_order(tmp_path: Path) -> None:
    source = FolderSource(_touch(tmp_path, "img10.jpg", "img2.jpg", "IMG1.jpg", "notes.txt", ".hidden.jpg"))
    assert _names(source) == ["IMG1.jpg", "img2.jpg", "img10.jpg"]
    assert source.classes == []
    assert [source.label(index) for index in range(3)] == [-1, -1, -1]
    assert source.read(2) == b"img10.jpg"
    assert isinstance(source, Source)


def test_labels_are_the_top_level_folders(tmp_path: Path) -> None:
    source = FolderSource(
        _touch(tmp_path, "c10/a.png", "c2/deep/er/b.png", "c2/a.png", "top.png", "empty/notes.txt", ".git/x.png")
    )
    assert source.classes == ["c2", "c10"]
    assert {source.name(i): source.label(i) for i in range(len(source))} == {
        "top.png": -1,
        "c2/a.png": 0,
        "c2/deep/er/b.png": 0,
        "c10/a.png": 1,
    }


def test_every_extension_in_any_case(tmp_path: Path) -> None:
    _touch(tmp_path, *(f"{number}.{name}" for number, name in enumerate(EXTENSIONS)), "99.JpEg")
    assert len(FolderSource(tmp_path)) == len(EXTENSIONS) + 1


def test_order_does_not_depend_on_the_file_system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _touch(tmp_path, *(f"{folder}/{number}.png" for folder in "ab" for number in range(12)))
    expected = _names(FolderSource(tmp_path))
    scandir = os.scandir

    class Backwards:
        def __init__(self, path: Any) -> None:
            with scandir(path) as entries:
                self.entries = sorted(entries, key=lambda entry: entry.name, reverse=True)

        def __enter__(self) -> list[os.DirEntry[str]]:
            return self.entries

        def __exit__(self, *_: object) -> None:
            pass

    monkeypatch.setattr(os, "scandir", Backwards)
    assert _names(FolderSource(tmp_path)) == expected


def test_link_loops_end_and_linked_folders_are_used_once(tmp_path: Path) -> None:
    root = _touch(tmp_path / "root", "b/1.png").resolve()
    outside = _touch(tmp_path / "outside", "2.png")
    (root / "b" / "up").symlink_to(root)
    (root / "b" / "self").symlink_to(root / "b")
    (root / "a").symlink_to(root / "b")
    (root / "x").symlink_to(outside)
    (root / "y").symlink_to(outside)
    (outside / "back").symlink_to(root)
    (root / "dangling.png").symlink_to(root / "nothing.png")
    (root / "file.png").symlink_to(outside / "2.png")
    source = FolderSource(root)
    assert _names(source) == ["file.png", "b/1.png", "x/2.png"]
    assert source.classes == ["b", "x"]
    assert source.read(0) == b"2.png"


def test_names_that_are_not_utf8(tmp_path: Path) -> None:
    raw = os.fsencode(tmp_path) + b"/caf\xe9.png"
    try:
        with open(raw, "wb") as file:
            file.write(b"content")
    except OSError:
        pytest.skip("the file system takes UTF-8 names only")
    source = FolderSource(tmp_path)
    assert source.read(0) == b"content"
    assert source.name(0) == "caf\\xe9.png"


def test_survives_pickling_and_checks_the_index(tmp_path: Path) -> None:
    source = pickle.loads(pickle.dumps(FolderSource(_touch(tmp_path, "1.png", "ä/2.png"))))
    assert _names(source) == ["1.png", "ä/2.png"]
    for index in (-1, 2):
        with pytest.raises(IndexError):
            source.name(index)


def test_vanished_picture_is_an_os_error(tmp_path: Path) -> None:
    source = FolderSource(_touch(tmp_path, "1.png"))
    (tmp_path / "1.png").unlink()
    with pytest.raises(FileNotFoundError):
        source.read(0)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda root: root / "missing", "no folder"),
        (lambda root: _touch(root, "a.png") / "a.png", "is a file"),
        (lambda root: root, r"No pictures .* \.jpg, .* found no files"),
        (lambda root: _touch(root, "a.txt", "d/b.txt", "c.csv", "README"), r"2 \.txt, 1 \.csv, 1 without"),
        (lambda root: _touch(root, "a.nef"), r"found only 1 \.nef\."),
    ],
)
def test_unusable_folders_end_in_one_sentence(tmp_path: Path, make: Callable[[Path], Path], words: str) -> None:
    with pytest.raises(UserError, match=words) as caught:
        FolderSource(make(tmp_path))
    assert "\n" not in str(caught.value)


def test_unreadable_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    _touch(tmp_path, "1.png", "lost+found/2.png")
    scandir, forbidden = os.scandir, tmp_path / "lost+found"

    def refuse(path: Any) -> Any:
        if Path(path) == forbidden:
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    assert _names(FolderSource(tmp_path)) == ["1.png"]
    assert "lost+found" in caplog.text
    forbidden = tmp_path
    with pytest.raises(UserError, match=r"cannot be read \(Permission denied\): check its permissions"):
        FolderSource(tmp_path)
