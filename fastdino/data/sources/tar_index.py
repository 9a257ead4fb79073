"""Where the pictures of a tar file lie in it.

Headers come from strangers: what they say of sizes and places is believed only within the file's own size, nothing is
unpacked, and a member's name is a name to show, never a path.
"""

from __future__ import annotations

import logging
import os
import tarfile
from collections.abc import Callable, Sequence
from typing import IO, NamedTuple

import numpy as np
import numpy.typing as npt

from fastdino.data.sources import cache
from fastdino.data.sources.protocol import EXTENSIONS
from fastdino.data.sources.scan import natural
from fastdino.errors import UserError

_log = logging.getLogger(__name__)
# A long name or a table of attributes takes a few thousand; tarfile would ask for as many as the header claims.
_MOST_HEADER_BYTES = 1 << 20


class Index(NamedTuple):
    """One tar file's pictures, as arrays: millions of small objects would cost gigabytes."""

    names: npt.NDArray[np.uint8]
    """The members' names, one after another."""
    lengths: npt.NDArray[np.int64]
    offsets: npt.NDArray[np.int64]
    sizes: npt.NDArray[np.int64]
    numbers: npt.NDArray[np.int64]
    """What their .cls members say, -1 for none."""
    folders: npt.NDArray[np.uint8]
    """The different top-level folders, one after another, each with a zero byte behind it."""
    in_folder: npt.NDArray[np.int32]
    """Which of these each picture is in, -1 for none."""


def index_of(subject: str, size: int, said: str, opened: Callable[[], IO[bytes]]) -> Index:
    """The index that was kept for `subject`, or one made by reading through the file of `size` bytes.

    `said` is what the user knows the file by. Raises UserError if it is no tar file or cannot be read.
    """
    kept = cache.load("tar", subject)
    if kept is not None and all(field in kept for field in Index._fields):
        index = Index(*(kept[field] for field in Index._fields))
        if _fits(index, size):
            return index
    try:
        with opened() as file:
            index, complete = read_through(file, size, said)
    except OSError as error:
        raise UserError(f"The shard {said} cannot be read: {error.strerror or error}.") from error
    if complete:
        cache.store("tar", subject, index._asdict())
    return index


def read_through(file: IO[bytes], size: int, said: str) -> tuple[Index, bool]:
    """The file's pictures, and whether it was whole. Raises UserError for a file without one good header."""
    found = _Found()
    complete = True
    try:
        with tarfile.open(fileobj=_Forward(file), mode="r:") as tar:  # type: ignore[call-overload]
            while (member := tar.next()) is not None:
                tar.members = []  # tarfile would keep an object a member
                if not member.isreg() or member.issparse():
                    continue
                if not 0 <= member.size <= size - member.offset_data:
                    raise tarfile.ReadError("unexpected end of data")
                found.take(member, file)
            # For tarfile, what is no header is the end as well. The true one is a block of zeros, or the file's end.
            file.seek(tar.offset)
            if any(file.read(tarfile.BLOCKSIZE)):
                raise tarfile.ReadError("bad header")
    except (OSError, UserError):
        raise
    # Headers made to harm can raise anything, RecursionError included.
    except Exception as error:
        if not found.places:
            raise UserError(f"{said} is no tar file, or a compressed one: give plain .tar files ({error}).") from error
        _log.warning("%s is damaged after %d pictures (%s): the rest of it is left out", said, len(found.places), error)
        complete = False
    return found.index(), complete


def classes_of(indexes: Sequence[Index]) -> tuple[list[str], npt.NDArray[np.int32]]:
    """Class names, and the position in them of each picture: by the numbers, or, if there are none, by the folders."""
    numbers = np.concatenate([index.numbers for index in indexes])
    if (numbers >= 0).any():
        known = np.unique(numbers[numbers >= 0])
        labels = np.where(numbers >= 0, np.searchsorted(known, numbers), -1).astype(np.int32)
        return [str(number) for number in known], labels
    folders = [[os.fsdecode(name) for name in index.folders.tobytes().split(b"\0")[:-1]] for index in indexes]
    classes = sorted({name for names in folders for name in names}, key=natural)
    place = {name: label for label, name in enumerate(classes)}
    labels_of = [
        # The last one is what -1 finds.
        np.array([*(place[name] for name in names), -1], dtype=np.int32)[index.in_folder]
        for names, index in zip(folders, indexes, strict=True)
    ]
    return classes, np.concatenate(labels_of)


class _Found:
    """What has been read of a tar file so far."""

    def __init__(self) -> None:
        self.names: list[bytes] = []
        self.places: list[tuple[int, int]] = []
        self.keys: list[str] = []
        self.folders: dict[str, int] = {}
        self.in_folder: list[int] = []
        self.numbers: dict[str, int] = {}

    def take(self, member: tarfile.TarInfo, file: IO[bytes]) -> None:
        """Note a member if it is a picture or a picture's class."""
        key, extension = _split(member.name)
        if extension in EXTENSIONS:
            self.names.append(os.fsencode(member.name))
            self.places.append((member.offset_data, member.size))
            self.keys.append(key)
            top, slash, _ = member.name.removeprefix("./").partition("/")
            in_one = slash and top not in ("", ".", "..")
            self.in_folder.append(self.folders.setdefault(top, len(self.folders)) if in_one else -1)
        elif extension == "cls":
            file.seek(member.offset_data)
            self.numbers[key] = _number(file.read(min(member.size, 32)))

    def index(self) -> Index:
        offsets, sizes = np.array(self.places, dtype=np.int64).reshape(-1, 2).T
        return Index(
            np.frombuffer(b"".join(self.names), dtype=np.uint8),
            np.array([len(name) for name in self.names], dtype=np.int64),
            offsets.copy(),
            sizes.copy(),
            np.array([self.numbers.get(key, -1) for key in self.keys], dtype=np.int64),
            np.frombuffer(b"".join(os.fsencode(name) + b"\0" for name in self.folders), dtype=np.uint8),
            np.array(self.in_folder, dtype=np.int32),
        )


class _Forward:
    """The file as tarfile reads it: forward only, and no more at a time than a header takes.

    A header can claim a negative size, after which tarfile would go in circles, or one beyond any memory.
    """

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= _MOST_HEADER_BYTES:
            raise tarfile.ReadError(f"a header of {size} bytes")
        return self._file.read(size)

    def seek(self, offset: int) -> None:
        if offset < self.tell():
            raise tarfile.ReadError("a member of negative size")
        self._file.seek(offset)

    def tell(self) -> int:
        return self._file.tell()


def _fits(index: Index, size: int) -> bool:
    """Whether an index read from disk names places within a file of `size` bytes and nothing else."""
    pictures = len(index.offsets)
    folders = int((index.folders == 0).sum())
    return (
        all(len(array) == pictures for array in (index.lengths, index.sizes, index.numbers, index.in_folder))
        and all(array.dtype == np.int64 for array in (index.lengths, index.offsets, index.sizes, index.numbers))
        and bool((index.lengths >= 0).all())
        and int(index.lengths.sum()) == len(index.names)
        and bool(((index.offsets >= 0) & (index.sizes >= 0) & (index.sizes <= size - index.offsets)).all())
        and bool(((index.in_folder >= -1) & (index.in_folder < folders)).all())
    )


def _split(member: str) -> tuple[str, str]:
    """A WebDataset key, the name up to its first dot, and the last extension."""
    folder, slash, base = member.rpartition("/")
    return folder + slash + base.partition(".")[0], base.rpartition(".")[2].lower()


def _number(text: bytes) -> int:
    try:
        return max(int(text), -1)
    except ValueError:
        return -1
