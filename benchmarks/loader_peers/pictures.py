"""The pictures that every peer reads: windows of scikit-image's photographs, encoded as ImageNet's files are.

The shares of subsamplings, progressive and grey files follow what is found in the wild; the numbers of megapixels and
bits a pixel, on which decoding time depends, follow ImageNet's training set (about 0.18 MP at 3.8 bits). `Pictures`
says what a set really has.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Iterator
from importlib.resources import as_file, files
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from fastdino.data import FolderSource
from fastdino.data.sources import Subset
from fastdino.files import write_atomically

# What is in scikit-image's wheel itself. The retina is left out: half of it is black.
COLOUR = (
    "astronaut.png",
    "chelsea.png",
    "coffee.png",
    "hubble_deep_field.jpg",
    "ihc.png",
    "motorcycle_left.png",
    "motorcycle_right.png",
    "rocket.jpg",
)
GREY = ("brick.png", "camera.png", "coins.png", "grass.png", "gravel.png")
SIZES = ((500, 375), (375, 500), (500, 333), (500, 500), (400, 300), (640, 480))
SIZE_SHARES = (0.45, 0.2, 0.15, 0.08, 0.07, 0.05)
# Pixels of the photograph for one of the picture; a window that leaves the photograph is shrunk to fit.
ZOOM = (0.7, 1.4)
QUALITY = (88, 96)
SUBSAMPLINGS = ("4:2:0", "4:4:4", "4:2:2")
SUBSAMPLING_SHARES = (0.7, 0.2, 0.1)
PROGRESSIVE_SHARE = 0.08
GREY_SHARE = 0.06
# Standard deviation of the noise, of 255, that a camera's picture of this size would have and a resampled one lost.
# Chosen so that the default set has ImageNet's bits a pixel.
GRAIN = 7.0

_RECIPE = (COLOUR, GREY, SIZES, SIZE_SHARES, ZOOM, QUALITY, SUBSAMPLING_SHARES, PROGRESSIVE_SHARE, GREY_SHARE, GRAIN)
_STAMP = "pictures.json"


class Facts(NamedTuple):
    """What decoding time depends on, averaged over a set."""

    pictures: int
    megapixels: float
    kilobytes: float
    bits_per_pixel: float
    progressive: float
    """Share of the files, as is `grey`."""
    grey: float


def default_folder(parent: Path, count: int) -> Path:
    """Where `write_pictures` keeps a set of `count`; another recipe or Pillow has another place."""
    key = hashlib.sha256(repr((_RECIPE, Image.__version__)).encode()).hexdigest()[:8]
    return parent / f"fastdino-benchmark-{count}-{key}"


def write_pictures(folder: Path, count: int) -> None:
    """Fill `folder` with the first `count` pictures of the set; a folder that has been filled is left alone."""
    stamp = folder / _STAMP
    if stamp.exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    for number, picture in enumerate(encoded_pictures(count)):
        write_atomically(folder / f"{number:05}.jpg", picture)
    # Last, so that a set cut short by an interruption is made again.
    write_atomically(stamp, json.dumps({"pictures": count}) + "\n")


def encoded_pictures(count: int) -> Iterator[bytes]:
    """JPEG files; the kinds are dealt out by their shares, so that a small set has them too."""
    generator = np.random.default_rng(0)
    subsampling = _deal(generator, count, SUBSAMPLING_SHARES)
    progressive = _deal(generator, count, (1 - PROGRESSIVE_SHARE, PROGRESSIVE_SHARE))
    grey = _deal(generator, count, (1 - GREY_SHARE, GREY_SHARE))
    sizes = _deal(generator, count, SIZE_SHARES)
    photographs = {name: _read_photograph(name) for name in COLOUR + GREY}
    for number in range(count):
        names = GREY if grey[number] else COLOUR
        photograph = photographs[names[generator.integers(len(names))]]
        file = io.BytesIO()
        _window(photograph, SIZES[sizes[number]], generator).save(
            file,
            "JPEG",
            quality=int(generator.integers(QUALITY[0], QUALITY[1] + 1)),
            subsampling=SUBSAMPLINGS[subsampling[number]],
            progressive=bool(progressive[number]),
        )
        yield file.getvalue()


def open_pictures(folder: Path, count: int) -> FolderSource | Subset:
    """The first `count` pictures of a folder, as a source that reads them from the disk."""
    source = FolderSource(folder)
    return source if len(source) <= count else Subset(source, range(count))


def read_pictures(folder: Path, count: int) -> list[bytes]:
    """The same pictures in memory."""
    source = open_pictures(folder, count)
    return [source.read(index) for index in range(len(source))]


def describe(pictures: list[bytes]) -> Facts:
    """Raises Pillow's UnidentifiedImageError for bytes that are no picture."""
    headers = [Image.open(io.BytesIO(picture)) for picture in pictures]
    pixels = sum(header.width * header.height for header in headers)
    total = sum(len(picture) for picture in pictures)
    count = len(pictures)
    return Facts(
        count,
        pixels / count / 1e6,
        total / count / 1e3,
        total * 8 / pixels,
        sum(bool(header.info.get("progressive")) for header in headers) / count,
        sum(header.mode == "L" for header in headers) / count,
    )


def _deal(generator: np.random.Generator, count: int, shares: tuple[float, ...]) -> list[int]:
    """`count` numbers of kinds in random order, each kind as often as its share says, rounded."""
    kinds = np.searchsorted(np.cumsum(shares), (np.arange(count) + 0.5) / count)
    return [int(kind) for kind in generator.permutation(kinds)]


def _read_photograph(name: str) -> Image.Image:
    with as_file(files("skimage") / "data" / name) as path, Image.open(path) as file:
        return file.convert("L" if name in GREY else "RGB")


def _window(photograph: Image.Image, size: tuple[int, int], generator: np.random.Generator) -> Image.Image:
    zoom = min(generator.uniform(*ZOOM), photograph.width / size[0], photograph.height / size[1])
    # Rounding could make the longer side a little too long.
    width, height = min(zoom * size[0], photograph.width), min(zoom * size[1], photograph.height)
    left, top = generator.uniform(0, photograph.width - width), generator.uniform(0, photograph.height - height)
    window = photograph.resize(size, Image.Resampling.BICUBIC, box=(left, top, left + width, top + height))
    if generator.random() < 0.5:
        window = window.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    pixels = np.asarray(window, dtype=np.float32)
    # One value for the three colours: a camera's noise is mostly one of brightness.
    grain = generator.normal(0, GRAIN, size[::-1]).astype(np.float32)
    pixels = pixels + (grain if pixels.ndim == 2 else grain[..., None])
    return Image.fromarray(pixels.round().clip(0, 255).astype(np.uint8))
