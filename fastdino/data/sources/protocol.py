"""What a source of pictures is."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

# Beyond this no file is a picture: one that claims to be must not fill the memory.
MOST_BYTES = 1 << 30
EXTENSIONS = ("jpg", "jpeg", "png", "webp", "tif", "tiff", "bmp", "gif", "ppm")


@runtime_checkable
class Source(Protocol):
    """Pictures by number. An implementation must survive pickling, because worker processes receive a copy, and being
    read by several threads at once.

    Three things may be added: a method `files() -> FileTable | None`, with which pictures are read without Python;
    `sequential = True` for what can only be read from its beginning to its end (see `IterableSource`); and a method
    `announce(indices, anew)`, which is told what will be read soon (see `RemoteTarSource`).
    """

    classes: list[str]
    """Class names in the order of their labels, empty where there are none."""

    def __len__(self) -> int:
        """Number of pictures."""
        ...

    def read(self, index: int) -> bytes:
        """The picture's file, undecoded. Raises OSError when it cannot be had; the loader then skips it."""
        ...

    def name(self, index: int) -> str:
        """What the user knows the picture by, unique within the source."""
        ...

    def label(self, index: int) -> int:
        """Position in `classes`, or -1 for none."""
        ...


class FileTable(NamedTuple):
    """Where a source's pictures lie on disk, so that they can be read without Python.

    `file`, `offset` and `size` are None together: then picture i is file i, whole.
    """

    root: bytes
    """Folder that the names are relative to, joined with "/"; empty where the names stand for themselves."""
    names: bytes
    """File names as the operating system wants them, one after another, without separator."""
    ends: npt.NDArray[np.int64]
    """(files,): names[ends[i - 1] : ends[i]] is file i."""
    file: npt.NDArray[np.int32] | None = None
    """(pictures,): the file that holds picture i."""
    offset: npt.NDArray[np.int64] | None = None
    """(pictures,): where in its file picture i starts, in bytes."""
    size: npt.NDArray[np.int64] | None = None
    """(pictures,): length of picture i in bytes."""

    def file_name(self, file: int) -> bytes:
        """Path of a file by its number."""
        name = self.names[int(self.ends[file - 1]) if file else 0 : int(self.ends[file])]
        return self.root + b"/" + name if self.root else name


def file_table(source: Source) -> FileTable | None:
    """Where the source's pictures lie on disk, None for a source that does not say."""
    files = getattr(source, "files", None)
    table: FileTable | None = files() if files is not None else None
    return table


def check_index(index: int, count: int) -> None:
    """Raise IndexError for a picture that does not exist: negative numbers do not count from the end."""
    if not 0 <= index < count:
        raise IndexError(f"picture {index} of {count}")


def check_size(size: int) -> None:
    """Raise OSError for a file of more than MOST_BYTES."""
    if size > MOST_BYTES:
        raise OSError("larger than 1 GiB")


def announcing(source: Source) -> Callable[[npt.NDArray[np.int64], bool], None] | None:
    """The `announce` of a source that has one."""
    return getattr(source, "announce", None)


def printable(raw: bytes) -> str:
    """A file's name as it may be shown: what is no UTF-8, and what would steer a terminal, is escaped."""
    name = raw.decode(errors="backslashreplace")
    if name.isprintable():
        return name
    return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in name)
