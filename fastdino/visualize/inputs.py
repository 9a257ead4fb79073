"""The pictures that a command was given: files, folders, or both."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from fastdino.data.reading import UnreadableImage, read_image, reason_of
from fastdino.data.sources import FolderSource
from fastdino.errors import UserError


class Input(NamedTuple):
    """A picture that is still in its file."""

    name: str
    """What the user knows it by."""
    read: Callable[[], bytes]
    """Gives the file's bytes. Raises OSError."""
    stem: Path
    """Its path below the folder that was given, without its ending."""
    place: Path
    """Folder for what belongs to it: as `stem`, and empty where there is no other picture."""


def find_inputs(paths: Sequence[str]) -> list[Input]:
    """All pictures in `paths`, in their order and that of the folders.

    Raises UserError for a path that does not exist, a folder without pictures and two files of one name.
    """
    if len(paths) == 1 and Path(paths[0]).is_file():
        path = Path(paths[0])
        return [Input(str(path), path.read_bytes, Path(path.stem), Path())]
    found = [part for path in paths for part in _named(Path(path), alone=len(paths) == 1)]
    for name, count in Counter(name for name, _ in found).items():
        if count > 1:
            raise UserError(f"there are {count} pictures called {name}: give the folder they are in, or one at a time")
    stems = Counter(name.with_suffix("") for name, _ in found)
    return [
        # cat.jpg and cat.png beside each other keep their endings, or one would overwrite the other.
        Input(str(name), read, stem, name if stems[stem] > 1 else stem)
        for name, read in found
        for stem in [name.with_suffix("")]
    ]


def _named(path: Path, *, alone: bool) -> Iterator[tuple[Path, Callable[[], bytes]]]:
    if path.is_dir():
        source = FolderSource(path)
        above = Path() if alone else Path(path.absolute().name)
        for index in range(len(source)):
            yield above / source.name(index), partial(source.read, index)
    elif path.exists():
        yield Path(path.name), path.read_bytes
    else:
        raise UserError(f"there is no picture or folder {path}: give one that exists")


def readable(inputs: Iterable[Input], skipped: dict[str, str]) -> Iterator[tuple[Input, Image.Image]]:
    """Each picture, RGB; those that cannot be read are left out and put into `skipped`, name -> reason."""
    for one in inputs:
        try:
            picture = read_image(one.read())
        except UnreadableImage as error:
            skipped[one.name] = str(error)
        except OSError as error:
            skipped[one.name] = reason_of(error)
        else:
            yield one, picture
