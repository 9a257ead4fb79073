"""Does the memory that `fastdino attention` and `fastdino video-segmentation` take grow with a movie's length?

    python benchmarks/movie_memory.py --output benchmarks/results/movie_memory.json

Movies of several lengths are made of a photograph that comes with scikit-image, and each is given to each command in a
process of its own. Memory is that process's peak (resident set). The network is untrained: what it has learned changes
nothing here. The object that is followed is the middle of the first frame.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image

from fastdino.demo.movie import write_pan
from fastdino.demo.pictures import read_photograph

PHOTOGRAPH = "chelsea.png"
SIZE = (320, 240)


def main() -> int:
    """Parse the flags, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, nargs="+", default=[2, 10])
    parser.add_argument("--arch", default="vit_tiny")
    parser.add_argument("--image_size", default="240")
    parser.add_argument("--output", type=Path, help="JSON file for the figures")
    arguments = parser.parse_args()
    figures: dict[str, dict[str, dict[str, int]]] = {"attention": {}, "video-segmentation": {}}
    with tempfile.TemporaryDirectory() as folder:
        mask = write_mask(Path(folder) / "mask.png")
        for seconds in arguments.seconds:
            movie = write_pan(Path(folder) / "movie.mp4", read_photograph(PHOTOGRAPH), seconds, SIZE)
            out = Path(folder) / "out"
            flags = {
                "attention": [str(movie), "--image_size", arguments.image_size, "--out", str(out.with_suffix(".mp4"))],
                "video-segmentation": [
                    *("--data_path", str(movie), "--first_mask", str(mask)),
                    *("--imsize", arguments.image_size, "--output_dir", str(out)),
                ],
            }
            for command in figures:
                run = [sys.executable, "-m", "fastdino", command, "--arch", arguments.arch, *flags[command]]
                figures[command][f"{seconds:g} s"] = {"peak_mib": peak_mib(run)}
    print(json.dumps(figures, indent=2))
    if arguments.output:
        arguments.output.write_text(json.dumps(figures, indent=2) + "\n")
    return 0


def write_mask(path: Path) -> Path:
    """Object 1, a quarter of the frame in its middle."""
    width, height = SIZE
    mask = Image.new("L", SIZE)
    mask.paste(1, (width // 4, height // 4, 3 * width // 4, 3 * height // 4))
    mask.save(path)
    return path


def peak_mib(command: list[str]) -> int:
    """The most memory that a command's process ever had. Raises CalledProcessError if it fails."""
    process = subprocess.Popen(command)
    _, status, usage = os.wait4(process.pid, 0)
    code = process.returncode = os.waitstatus_to_exitcode(status)
    if code:
        raise subprocess.CalledProcessError(code, command)
    return usage.ru_maxrss // 1024


if __name__ == "__main__":
    sys.exit(main())
