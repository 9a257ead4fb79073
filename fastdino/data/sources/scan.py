"""The pictures below a folder: one pass over the directory entries, in natural order."""

from __future__ import annotations

import logging
import os
import re
from collections import Counter, deque
from pathlib import Path
from typing import NamedTuple

from fastdino.data.sources.protocol import EXTENSIONS
from fastdino.errors import UserError

_log = logging.getLogger(__name__)
_EXTENSIONS = frozenset(EXTENSIONS)
_NUMBER = re.compile(r"(\d+)")


class Scan(NamedTuple):
    """What a folder holds."""

    pictures: dict[tuple[str, ...], list[str]]
    """Picture names in natural order, by the parts of their folder's path below the root."""
    folders: dict[tuple[str, ...], int]
    """Every folder that was listed, and when it last changed (st_mtime_ns) before it was."""


def scan(root: Path) -> Scan:
    """Raises UserError when the root is missing, not a folder, not readable or without pictures."""
    result = Scan({}, {})
    others: Counter[str] = Counter()
    visited: set[tuple[int, int]] = set()
    check_folder(root)
    # Real folders before links, so that a link to a folder below the root never takes that folder's pictures
    # (and their label) away from it.
    folders: deque[tuple[str, ...]] = deque([()])
    links: deque[tuple[str, ...]] = deque()
    while folders or links:
        parts = folders.popleft() if folders else links.popleft()
        listing = _list(root, parts, visited, others, result.folders)
        if listing.pictures:
            result.pictures[parts] = sorted(listing.pictures, key=natural)
        folders.extend((*parts, name) for name in listing.folders)
        links.extend((*parts, name) for name in listing.linked_folders)
    if not result.pictures:
        raise UserError(
            f"No pictures in {root}: looked for {', '.join('.' + name for name in EXTENSIONS)} "
            f"in it and below, and found {_inventory(others)}."
        )
    return result


def check_folder(root: Path) -> None:
    """Raises UserError when the root is missing, not a folder or cannot be looked at."""
    try:
        if not root.exists():
            raise UserError(f"There is no folder {root}: give the folder that holds the pictures.")
        if not root.is_dir():
            raise UserError(f"{root} is a file: give the folder that holds the pictures.")
    except OSError as error:
        raise UserError(f"The folder {root} cannot be read ({error.strerror}): check its permissions.") from error


def natural(name: str) -> tuple[list[str | int], str]:
    """Sorts 2.jpg before 10.jpg, and upper case with lower case."""
    pieces: list[str | int] = _NUMBER.split(name.casefold())
    pieces[1::2] = map(int, pieces[1::2])
    return pieces, name


class _Listing(NamedTuple):
    pictures: list[str]
    folders: list[str]
    linked_folders: list[str]


def _list(
    root: Path,
    parts: tuple[str, ...],
    visited: set[tuple[int, int]],
    others: Counter[str],
    changed: dict[tuple[str, ...], int],
) -> _Listing:
    listing = _Listing([], [], [])
    folder = root.joinpath(*parts)
    try:
        status = folder.stat()
        if (status.st_dev, status.st_ino) in visited:
            return listing
        visited.add((status.st_dev, status.st_ino))
        changed[parts] = status.st_mtime_ns
        with os.scandir(folder) as entries:
            for entry in entries:
                name = entry.name
                if not name.startswith("."):
                    _sort_in(entry, name, listing, others)
    except OSError as error:
        if not parts:
            raise UserError(f"The folder {root} cannot be read ({error.strerror}): check its permissions.") from error
        # lost+found, or a folder that vanished: nothing that should keep the rest from training.
        _log.warning("folder %s left out: %s", folder, error.strerror)
    listing.linked_folders.sort(key=natural)
    return listing


def _sort_in(entry: os.DirEntry[str], name: str, listing: _Listing, others: Counter[str]) -> None:
    extension = name.rpartition(".")[2].lower()
    if extension in _EXTENSIONS and "." in name and entry.is_file():
        listing.pictures.append(name)
    elif entry.is_dir(follow_symlinks=False):
        listing.folders.append(name)
    elif entry.is_dir():
        listing.linked_folders.append(name)
    elif entry.is_file():
        others[extension if "." in name else ""] += 1


def _inventory(others: Counter[str]) -> str:
    if not others:
        return "no files"
    ranked = sorted(others.items(), key=lambda item: (-item[1], item[0] or "~"))
    kinds = [f"{count} {'.' + name if name else 'without extension'}" for name, count in ranked[:3]]
    rest = sum(count for _, count in ranked[3:])
    return "only " + ", ".join(kinds + ([f"{rest} others"] if rest else []))
