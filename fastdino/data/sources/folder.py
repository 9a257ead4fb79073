"""Pictures in folders."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fastdino.data.sources import cache
from fastdino.data.sources.protocol import FileTable, check_index, check_size, printable
from fastdino.data.sources.scan import Scan, check_folder, natural, scan

# Smaller sets are scanned faster than a person notices.
_WORTH_KEEPING = 20_000
# Entries may have come in the same tick of a file system's clock as the scan, unseen: such a folder's time says
# nothing. FAT's clock, the coarsest, ticks every two seconds.
_TICK_NS = 2_000_000_000


class FolderSource:
    """The pictures in a folder and everything below it, in natural order (2.jpg before 10.jpg), folder by
    folder.

    Hidden files and folders are skipped. Links are followed; a folder that is reachable in several ways is
    used once, which also ends loops. The label of a picture is the top-level folder that it is in; pictures
    directly in the root have none, so a flat folder has no classes. Files that appear after the scan are not
    seen. The list of a large set is kept between runs, and used again while no folder in it has changed.

    Raises UserError when the folder is missing, not a folder, not readable or without pictures.
    """

    def __init__(self, root: str | os.PathLike[str]) -> None:
        self.root = Path(root)
        check_folder(self.root)
        index = _kept_index(self.root)
        if index is None:
            started = time.time_ns()
            found = scan(self.root)
            index = _index_of(found)
            _keep(self.root, found, index, started)
        # One buffer instead of a list: millions of small objects cost gigabytes, and worker processes copy
        # them page by page as soon as reference counts change.
        self._names = index["names"].tobytes()
        self._ends: npt.NDArray[np.int64] = index["ends"]
        self._labels: npt.NDArray[np.int32] = index["labels"]
        self.classes = [os.fsdecode(name) for name in index["classes"].tobytes().split(b"\0") if name]

    def __len__(self) -> int:
        return len(self._ends)

    def read(self, index: int) -> bytes:
        with open(os.path.join(os.fsencode(self.root), self._raw_name(index)), "rb") as file:
            check_size(os.fstat(file.fileno()).st_size)
            return file.read()

    def name(self, index: int) -> str:
        """Path below the root, with slashes; bytes that are not UTF-8, or that no text has, are shown escaped."""
        return printable(self._raw_name(index))

    def label(self, index: int) -> int:
        return int(self._labels[index])

    def files(self) -> FileTable:
        """Where its pictures lie on disk."""
        return FileTable(os.fsencode(self.root), self._names, self._ends)

    def _raw_name(self, index: int) -> bytes:
        check_index(index, len(self))
        start = int(self._ends[index - 1]) if index else 0
        return self._names[start : int(self._ends[index])]


def _index_of(found: Scan) -> cache.Arrays:
    """The scan as arrays: names one after another and where each ends, labels, class names between zero bytes."""
    classes = sorted({folder[0] for folder in found.pictures if folder}, key=natural)
    number = {name: label for label, name in enumerate(classes)}
    names: list[bytes] = []
    labels: list[npt.NDArray[np.int32]] = []
    for folder in sorted(found.pictures, key=lambda parts: [natural(part) for part in parts]):
        prefix = os.fsencode("/".join((*folder, "")))
        names.extend(prefix + os.fsencode(file) for file in found.pictures[folder])
        labels.append(np.full(len(found.pictures[folder]), number[folder[0]] if folder else -1, dtype=np.int32))
    return {
        "names": _bytes_array(b"".join(names)),
        "ends": np.cumsum(np.fromiter(map(len, names), np.int64, len(names))),
        "labels": np.concatenate(labels),
        "classes": _bytes_array(b"\0".join(map(os.fsencode, classes))),
    }


def _keep(root: Path, found: Scan, index: cache.Arrays, started: int) -> None:
    times = np.fromiter(found.folders.values(), np.int64, len(found.folders))
    if len(index["ends"]) >= _WORTH_KEEPING and bool((times < started - _TICK_NS).all()):
        folders = b"\0".join(os.fsencode("/".join(parts)) for parts in found.folders)
        cache.store("folder", _subject(root), {**index, "folders": _bytes_array(folders), "changed": times})


def _kept_index(root: Path) -> cache.Arrays | None:
    """What was kept for this root, unless one of its folders is gone or has changed since."""
    index = cache.load("folder", _subject(root))
    if index is None:
        return None
    try:
        folders = index["folders"].tobytes().split(b"\0")
        base = os.fsencode(root)
        now = [os.stat(os.path.join(base, folder)).st_mtime_ns for folder in folders]
        return index if np.array_equal(now, index["changed"]) and _is_sound(index) else None
    except (OSError, KeyError, ValueError):
        return None


def _is_sound(index: cache.Arrays) -> bool:
    """Whether what was read from disk holds together: the names are handed to code that does not look again."""
    ends, labels = index["ends"], index["labels"]
    return (
        ends.dtype == np.int64
        and labels.dtype == np.int32
        and (ends.ndim, labels.ndim) == (1, 1)
        and len(ends) == len(labels) > 0
        and bool((np.diff(ends, prepend=0) >= 0).all())
        and int(ends[-1]) == len(index["names"])
        and bool((labels >= -1).all())
        and int(labels.max()) < sum(name != b"" for name in index["classes"].tobytes().split(b"\0"))
    )


def _subject(root: Path) -> str:
    return os.path.abspath(root)


def _bytes_array(data: bytes) -> npt.NDArray[Any]:
    return np.frombuffer(data, dtype=np.uint8)
