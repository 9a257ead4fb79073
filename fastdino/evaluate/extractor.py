"""Features as a command computes them: by its flags, in all processes that take part, and kept for the next command."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from rich.console import Console
from torch import nn

from fastdino.config import FeaturesConfig
from fastdino.data.sources import Source
from fastdino.distributed.world import World, joined, place_from_environment
from fastdino.errors import UserError
from fastdino.evaluate.cuts import Cut, centre_crop
from fastdino.evaluate.feature_cache import FeatureBatch, FeatureCache, users_cache
from fastdino.evaluate.features import Features, extract_features, stream_features


@dataclass(frozen=True)
class Extractor:
    """What is the same for all features that a command takes; the fields are as in `extract_features`."""

    world: World
    console: Console
    device: torch.device
    batch_size: int
    num_workers: int
    cache: FeatureCache | None

    def features(
        self, model: nn.Module, source: Source, image_size: int, description: str, cut: Cut = centre_crop
    ) -> Features:
        """As `extract_features`."""
        return extract_features(
            model,
            source,
            image_size=image_size,
            cut=cut,
            batch_size=self.batch_size,
            num_workers=self.num_workers,
            device=self.device,
            description=description,
            console=self.console,
            world=self.world,
            cache=self.cache,
        )

    def stream(self, model: nn.Module, source: Source, image_size: int, description: str) -> Iterator[FeatureBatch]:
        """As `stream_features`."""
        return stream_features(
            model,
            source,
            image_size=image_size,
            batch_size=self.batch_size,
            num_workers=self.num_workers,
            device=self.device,
            description=description,
            console=self.console,
            world=self.world,
            cache=self.cache,
        )


@contextmanager
def extractor(config: FeaturesConfig, *, use_cuda: bool = True) -> Iterator[Extractor]:
    """Join the processes that a launcher has started, if any; of those only the first has a console that speaks.

    Raises UserError as `joined` does, and for settings that cannot be.
    """
    if config.batch_size_per_gpu < 1:
        raise UserError(f"--batch_size_per_gpu is {config.batch_size_per_gpu}: give at least 1")
    if config.num_workers < 0:
        raise UserError(f"--num_workers is {config.num_workers}: give 0 to read without further processes, or more")
    with joined(place_from_environment()) as world:
        yield Extractor(
            world,
            Console(quiet=not world.is_main),
            world.device if use_cuda else torch.device("cpu"),
            config.batch_size_per_gpu,
            config.num_workers,
            users_cache(config.feature_cache),
        )
