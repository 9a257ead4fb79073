"""fastdino's loader through its Python API."""

from __future__ import annotations

import io
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from benchmarks.loader_peers.pictures import open_pictures, read_pictures
from fastdino.data import MultiCropLoader, Source


class MemorySource:
    """Pictures that are in memory already."""

    def __init__(self, pictures: list[bytes]) -> None:
        self.classes: list[str] = []
        self._pictures = pictures

    def __len__(self) -> int:
        return len(self._pictures)

    def read(self, index: int) -> bytes:
        return self._pictures[index]

    def name(self, index: int) -> str:
        return str(index)

    def label(self, index: int) -> int:
        return -1


def batches(
    folder: Path, count: int, threads: int, batch_size: int, output: str = "float32", from_disk: bool = False
) -> Iterator[list[torch.Tensor]]:
    """Endless batches, epoch after epoch."""
    source: Source = open_pictures(folder, count) if from_disk else MemorySource(read_pictures(folder, count))
    loader = _loader(source, threads, batch_size, output)
    try:
        while True:
            for crops, _ in loader:
                yield crops
    finally:
        loader.close()


def stages(folder: Path, count: int, batch_size: int, seconds: float) -> dict[str, float]:
    """Milliseconds a picture that one thread spends in each stage, over whole epochs and at least `seconds`."""
    loader = _loader(MemorySource(read_pictures(folder, count)), 1, batch_size, "float32")
    for _ in loader:  # warms up
        pass
    before, started, pictures = loader.stats(), time.perf_counter(), 0
    while time.perf_counter() - started < seconds:
        pictures += sum(len(labels) for _, labels in loader)
    after = loader.stats()
    loader.close()
    return {stage: (after[stage] - before.get(stage, 0.0)) / pictures * 1e3 for stage in after}


def decoding(folder: Path, count: int, seconds: float) -> float:
    """Milliseconds of CPU a picture for Pillow's decoding, which is libjpeg-turbo's too, to the same pixels.

    `engine.decode` is no yardstick: it also allocates and turns its planes into rows of pixels, as no loader does.
    """
    pictures = read_pictures(folder, count)
    started, decoded = time.process_time(), 0
    while (spent := time.process_time() - started) < seconds:
        for picture in pictures:
            Image.open(io.BytesIO(picture)).load()
        decoded += len(pictures)
    return spent / decoded * 1e3


def _loader(source: Source, threads: int, batch_size: int, output: str) -> MultiCropLoader:
    options: dict[str, Any] = {"num_threads": threads, "output": output, "implementation": "native"}
    return MultiCropLoader(source, batch_size, **options)
