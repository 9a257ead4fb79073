"""Pictures as tar files: which goes where, and the same bytes every time."""

from __future__ import annotations

import tarfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

from fastdino.errors import UserError
from fastdino.evaluate.features import none_readable
from fastdino.files import atomic_path
from fastdino.prepare.manifest import Shard


@dataclass(frozen=True)
class Packed:
    """What became of picture `index`, called `name` in the data set: its members, or the reason why it has none.

    `how` says how its file was made; `bytes_before` is the original's length.
    """

    index: int
    name: str
    members: list[tuple[tarfile.TarInfo, bytes]]
    how: str = ""
    bytes_before: int = 0
    why_not: str = ""

    @property
    def size(self) -> int:
        """Bytes that the members take in a tar file: headers, and whole blocks."""
        block = tarfile.BLOCKSIZE
        return sum(len(info.tobuf(tarfile.PAX_FORMAT)) + -(-len(data) // block) * block for info, data in self.members)


def member(name: str, data: bytes) -> tuple[tarfile.TarInfo, bytes]:
    """A tar member; owner and time stay 0, so that the same pictures give the same bytes."""
    info = tarfile.TarInfo(name)
    info.size = len(data)
    return info, data


def numbered(pictures: Iterable[Packed], first: int, megabytes: int) -> Iterator[tuple[int, Packed]]:
    """Each picture with the number of its shard: the current one as long as it has room, or nothing in it."""
    room = megabytes * 1_000_000 - tarfile.RECORDSIZE  # the end of a tar file is padded to a whole record
    number, filled = first, 0
    for picture in pictures:
        if filled and filled + picture.size > room:
            number, filled = number + 1, 0
        filled += picture.size
        yield number, picture


def write_shard(folder: Path, shard: Shard, pictures: Iterable[Packed]) -> None:
    """Write the shard's file, whole or not at all, and fill in what `shard` says of it.

    Raises UserError when none of the pictures has members, and OSError when they cannot be written.
    """
    with atomic_path(folder / shard.name) as temporary:
        with tarfile.open(temporary, "w", format=tarfile.PAX_FORMAT) as tar:
            for picture in pictures:
                shard.end = picture.index + 1
                if not picture.members:
                    shard.skipped[picture.name] = picture.why_not
                    continue
                for info, data in picture.members:
                    tar.addfile(info, BytesIO(data))
                shard.pictures += 1
                shard.bytes_before += picture.bytes_before
                shard.transcoded += picture.how == "transcoded"
                shard.shrunk += picture.how == "shrunk"
        if not shard.pictures:
            raise UserError(none_readable(shard.skipped))
        shard.size = temporary.stat().st_size
