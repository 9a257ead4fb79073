"""What the pictures of a data set are called in its shards (WebDataset's layout)."""

from __future__ import annotations

import os
from hashlib import blake2b

import numpy as np

from fastdino.data.sources import Source

_HASH_BYTES = 8


class Members:
    """The names of a source's pictures as members of tar files, and a fingerprint of the source.

    A sample is the files that share a name up to the first dot of its last part, so other dots become "_", and a name
    that is taken already gets "-2", "-3", ... The top folder is the picture's class; a class that the source knows by
    other means becomes that folder or, if it is a number, a .cls file beside the picture. Names are hashed in one pass,
    8 bytes each, so that a clash between any two of them is found.
    """

    def __init__(self, source: Source) -> None:
        self._source = source
        fingerprint = blake2b(digest_size=16)
        hashes = np.empty(len(source), dtype=np.uint64)
        for index in range(len(source)):
            fingerprint.update(f"{source.name(index)}\0{source.label(index)}\0".encode())
            hashes[index] = _hash(self._plain_key(index))
        self.fingerprint = fingerprint.hexdigest()
        """Changes when the pictures' names, labels or order do."""
        self._renamed = self._resolve_clashes(hashes)

    def picture(self, index: int, ending: str | None = None) -> str:
        """The picture's member name, with its own ending in lower case or with another."""
        own = os.path.splitext(self._source.name(index))[1][1:].lower()
        return f"{self._key(index)}.{ending or own}"

    def class_file(self, index: int) -> tuple[str, bytes] | None:
        """Name and content of the member that says the class, where the folder does not."""
        name = self._class(index)
        if name is None or not name.isdecimal() or self._path(index).startswith(f"{name}/"):
            return None
        return f"{self._key(index)}.cls", name.encode()

    def _key(self, index: int) -> str:
        return self._renamed.get(index) or self._plain_key(index)

    def _plain_key(self, index: int) -> str:
        path, name = self._path(index), self._class(index)
        folder, slash, last = path.rpartition("/")
        key = folder + slash + os.path.splitext(last)[0].replace(".", "_")
        belongs = name is None or name.isdecimal() or path.startswith(f"{name}/")
        return key if belongs else f"{name}/{key}"

    def _class(self, index: int) -> str | None:
        label = self._source.label(index)
        return self._source.classes[label] if label >= 0 else None

    def _path(self, index: int) -> str:
        """The picture's name, without the shard that it comes from."""
        name = self._source.name(index)
        shard, tar, member = name.partition(".tar/")
        path = member if tar and self._class(index) != f"{shard}.tar" else name
        # What a stranger's tar file calls "../../x" must not leave the folder that ours is unpacked in.
        return "/".join(part for part in path.split("/") if part not in ("", ".", ".."))

    def _resolve_clashes(self, hashes: np.ndarray) -> dict[int, str]:
        order = np.argsort(hashes, kind="stable")
        again = np.sort(order[1:][hashes[order[1:]] == hashes[order[:-1]]])
        taken, renamed = set(), {}
        known = hashes[order]
        for index in again.tolist():
            number, key = 2, self._plain_key(index)
            while _holds(known, _hash(f"{key}-{number}")) or f"{key}-{number}" in taken:
                number += 1
            renamed[index] = f"{key}-{number}"
            taken.add(renamed[index])
        return renamed


def _hash(key: str) -> int:
    return int.from_bytes(blake2b(key.encode(), digest_size=_HASH_BYTES).digest(), "little")


def _holds(sorted_hashes: np.ndarray, value: int) -> bool:
    wanted = np.uint64(value)
    position = int(np.searchsorted(sorted_hashes, wanted))
    return position < len(sorted_hashes) and bool(sorted_hashes[position] == wanted)
