"""A labelled picture set from the photographs that scikit-image ships.

Each picture is a square window of one photograph, and its label is the photograph. Windows of left halves train,
windows of right halves are held out, so that no pixel is in both. Every window is seen under another light (exposure,
colour of the light, contrast, hue), as pictures from several cameras would be: what they have in common is their
texture, which neither bare pixels nor an untrained network tell apart well.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from importlib.resources import as_file, files
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageFilter

from fastdino.errors import UserError
from fastdino.files import write_atomically

# What is in the wheel itself; scikit-image downloads the rest of its pictures when asked for them.
PHOTOGRAPHS = (
    "astronaut.png",
    "brick.png",
    "camera.png",
    "chelsea.png",
    "coffee.png",
    "coins.png",
    "grass.png",
    "gravel.png",
    "hubble_deep_field.jpg",
    "ihc.png",
    "moon.png",
    "motorcycle_left.png",
    "page.png",
    "retina.jpg",
    "rocket.jpg",
    "text.png",
)
# Whole, to show where the network looks.
SHOWN = ("astronaut.png", "chelsea.png", "coffee.png", "rocket.jpg")
# The retina is so large that a window would show nothing but red.
LONGEST_SIDE = 1000
SIDE = 96
WINDOW = (80, 150)


class Split(NamedTuple):
    """A folder of class folders, how many windows each gets, and the part of the photographs' width they come from."""

    folder: str
    windows: int
    left: float
    right: float


SPLITS = (Split("train", 120, 0.0, 0.5), Split("val", 40, 0.5, 1.0))


def write_pictures(root: Path, seed: int) -> None:
    """Fill `root`/train and `root`/val with JPEG files in class folders; a set that is already there is kept.

    Raises UserError if scikit-image came without its photographs.
    """
    recipe = {"seed": seed, "splits": SPLITS, "side": SIDE, "window": WINDOW, "photographs": PHOTOGRAPHS}
    stamp = root / "pictures.json"
    content = json.dumps(recipe, indent=2) + "\n"
    if stamp.exists() and stamp.read_text() == content:
        return
    for split in SPLITS:
        shutil.rmtree(root / split.folder, ignore_errors=True)
    for label, name in enumerate(PHOTOGRAPHS):
        photograph = read_photograph(name)
        for number, split in enumerate(SPLITS):
            folder = root / split.folder / Path(name).stem
            folder.mkdir(parents=True)
            generator = np.random.default_rng((seed, number, label))
            for index, window in enumerate(windows(photograph, split, generator)):
                window.save(folder / f"{index:03}.jpg", quality=92)
    # Last, so that a set cut short by an interruption is made again.
    write_atomically(stamp, content)


def read_photograph(name: str) -> Image.Image:
    """One of scikit-image's photographs as RGB, at most `LONGEST_SIDE` pixels long."""
    try:
        with as_file(files("skimage") / "data" / name) as path, Image.open(path) as file:
            photograph = file.convert("RGB")
    except (ModuleNotFoundError, FileNotFoundError) as error:
        raise UserError(
            f"the demo's photograph {name} is missing: run pip install --force-reinstall scikit-image"
        ) from error
    photograph.thumbnail((LONGEST_SIDE, LONGEST_SIDE), Image.Resampling.BICUBIC)
    return photograph


def windows(photograph: Image.Image, split: Split, generator: np.random.Generator) -> Iterator[Image.Image]:
    """Square windows of the split's part of a photograph, `SIDE` pixels wide, each mirrored or not and relit."""
    first, last = round(photograph.width * split.left), round(photograph.width * split.right)
    for _ in range(split.windows):
        side = min(int(generator.integers(WINDOW[0], WINDOW[1] + 1)), last - first, photograph.height)
        left = int(generator.integers(first, last - side + 1))
        top = int(generator.integers(0, photograph.height - side + 1))
        box = (left, top, left + side, top + side)
        window = photograph.resize((SIDE, SIDE), Image.Resampling.BICUBIC, box=box)
        if generator.random() < 0.5:
            window = window.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        yield relight(window, generator)


def relight(picture: Image.Image, generator: np.random.Generator) -> Image.Image:
    """The same scene under another light and through another camera."""
    hue, saturation, value = picture.convert("HSV").split()
    turn = int(generator.integers(-19, 20))
    turned = Image.fromarray((np.asarray(hue).astype(np.int16) + turn).astype(np.uint8))
    pixels = np.asarray(Image.merge("HSV", (turned, saturation, value)).convert("RGB")) / 255.0
    pixels = pixels ** np.exp(generator.uniform(-0.3, 0.3))
    pixels = pixels * np.exp(generator.uniform(-0.25, 0.25, 3)) * np.exp(generator.uniform(-0.2, 0.2))
    mean = pixels.mean()
    pixels = (pixels - mean) * np.exp(generator.uniform(-0.35, 0.15)) + mean + generator.uniform(-0.075, 0.075)
    pixels = pixels + generator.normal(0.0, generator.uniform(0.0, 0.015), pixels.shape)
    relit = Image.fromarray((pixels.clip(0.0, 1.0) * 255).astype(np.uint8))
    if generator.random() < 0.5:
        relit = relit.filter(ImageFilter.GaussianBlur(generator.uniform(0.0, 1.0)))
    return relit
