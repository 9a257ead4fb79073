"""Videos with masks on disk: DAVIS, and movies or folders of frames of one's own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from fastdino.data.reading import UnreadableImage, open_picture, read_image
from fastdino.data.sources import EXTENSIONS
from fastdino.data.sources.scan import natural
from fastdino.errors import UserError
from fastdino.evaluate.follow import Frame, Labels
from fastdino.files import write_atomically
from fastdino.video import open_video


@dataclass(frozen=True)
class Video:
    """A video, the mask of its first frame, and true masks of others by their frame's name, to compare with.

    `frames` gives the frames' names and pixels, one after another; `count` is how many there are, None where that is
    not known.
    """

    name: str
    frames: Callable[[], Iterator[tuple[str, Frame]]]
    count: int | None
    first_mask: Path
    truth: dict[str, Path] = field(default_factory=dict)


class ColouredMask(NamedTuple):
    """Objects' numbers (H, W) uint8, and the colours, 3 bytes a number, that they are shown in."""

    labels: Labels
    palette: bytes


def read_davis(folder: Path, video_list: str) -> list[Video]:
    """The videos named, a line each, in `folder`/`video_list`, of DAVIS 2017 or what is laid out like it, in 480p.

    Raises UserError for what is missing.
    """
    listing = folder / video_list
    try:
        names = [line.strip() for line in listing.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeError) as error:
        raise UserError(f"cannot read {listing}: give the list of videos, a name a line, as --video_list") from error
    if not names:
        raise UserError(f"{listing} names no videos: write a name a line")
    videos = []
    for name in names:
        frames = _pictures_in(folder / "JPEGImages" / "480p" / name)
        masks = folder / "Annotations" / "480p" / name
        first = masks / f"{frames[0].stem}.png"
        if not first.is_file():
            raise UserError(f"{name} has no first mask: there is no {first}")
        # As in DAVIS: the first mask is given, and the last frame's is left out.
        inner = {path.stem for path in frames[1:-1]}
        truth = {path.stem: path for path in masks.glob("*.png") if path.stem in inner}
        videos.append(Video(name, partial(_from_files, frames), len(frames), first, truth))
    return videos


def read_own(path: Path, first_mask: Path) -> Video:
    """A movie, or a folder of frames in natural order (2.jpg before 10.jpg). Raises UserError for what is neither."""
    if not first_mask.is_file():
        raise UserError(f"there is no {first_mask}: give a picture with the objects of the first frame as --first_mask")
    if path.is_file():
        with open_video(path) as movie:
            return Video(path.stem, partial(_from_movie, path), movie.count, first_mask)
    frames = _pictures_in(path)
    return Video(path.resolve().name, partial(_from_files, frames), len(frames), first_mask)


def read_mask(path: Path) -> ColouredMask:
    """A mask of one channel: numbers with a palette, or grey. Raises UserError for any other picture."""
    try:
        with open_picture(path.read_bytes()) as image:
            image.load()
    except Exception as error:
        # A damaged file can make Pillow's parsers raise anything.
        raise UserError(f"{path} cannot be read as a mask: give a PNG file") from error
    if image.mode not in ("1", "L", "P"):
        raise UserError(
            f"{path} is a picture in mode {image.mode}, no mask: give a PNG file with a palette, or grey, whose values "
            "are the objects' numbers, 0 for the background"
        )
    palette = bytes(image.getpalette("RGB") or []) if image.mode == "P" else b""
    labels = np.asarray(image.convert("L") if image.mode == "1" else image)
    return ColouredMask(labels, palette or default_palette())


def write_mask(mask: ColouredMask, path: Path) -> None:
    """A PNG file with a palette."""
    image = Image.fromarray(mask.labels, mode="P")
    image.putpalette(mask.palette)
    buffer = BytesIO()
    image.save(buffer, "PNG")
    write_atomically(path, buffer.getvalue())


def default_palette() -> bytes:
    """Black for 0 and colours that are far apart for the next numbers, as Pascal VOC and DAVIS have them.

    Bits 0, 3, 6, ... of a number are the highest bits of its red, the next ones those of green, the next of blue.
    """
    numbers = np.arange(256)
    channels = [
        sum(((numbers >> (3 * bit + channel)) & 1) << (7 - bit) for bit in range(3) if 3 * bit + channel < 8)
        for channel in range(3)
    ]
    return np.stack(channels, axis=1).astype(np.uint8).tobytes()


def _pictures_in(folder: Path) -> list[Path]:
    # Hidden files with such endings are what some systems keep beside pictures.
    paths = [path for path in folder.glob("[!.]*") if path.suffix.lower().lstrip(".") in EXTENSIONS]
    if not paths:
        raise UserError(f"there are no frames in {folder}: give a folder of pictures")
    return sorted(paths, key=lambda path: natural(path.name))


def _from_files(paths: list[Path]) -> Iterator[tuple[str, Frame]]:
    for path in paths:
        try:
            yield path.stem, np.asarray(read_image(path))
        except UnreadableImage as error:
            raise UserError(f"{path} cannot be read ({error}): a video needs all its frames") from error


def _from_movie(path: Path) -> Iterator[tuple[str, Frame]]:
    with open_video(path) as movie:
        for number, frame in enumerate(movie):
            yield f"{number:05}", np.asarray(frame)
