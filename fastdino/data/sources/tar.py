"""Pictures in tar shards, as WebDataset writes them."""

from __future__ import annotations

import glob
import logging
import os
import re
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from fastdino.data.sources import cache
from fastdino.data.sources.protocol import EXTENSIONS, FileTable, check_index
from fastdino.data.sources.scan import natural
from fastdino.errors import UserError

_log = logging.getLogger(__name__)
_RANGE = re.compile(r"\{(\d+)\.\.(\d+)\}")


class TarSource:
    """The pictures of tar files, in the files' order and, within each, in the order of its members.

    `shards` is a tar file, a folder of them, a pattern (`set-*.tar`, `set-{000..127}.tar`), or several of these.
    A picture is a member with a picture's extension. Its label is the number in the member of the same name with
    the extension .cls, WebDataset's layout; without any such member in all shards, it is the top-level folder of
    the member's name, and pictures without a folder have none.

    Each shard is read through once for the places of its members, and the list kept between runs while the shard
    has the same size and time; pictures are then read by offset. Of a shard that ends in the middle, the pictures
    before the damage are used, and the log says so.

    Raises UserError when there is no shard, one cannot be read or is compressed, and when there are no pictures.
    """

    def __init__(self, shards: str | os.PathLike[str] | Sequence[str | os.PathLike[str]]) -> None:
        given = [shards] if isinstance(shards, (str, os.PathLike)) else list(shards)
        self.shards = [shard for one in given for shard in _expand(os.fspath(one))]
        indexes = [_index(shard) for shard in self.shards]
        counts = [len(index.offsets) for index in indexes]
        if sum(counts) == 0:
            shards_said = ", ".join(self.shards[:3]) + (" ..." if len(self.shards) > 3 else "")
            raise UserError(f"No pictures in {shards_said}: looked for {', '.join('.' + e for e in EXTENSIONS)}.")
        self._file = np.repeat(np.arange(len(counts), dtype=np.int32), counts)
        self._offset = np.concatenate([index.offsets for index in indexes])
        self._size = np.concatenate([index.sizes for index in indexes])
        self._names = b"".join(index.names for index in indexes)
        self._ends = np.cumsum(np.concatenate([index.lengths for index in indexes]), dtype=np.int64)
        self.classes, self._labels = _classes(indexes, self._all_names())

    def __len__(self) -> int:
        return len(self._offset)

    def read(self, index: int) -> bytes:
        check_index(index, len(self))
        size = int(self._size[index])
        with open(self.shards[self._file[index]], "rb", buffering=0) as shard:
            data = os.pread(shard.fileno(), size, int(self._offset[index]))
        if len(data) < size:
            raise OSError("the shard ends before the picture does")
        return data

    def name(self, index: int) -> str:
        """The shard's file name, a slash and the member's name."""
        check_index(index, len(self))
        return f"{os.path.basename(self.shards[self._file[index]])}/{self._member(index)}"

    def label(self, index: int) -> int:
        return int(self._labels[index])

    def files(self) -> FileTable:
        """Where its pictures lie on disk."""
        paths = [os.fsencode(shard) for shard in self.shards]
        ends = np.cumsum([len(path) for path in paths], dtype=np.int64)
        return FileTable(b"", b"".join(paths), ends, self._file, self._offset, self._size)

    def _member(self, index: int) -> str:
        start = int(self._ends[index - 1]) if index else 0
        return self._names[start : int(self._ends[index])].decode(errors="backslashreplace")

    def _all_names(self) -> Iterator[str]:
        return (self._member(index) for index in range(len(self)))


class _Index(NamedTuple):
    """One shard's pictures."""

    names: bytes
    lengths: npt.NDArray[np.int64]
    offsets: npt.NDArray[np.int64]
    sizes: npt.NDArray[np.int64]
    numbers: npt.NDArray[np.int64]
    """What their .cls members say, -1 for none."""


def _expand(given: str) -> list[str]:
    match = _RANGE.search(given)
    if match:
        first, last = match.groups()
        numbers = range(int(first), int(last) + 1)
        names = [f"{given[: match.start()]}{number:0{len(first)}}{given[match.end() :]}" for number in numbers]
        return [shard for name in names for shard in _expand(name)]
    if os.path.isdir(given):
        shards = [str(path) for path in Path(given).iterdir() if path.suffix == ".tar"]
    elif os.path.exists(given):
        shards = [given]
    else:
        shards = glob.glob(given)
    if not shards:
        raise UserError(f"There is no tar file {given}: give a file, a folder of them or a pattern.")
    return sorted(shards, key=natural)


def _index(shard: str) -> _Index:
    try:
        status = os.stat(shard)
    except OSError as error:
        raise UserError(f"The shard {shard} cannot be read: {error.strerror}.") from error
    subject = f"{os.path.abspath(shard)}\0{status.st_size}\0{status.st_mtime_ns}"
    kept = cache.load("tar", subject)
    if kept is not None and all(field in kept for field in _Index._fields):
        return _Index(kept["names"].tobytes(), *(kept[field] for field in _Index._fields[1:]))
    index, complete = _read_through(shard)
    if complete:
        names = np.frombuffer(index.names, dtype=np.uint8)
        cache.store("tar", subject, {**index._asdict(), "names": names})
    return index


def _read_through(shard: str) -> tuple[_Index, bool]:
    """The shard's pictures, and whether it was whole."""
    names: list[bytes] = []
    places: list[tuple[int, int]] = []
    keys: list[str] = []
    numbers: dict[str, int] = {}
    complete = True
    try:
        with tarfile.open(shard, "r:") as tar, open(shard, "rb", buffering=0) as raw:
            size = os.fstat(raw.fileno()).st_size
            while (member := tar.next()) is not None:
                tar.members = []  # type: ignore[attr-defined]  # tarfile would keep an object a member
                key, extension = _split(member.name)
                if not member.isreg():
                    continue
                if member.offset_data + member.size > size:
                    raise tarfile.ReadError("unexpected end of data")
                if extension in EXTENSIONS:
                    names.append(os.fsencode(member.name))
                    places.append((member.offset_data, member.size))
                    keys.append(key)
                elif extension == "cls":
                    numbers[key] = _number(os.pread(raw.fileno(), min(member.size, 32), member.offset_data))
            # For tarfile, what is no header is the end as well. The true one is a block of zeros, or the file's end.
            if any(os.pread(raw.fileno(), tarfile.BLOCKSIZE, tar.offset)):
                raise tarfile.ReadError("bad header")
    except tarfile.TarError as error:
        if not places:
            raise UserError(f"{shard} is no tar file, or a compressed one: give plain .tar files ({error}).") from error
        _log.warning("%s is damaged after %d pictures (%s): the rest of it is left out", shard, len(places), error)
        complete = False
    except OSError as error:
        raise UserError(f"The shard {shard} cannot be read: {error.strerror or error}.") from error
    offsets, sizes = np.array(places, dtype=np.int64).reshape(-1, 2).T
    lengths = np.array([len(name) for name in names], dtype=np.int64)
    said = np.array([numbers.get(key, -1) for key in keys], dtype=np.int64)
    return _Index(b"".join(names), lengths, offsets.copy(), sizes.copy(), said), complete


def _split(member: str) -> tuple[str, str]:
    """A WebDataset key, the name up to its first dot, and the last extension."""
    folder, slash, base = member.rpartition("/")
    return folder + slash + base.partition(".")[0], base.rpartition(".")[2].lower()


def _number(text: bytes) -> int:
    try:
        return max(int(text), -1)
    except ValueError:
        return -1


def _classes(indexes: Sequence[_Index], names: Iterator[str]) -> tuple[list[str], npt.NDArray[np.int32]]:
    """Class names, and the position in them of each picture."""
    numbers = np.concatenate([index.numbers for index in indexes])
    if (numbers >= 0).any():
        known = np.unique(numbers[numbers >= 0])
        labels = np.where(numbers >= 0, np.searchsorted(known, numbers), -1).astype(np.int32)
        return [str(number) for number in known], labels
    tops = [name.removeprefix("./").partition("/") for name in names]
    classes = sorted({top for top, slash, _ in tops if slash}, key=natural)
    place = {name: label for label, name in enumerate(classes)}
    return classes, np.array([place[top] if slash else -1 for top, slash, _ in tops], dtype=np.int32)
