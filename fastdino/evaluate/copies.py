"""Which picture is a copy of which: Copydays, and folders of one's own laid out like it."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from fastdino.data.sources import FolderSource, Source, Subset
from fastdino.errors import UserError

ORIGINALS = "original"
# Copydays numbers its originals 200000, 200100, ...; copies keep the first four digits.
COPYDAYS = re.compile(r"\d{4}00")


@dataclass(frozen=True)
class Copies:
    """A folder's pictures: `originals`, to be found, and the other pictures, which look for them.

    `queries` holds `originals` first, then the copies, as in the original's protocol. Of each query, `block` is the
    folder that it is in and `wanted` the place of its original among `originals`. `strays` are copies of nothing.
    """

    originals: Source
    queries: Source
    block: list[str]
    wanted: list[int]
    strays: list[str]


def read_copies(folder: Path) -> Copies:
    """`folder`/original/ and any other folders of copies below `folder`, nested as they like.

    Originals and their copies share their names' first four digits in Copydays; elsewhere a copy's name begins with its
    original's, the longest that does (cat_dark.jpg is of cat.jpg). Raises UserError where there is no original or copy.
    """
    source = FolderSource(folder)
    paths = [PurePosixPath(source.name(index)) for index in range(len(source))]
    originals = [index for index, path in enumerate(paths) if path.parent.as_posix() == ORIGINALS]
    if not originals:
        raise UserError(f"{folder} has no pictures in {ORIGINALS}/: put what was copied there, and copies beside it")
    place: dict[str, int] = {}
    for number, index in enumerate(originals):
        if place.setdefault(paths[index].stem, number) != number:
            raise UserError(f"two originals are called {paths[index].stem}: give each a name of its own")
    find = _finder(place)
    queries, block, wanted, strays = list(originals), [ORIGINALS] * len(originals), list(range(len(originals))), []
    for index, path in enumerate(paths):
        if path.parent.as_posix() == ORIGINALS:
            continue
        original = find(path.stem)
        if original is None:
            strays.append(path.as_posix())
            continue
        queries.append(index)
        block.append(path.parent.as_posix())
        wanted.append(original)
    if len(queries) == len(originals):
        raise UserError(
            f"{folder} has no copies of what is in {ORIGINALS}/: put them into folders beside it, under names that "
            "begin with the original's"
        )
    return Copies(Subset(source, originals), Subset(source, queries), block, wanted, strays)


def _finder(place: dict[str, int]) -> Callable[[str], int | None]:
    if all(COPYDAYS.fullmatch(name) for name in place):
        by_prefix = {name[:4]: number for name, number in place.items()}
        return lambda name: by_prefix.get(name[:4])

    def longest(name: str) -> int | None:
        ends = (end for end in range(len(name), 0, -1) if name[:end] in place)
        return next((place[name[:end]] for end in ends), None)

    return longest
