"""Makes the pictures of docs/gallery.md: `python scripts/gallery.py --pretrained_weights CHECKPOINT`.

Each comes from one command, which is printed, on photographs that scikit-image ships; it is shrunk for the page.
"""

from __future__ import annotations

import argparse
import os
import shlex
import sys
import tempfile
from importlib.resources import files
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from fastdino import cli
from fastdino.demo.movie import write_pan
from fastdino.demo.pictures import read_photograph

GALLERY = Path(__file__).resolve().parent.parent / "docs" / "gallery"
MOVIE = "movie.mp4"
MOVIE_SIZE = (240, 160)
MOVIE_SECONDS = 2
PHOTOGRAPHS = ("astronaut.png", "chelsea.png", "coffee.png", "motorcycle_left.png", "retina.jpg", "rocket.jpg")
# The demo's network learned from windows that show about this much of a photograph.
LOOK = "--image_size=240"


class Shown(NamedTuple):
    """A command, the file it writes, and how wide the page shows that, in pixels."""

    command: tuple[str, ...]
    result: str
    width: int


def shown(data: str, weights: str) -> dict[str, Shown]:
    """What the gallery shows, by the name of the picture there; `data` is the folder of scikit-image's photographs."""
    photographs = [f"{data}/{name}" for name in PHOTOGRAPHS]
    pair = [f"{data}/motorcycle_{side}.png" for side in ("left", "right")]
    network = (f"--pretrained_weights={weights}", LOOK)
    return {
        "crops": Shown(("crops", f"{data}/chelsea.png", "--output=crops.png"), "crops.png", 1000),
        "attention": Shown(("attention", *photographs, *network, "--output_dir=maps"), "maps/attention.png", 1000),
        "heads": Shown(("attention", f"{data}/chelsea.png", *network, "--output_dir=cat"), "cat/attention.png", 700),
        "movie": Shown(("attention", MOVIE, *network, "--out=attention.webp"), "attention.webp", MOVIE_SIZE[0]),
        "patches": Shown(("patches", *pair, *network, "--output_dir=patches"), "patches/patches.png", 700),
        "correspondence": Shown(("correspond", *pair, *network), "correspondence.png", 1000),
    }


def main() -> int:
    """Parse the flags and make every picture; returns the first command's exit code that is not 0."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pretrained_weights", required=True, help="checkpoint of a vit_*, or a published one's name")
    weights = parser.parse_args().pretrained_weights
    if Path(weights).exists():
        weights = str(Path(weights).resolve())
    GALLERY.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        write_pan(Path(MOVIE), read_photograph("chelsea.png"), MOVIE_SECONDS, MOVIE_SIZE)
        for name, one in shown(str(files("skimage") / "data"), weights).items():
            print("fastdino", shlex.join(one.command), flush=True)
            if code := cli.main(one.command):
                return code
            _publish(Path(one.result), GALLERY / f"{name}.webp", one.width)
    return 0


def _publish(result: Path, target: Path, width: int) -> None:
    if result.suffix == target.suffix:
        target.write_bytes(result.read_bytes())
        return
    with Image.open(result) as picture:
        height = round(picture.height * width / picture.width)
        picture.convert("RGB").resize((width, height), Image.Resampling.LANCZOS).save(target, quality=80, method=6)


if __name__ == "__main__":
    sys.exit(main())
