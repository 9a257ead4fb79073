"""The reference loader's work on one chunk of a batch, done in a worker process or in the caller's own."""

from __future__ import annotations

import signal
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from fastdino.data.batches import unexpected
from fastdino.data.plan import CropRecipe, crop_plan
from fastdino.data.reading import UnreadableImage, read_image, reason_of
from fastdino.data.sources import Source, announcing
from fastdino.errors import UserError
from fastdino.reference.augment import apply_plan


@dataclass(frozen=True)
class Task:
    """The pictures to prepare, by their indices in the source, for an epoch."""

    epoch: int
    indices: npt.NDArray[np.int64]


@dataclass(frozen=True)
class Chunk:
    """Finished pictures as numpy arrays, which travel through a pipe: torch would send its tensors through
    /dev/shm, of which a container has 64 MB.

    `crops` has one (pictures, 3, size, size) uint8 array a crop and is None when no picture of the source can
    be read, or the source has raised a UserError: `mistake` is its sentence. An exception would reach the parent as the
    text of a stack trace.
    """

    crops: list[npt.NDArray[np.uint8]] | None
    labels: npt.NDArray[np.int64]
    skipped: dict[str, str]
    mistake: str | None = None


class ChunkMaker:
    """A map-style dataset whose key is a Task and whose item is the Chunk."""

    def __init__(self, source: Source, recipe: CropRecipe, seed: int) -> None:
        self.source = source
        self.recipe = recipe
        self.seed = seed
        self._unreadable: dict[int, str] = {}

    def __getitem__(self, task: Task) -> Chunk:
        if (announce := announcing(self.source)) is not None:
            announce(task.indices, True)
        crops = self._allocate(len(task.indices))
        labels = np.empty(len(task.indices), dtype=np.int64)
        skipped: dict[str, str] = {}
        for slot, index in enumerate(task.indices.tolist()):
            try:
                found = self._first_readable(index, skipped)
            except UserError as error:
                return Chunk(None, labels, skipped, str(error))
            if found is None:
                return Chunk(None, labels, skipped)
            image, used = found
            labels[slot] = self.source.label(used)
            plan = crop_plan(self.seed, task.epoch, index, image.width, image.height, self.recipe)
            for target, crop in zip(crops, apply_plan(image, plan), strict=True):
                target[slot] = crop.transpose(2, 0, 1)
        return Chunk(crops, labels, skipped)

    def _allocate(self, pictures: int) -> list[npt.NDArray[np.uint8]]:
        return [np.empty((pictures, 3, size, size), dtype=np.uint8) for size in self.recipe.sizes()]

    def _first_readable(self, index: int, skipped: dict[str, str]) -> tuple[Image.Image, int] | None:
        """The picture at `index`, or the next one after it (wrapping) that can be read."""
        for offset in range(len(self.source)):
            candidate = (index + offset) % len(self.source)
            if candidate not in self._unreadable:
                try:
                    return read_image(self.source.read(candidate)), candidate
                except UnreadableImage as error:
                    self._unreadable[candidate] = str(error)
                except OSError as error:
                    self._unreadable[candidate] = reason_of(error)
                except UserError:
                    raise
                except Exception as error:
                    raise unexpected(self.source, candidate, error) from error
            skipped[self.source.name(candidate)] = self._unreadable[candidate]
        return None


def start_worker(_: int) -> None:
    """Leave signals to the parent, which ends its workers itself.

    Ctrl-C reaches the whole process group. A handler for SIGTERM in the parent is inherited by a forked
    worker, which would then outlive the loader.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


def as_it_is(chunk: Any) -> Any:
    """In place of torch's collation, which would turn the arrays into tensors."""
    return chunk
