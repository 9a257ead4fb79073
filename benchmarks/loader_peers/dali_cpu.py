"""NVIDIA DALI on the CPU: decode once, conditional execution, so that a view left sharp costs no blur."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from nvidia.dali import fn, pipeline_def, types

from benchmarks.loader_peers.pictures import read_pictures
from benchmarks.loader_peers.recipe import RECIPE, VIEWS, View
from fastdino.data import plan
from fastdino.data.normalize import IMAGENET_MEAN, IMAGENET_STD


def batches(folder: Path, count: int, threads: int, batch_size: int) -> Iterator[list[torch.Tensor]]:
    """Endless batches, written by DALI's threads."""
    pipeline = _pipeline(
        _shuffled(read_pictures(folder, count)), batch_size=batch_size, num_threads=threads, device_id=None, seed=0
    )
    pipeline.build()
    while True:
        yield [torch.from_numpy(view.as_array()) for view in pipeline.run()]


def _shuffled(pictures: list[bytes]) -> Iterator[np.ndarray]:
    arrays = [np.frombuffer(picture, dtype=np.uint8) for picture in pictures]
    generator = np.random.default_rng(0)
    return (arrays[index] for _ in itertools.count() for index in generator.permutation(len(arrays)))


@pipeline_def(enable_conditionals=True)
def _pipeline(pictures: Iterator[np.ndarray]) -> tuple[Any, ...]:
    encoded = fn.external_source(pictures, batch=False, dtype=types.UINT8)
    image = fn.decoders.image(encoded, device="cpu", output_type=types.RGB)
    return tuple(_view(image, view) for view in VIEWS)


def _view(image: Any, view: View) -> Any:
    crop = fn.random_resized_crop(
        image,
        size=(view.size, view.size),
        random_area=view.scale,
        random_aspect_ratio=plan.ASPECT_RATIO,
        interp_type=types.INTERP_CUBIC,
        antialias=True,
    )
    if fn.random.coin_flip(probability=plan.JITTER_PROBABILITY, dtype=types.BOOL):
        # In this order always: DALI has one kernel for the four and no random order.
        crop = fn.color_twist(
            crop,
            brightness=_factor(RECIPE.brightness),
            contrast=_factor(RECIPE.contrast),
            saturation=_factor(RECIPE.saturation),
            hue=fn.random.uniform(range=(-360 * RECIPE.hue, 360 * RECIPE.hue)),
        )
    if fn.random.coin_flip(probability=plan.GRAYSCALE_PROBABILITY, dtype=types.BOOL):
        crop = fn.saturation(crop, saturation=0.0)
    if fn.random.coin_flip(probability=view.blur, dtype=types.BOOL):
        crop = fn.gaussian_blur(crop, sigma=fn.random.uniform(range=plan.BLUR_RADIUS))
    if fn.random.coin_flip(probability=view.solarize, dtype=types.BOOL):
        crop = fn.cast(crop * (crop < 128) + (255 - crop) * (crop >= 128), dtype=types.UINT8)
    return fn.crop_mirror_normalize(
        crop,
        dtype=types.FLOAT,
        output_layout="CHW",
        mean=[255 * value for value in IMAGENET_MEAN],
        std=[255 * value for value in IMAGENET_STD],
        mirror=fn.random.coin_flip(probability=plan.FLIP_PROBABILITY),
    )


def _factor(strength: float) -> Any:
    return fn.random.uniform(range=(1 - strength, 1 + strength))
