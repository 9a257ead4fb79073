"""Pictures in tar shards, as WebDataset writes them."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from fastdino.data.sources.protocol import EXTENSIONS, FileTable, check_index, check_size, printable
from fastdino.data.sources.scan import natural
from fastdino.data.sources.tar_index import Index, classes_of, index_of
from fastdino.errors import UserError

_RANGE = re.compile(r"\{(\d+)\.\.(\d+)\}")


class TarMembers:
    """What the indexes of some shards say together: a `Source` without its `read`.

    A picture is a member with a picture's extension. Its label is the number in the member of the same name with
    the extension .cls, WebDataset's layout; without any such member in all shards, it is the top-level folder of
    the member's name, and pictures without a folder have none.

    Raises UserError when there are no pictures.
    """

    def __init__(self, shards: Sequence[str], indexes: Sequence[Index]) -> None:
        self.shards = list(shards)
        counts = [len(index.offsets) for index in indexes]
        if sum(counts) == 0:
            shards_said = ", ".join(self.shards[:3]) + (" ..." if len(self.shards) > 3 else "")
            raise UserError(f"No pictures in {shards_said}: looked for {', '.join('.' + e for e in EXTENSIONS)}.")
        self._file = np.repeat(np.arange(len(counts), dtype=np.int32), counts)
        self._offset = np.concatenate([index.offsets for index in indexes])
        self._size = np.concatenate([index.sizes for index in indexes])
        self._names = np.concatenate([index.names for index in indexes])
        self._ends = np.cumsum(np.concatenate([index.lengths for index in indexes]), dtype=np.int64)
        self.classes, self._labels = classes_of(indexes)

    def __len__(self) -> int:
        return len(self._offset)

    def name(self, index: int) -> str:
        """The shard's file name, a slash and the member's name."""
        check_index(index, len(self))
        start = int(self._ends[index - 1]) if index else 0
        shard = os.fsencode(os.path.basename(self.shards[self._file[index]]))
        return printable(shard + b"/" + self._names[start : int(self._ends[index])].tobytes())

    def label(self, index: int) -> int:
        return int(self._labels[index])


class TarSource(TarMembers):
    """The pictures of tar files, in the files' order and, within each, in the order of its members.

    `shards` is a tar file, a folder of them, a pattern (`set-*.tar`, `set-{000..127}.tar`), or several of these.

    Each shard is read through once for the places of its members, and the list kept between runs while the shard
    has the same size and time; pictures are then read by offset. Of a shard that ends in the middle, the pictures
    before the damage are used, and the log says so.

    Raises UserError when there is no shard, one cannot be read or is compressed, and when there are no pictures.
    """

    def __init__(self, shards: str | os.PathLike[str] | Sequence[str | os.PathLike[str]]) -> None:
        given = [shards] if isinstance(shards, (str, os.PathLike)) else list(shards)
        paths = [path for one in given for path in _local_shards(os.fspath(one))]
        super().__init__(paths, [_index(path) for path in paths])

    def read(self, index: int) -> bytes:
        check_index(index, len(self))
        size = int(self._size[index])
        check_size(size)
        with open(self.shards[self._file[index]], "rb", buffering=0) as shard:
            data = os.pread(shard.fileno(), size, int(self._offset[index]))
        if len(data) < size:
            raise OSError("the shard ends before the picture does")
        return data

    def files(self) -> FileTable:
        """Where its pictures lie on disk."""
        paths = [os.fsencode(shard) for shard in self.shards]
        ends = np.cumsum([len(path) for path in paths], dtype=np.int64)
        return FileTable(b"", b"".join(paths), ends, self._file, self._offset, self._size)


def expanded(given: str) -> Iterator[str]:
    """`set-{08..11}.tar` as set-08.tar, set-09.tar, ...; anything else as it is."""
    match = _RANGE.search(given)
    if match is None:
        yield given
        return
    first, last = match.groups()
    for number in range(int(first), int(last) + 1):
        yield from expanded(f"{given[: match.start()]}{number:0{len(first)}}{given[match.end() :]}")


def _local_shards(given: str) -> list[str]:
    return [shard for name in expanded(given) for shard in _matching(name)]


def _matching(given: str) -> list[str]:
    if os.path.isdir(given):
        shards = [str(path) for path in Path(given).iterdir() if path.suffix == ".tar"]
    elif os.path.exists(given):
        shards = [given]
    else:
        shards = glob.glob(given)
    if not shards:
        raise UserError(f"There is no tar file {given}: give a file, a folder of them or a pattern.")
    return sorted(shards, key=natural)


def _index(shard: str) -> Index:
    try:
        status = os.stat(shard)
    except OSError as error:
        raise UserError(f"The shard {shard} cannot be read: {error.strerror}.") from error
    subject = f"{os.path.abspath(shard)}\0{status.st_size}\0{status.st_mtime_ns}"
    # Unbuffered: of a shard on a disk only the headers are read.
    return index_of(subject, status.st_size, shard, lambda: open(shard, "rb", buffering=0))
