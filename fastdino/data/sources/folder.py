"""Pictures in folders."""

from __future__ import annotations

import logging
import os
import re
from collections import Counter, deque
from pathlib import Path
from typing import NamedTuple

import numpy as np

from fastdino.data.sources.protocol import EXTENSIONS, FileTable, check_index
from fastdino.errors import UserError

_log = logging.getLogger(__name__)


class FolderSource:
    """The pictures in a folder and everything below it, in natural order (2.jpg before 10.jpg), folder by
    folder.

    Hidden files and folders are skipped. Links are followed; a folder that is reachable in several ways is
    used once, which also ends loops. The label of a picture is the top-level folder that it is in; pictures
    directly in the root have none, so a flat folder has no classes. Files that appear after the scan are not
    seen.

    Raises UserError when the folder is missing, not a folder, not readable or without pictures.
    """

    def __init__(self, root: str | os.PathLike[str]) -> None:
        self.root = Path(root)
        found = _scan(self.root)
        tops = {folder[0] for folder in found if folder}
        self.classes = sorted(tops, key=_natural)
        number = {name: label for label, name in enumerate(self.classes)}
        names: list[bytes] = []
        labels: list[int] = []
        for folder in sorted(found, key=lambda parts: [_natural(part) for part in parts]):
            names.extend(os.fsencode("/".join((*folder, file))) for file in found[folder])
            labels.extend([number[folder[0]] if folder else -1] * len(found[folder]))
        # One buffer instead of a list: millions of small objects cost gigabytes, and worker processes copy
        # them page by page as soon as reference counts change.
        self._names = b"".join(names)
        self._ends = np.cumsum([len(name) for name in names], dtype=np.int64)
        self._labels = np.array(labels, dtype=np.int32)

    def __len__(self) -> int:
        return len(self._ends)

    def read(self, index: int) -> bytes:
        with open(os.path.join(os.fsencode(self.root), self._raw_name(index)), "rb") as file:
            return file.read()

    def name(self, index: int) -> str:
        """Path below the root, with slashes; bytes that are not UTF-8 are shown escaped."""
        return self._raw_name(index).decode(errors="backslashreplace")

    def label(self, index: int) -> int:
        return int(self._labels[index])

    def files(self) -> FileTable:
        """Where its pictures lie on disk."""
        return FileTable(os.fsencode(self.root), self._names, self._ends)

    def _raw_name(self, index: int) -> bytes:
        check_index(index, len(self))
        start = int(self._ends[index - 1]) if index else 0
        return self._names[start : int(self._ends[index])]


class _Listing(NamedTuple):
    pictures: list[str]
    folders: list[str]
    linked_folders: list[str]


def _scan(root: Path) -> dict[tuple[str, ...], list[str]]:
    """Picture names in natural order, by the parts of their folder's path below `root`."""
    found: dict[tuple[str, ...], list[str]] = {}
    others: Counter[str] = Counter()
    visited: set[tuple[int, int]] = set()
    _check(root)
    # Real folders before links, so that a link to a folder below the root never takes that folder's pictures
    # (and their label) away from it.
    folders: deque[tuple[str, ...]] = deque([()])
    links: deque[tuple[str, ...]] = deque()
    while folders or links:
        parts = folders.popleft() if folders else links.popleft()
        listing = _list(root, parts, visited, others)
        if listing.pictures:
            found[parts] = sorted(listing.pictures, key=_natural)
        folders.extend((*parts, name) for name in listing.folders)
        links.extend((*parts, name) for name in listing.linked_folders)
    if not found:
        raise UserError(
            f"No pictures in {root}: looked for {', '.join('.' + name for name in EXTENSIONS)} "
            f"in it and below, and found {_inventory(others)}."
        )
    return found


def _list(
    root: Path,
    parts: tuple[str, ...],
    visited: set[tuple[int, int]],
    others: Counter[str],
) -> _Listing:
    listing = _Listing([], [], [])
    folder = root.joinpath(*parts)
    try:
        status = folder.stat()
        if (status.st_dev, status.st_ino) in visited:
            return listing
        visited.add((status.st_dev, status.st_ino))
        with os.scandir(folder) as entries:
            for entry in entries:
                if not entry.name.startswith("."):
                    _sort_in(entry, listing, others)
    except OSError as error:
        if not parts:
            raise UserError(f"The folder {root} cannot be read ({error.strerror}): check its permissions.") from error
        # lost+found, or a folder that vanished: nothing that should keep the rest from training.
        _log.warning("folder %s left out: %s", folder, error.strerror)
    listing.linked_folders.sort(key=_natural)
    return listing


def _sort_in(entry: os.DirEntry[str], listing: _Listing, others: Counter[str]) -> None:
    if entry.is_dir(follow_symlinks=False):
        listing.folders.append(entry.name)
    elif entry.is_dir():
        listing.linked_folders.append(entry.name)
    elif entry.is_file():
        extension = os.path.splitext(entry.name)[1][1:].lower()
        if extension in EXTENSIONS:
            listing.pictures.append(entry.name)
        else:
            others[extension] += 1


def _check(root: Path) -> None:
    try:
        if not root.exists():
            raise UserError(f"There is no folder {root}: give the folder that holds the pictures.")
        if not root.is_dir():
            raise UserError(f"{root} is a file: give the folder that holds the pictures.")
    except OSError as error:
        raise UserError(f"The folder {root} cannot be read ({error.strerror}): check its permissions.") from error


def _natural(name: str) -> tuple[list[str | int], str]:
    pieces: list[str | int] = list(re.split(r"(\d+)", name.casefold()))
    pieces[1::2] = [int(digits) for digits in pieces[1::2]]
    return pieces, name


def _inventory(others: Counter[str]) -> str:
    if not others:
        return "no files"
    ranked = sorted(others.items(), key=lambda item: (-item[1], item[0] or "~"))
    kinds = [f"{count} {'.' + name if name else 'without extension'}" for name, count in ranked[:3]]
    rest = sum(count for _, count in ranked[3:])
    return "only " + ", ".join(kinds + ([f"{rest} others"] if rest else []))
