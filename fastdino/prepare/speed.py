"""How many pictures a second the training loader prepares here."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from fastdino.data.loader import MultiCropLoader
from fastdino.data.plan import CropRecipe
from fastdino.data.sources import Source, Subset

SECONDS = 3.0
# Small, so that one is soon finished even where a picture takes long.
_BATCH = 16


@dataclass(frozen=True)
class Speed:
    """What the loader reaches with so many threads when nothing else runs and the files lie in the system's cache."""

    images_per_second: float
    threads: int


def measure_speed(source: Source, usable: Sequence[int], recipe: CropRecipe, threads: int) -> Speed:
    """Prepare crops of the `usable` pictures, of which there is at least one, for `SECONDS`."""
    batch = min(_BATCH, len(usable))
    loader = MultiCropLoader(
        Subset(source, usable),
        batch,
        num_threads=threads,
        global_crops_scale=recipe.global_crops_scale,
        local_crops_scale=recipe.local_crops_scale,
        local_crops_number=recipe.local_crops_number,
        global_size=recipe.global_size,
        local_size=recipe.local_size,
        color_jitter=(recipe.brightness, recipe.contrast, recipe.saturation, recipe.hue),
    )
    try:
        batches = _endless(loader)
        # Until every thread has delivered, batches come in bursts.
        for _ in range(1 + threads):
            next(batches)
        started = time.perf_counter()
        done = 0
        while (elapsed := time.perf_counter() - started) < SECONDS:
            next(batches)
            done += batch
        return Speed(done / elapsed, threads)
    finally:
        loader.close()


def _endless(loader: MultiCropLoader) -> Iterator[object]:
    while True:
        yield from loader
