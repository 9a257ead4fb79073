from __future__ import annotations

import os
from pathlib import Path

import pytest

from fastdino.files import atomic_path, write_atomically


def test_replaces_the_whole_file(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    write_atomically(path, "first")
    write_atomically(path, b"second")
    assert path.read_text() == "second"
    assert os.listdir(tmp_path) == ["a.txt"]


def test_an_error_leaves_the_old_file_alone(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    write_atomically(path, "first")
    with pytest.raises(RuntimeError), atomic_path(path) as temporary:
        temporary.write_text("half a")
        raise RuntimeError
    assert path.read_text() == "first"
    assert os.listdir(tmp_path) == ["a.txt"]


def test_others_may_read_what_the_umask_lets_them(tmp_path: Path) -> None:
    previous = os.umask(0o022)
    try:
        write_atomically(tmp_path / "a.txt", "x")
    finally:
        os.umask(previous)
    assert (tmp_path / "a.txt").stat().st_mode & 0o777 == 0o644
