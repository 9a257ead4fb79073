"""How fluid the map of 50,000 pictures is in a browser, and how long its layout takes.

    python benchmarks/map_page.py            # the page, in headless Chromium
    python benchmarks/map_page.py --layout   # t-SNE

The page has 50,000 invented thumbnails in 60 heaps. Frame times are the intervals between a browser's frames while
each of them changes the map: zoomed from all of it to single pictures and back, and moved at three levels of zoom.
Chromium draws on the processor, without a GPU, which is the slowest that anyone will meet. Features for the layout are
points around 60 centres in 384 dimensions.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

# A script finds only its own folder.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.loader_peers.machine import machine
from fastdino.files import write_atomically
from fastdino.visualize.map.atlas import pack, thumbnail_side
from fastdino.visualize.map.contents import FeatureMap, nearest_pictures
from fastdino.visualize.map.layout import positions, principal_directions
from fastdino.visualize.map.page import render
from tests.fastdino.visualize.browsing import chromium

OUTPUT = Path(__file__).parent / "results" / "map_page.json"
HEAPS = 60
FRAMES = 120
# Sends the map one event a frame, and returns the milliseconds between frames.
DRIVE = """([type, options, count]) => new Promise((done) => {
  const canvas = document.getElementById("map");
  const frames = [];
  let last = 0;
  const step = (now) => {
    if (last) frames.push(now - last);
    last = now;
    if (frames.length === count) return done(frames);
    canvas.dispatchEvent(new window[type](options.name, { cancelable: true, ...options }));
    requestAnimationFrame(step);
  };
  requestAnimationFrame(step);
})"""


def invented_map(count: int) -> FeatureMap:
    """`count` pictures in heaps, each thumbnail a gradient with noise in its heap's colours."""
    generator = np.random.default_rng(0)
    heap = generator.integers(0, HEAPS, count)
    placed = generator.random((HEAPS, 2))[heap] + 0.035 * generator.standard_normal((count, 2))
    placed = ((placed - placed.min(axis=0)) / np.ptp(placed, axis=0).max()).astype(np.float32)
    side = thumbnail_side(count)
    colours = generator.integers(0, 256, (HEAPS, 2, 3))[heap]
    ramp = np.linspace(0, 1, side)[:, None, None] * np.ones((1, side, 1))
    thumbnails = np.empty((count, side, side, 3), dtype=np.uint8)
    for picture, (first, second) in enumerate(colours):
        noise = generator.normal(0, 25, (side, side, 1))
        thumbnails[picture] = np.clip(first + ramp * (second - first) + noise, 0, 255)
    return FeatureMap(
        title=f"{count:,} invented pictures",
        names=[f"heap {label}/picture {picture:06}.jpg" for picture, label in enumerate(heap)],
        classes=[f"heap {label}" for label in range(HEAPS)],
        labels=heap,
        positions=placed,
        clusters=np.empty(0, dtype=np.int32),
        neighbours=nearest_pictures(torch.from_numpy(placed) - 0.5),
        atlas=pack(thumbnails, placed),
        tree=None,
        examples=[],
    )


def measure_page(count: int) -> dict[str, Any]:
    """Size, time to the first picture, and frame times of a map of `count` pictures."""
    html = render(invented_map(count))
    with tempfile.TemporaryDirectory() as folder, chromium() as browser:
        path = Path(folder) / "map.html"
        path.write_text(html)
        page = browser.new_page(viewport={"width": 1280, "height": 800})
        started = time.perf_counter()
        page.goto(path.as_uri())
        page.get_by_role("status").get_by_text("pictures").wait_for()
        opened = time.perf_counter() - started
        result: dict[str, Any] = {"pictures": count, "megabytes": len(html) / 1e6, "seconds_to_open": opened}
        result["moving, far"] = moved(page)
        result["zooming in"] = zoomed(page, -24)
        result["moving, near"] = moved(page)
        result["zooming out"] = zoomed(page, 24)
        zoomed(page, -24, FRAMES // 2)
        result["moving, halfway"] = moved(page)
        return result


def zoomed(page: Any, pixels: int, frames: int = FRAMES) -> dict[str, float]:
    """Frames while the wheel is turned over the middle of a heap; 120 times 24 pixels are a factor of 178."""
    options = {"name": "wheel", "deltaY": pixels, "clientX": 440, "clientY": 400}
    return summary(page.evaluate(DRIVE, ["WheelEvent", options, frames]))


def moved(page: Any) -> dict[str, float]:
    """Frames while the map is moved to the left and back."""
    halves = [
        page.evaluate(DRIVE, ["KeyboardEvent", {"name": "keydown", "key": key}, FRAMES // 2])
        for key in ("ArrowLeft", "ArrowRight")
    ]
    return summary(halves[0] + halves[1])


def summary(frames: list[float]) -> dict[str, float]:
    """Milliseconds between frames; 16.7 is what a screen of 60 pictures a second allows."""
    frames = sorted(frames)
    return {"median": statistics.median(frames), "95 %": frames[int(0.95 * len(frames))], "longest": frames[-1]}


def measure_layout(count: int) -> dict[str, float]:
    """Seconds that `count` pictures take to be placed."""
    generator = torch.Generator().manual_seed(0)
    centres = torch.randn(HEAPS, 384, generator=generator)
    heap = torch.randint(HEAPS, (count,), generator=generator)
    features = centres[heap] + torch.randn(count, 384, generator=generator)
    started = time.perf_counter(), time.process_time()
    positions(principal_directions(features, 0), 0)
    return {
        "pictures": count,
        "seconds": time.perf_counter() - started[0],
        "seconds of all cores": time.process_time() - started[1],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--pictures", type=int, default=50_000)
    parser.add_argument("--layout", action="store_true", help="measure the layout instead of the page")
    parser.add_argument("--output", type=Path, default=OUTPUT)
    arguments = parser.parse_args()
    results = json.loads(arguments.output.read_text()) if arguments.output.exists() else {}
    measure = measure_layout if arguments.layout else measure_page
    results["layout" if arguments.layout else "page"] = {**measure(arguments.pictures), "machine": machine()}
    write_atomically(arguments.output, json.dumps(results, indent=2) + "\n")
    print(json.dumps(results, indent=2))


if __name__ == "__main__":
    main()
