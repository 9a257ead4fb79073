"""One feature vector a picture, as every evaluation needs them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate

import numpy as np
import numpy.typing as npt
import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor, nn

from fastdino.cores import over_cores
from fastdino.data.normalize import normalize
from fastdino.data.sources import Source
from fastdino.distributed.world import ALONE, World
from fastdino.errors import UserError
from fastdino.evaluate.cuts import Cut, centre_crop
from fastdino.evaluate.feature_cache import FeatureBatch, FeatureCache
from fastdino.evaluate.fingerprints import of_features
from fastdino.evaluate.loading import Batch, Cutting, Prepare, load_pictures
from fastdino.models.memory_format import for_convolutions

# Pixels in one pass on a CPU, eight pictures of 224: what a layer makes of more falls out of the caches, and each time
# into fresh pages (benchmarks/features.py).
PIXELS_AT_ONCE = 8 * 224**2


@dataclass(frozen=True)
class Features:
    """Features of the pictures of a source that could be read, in the source's order, on the CPU.

    `features` (n, D) float32, `labels` (n,) int64 with -1 for none, `indices` (n,) int64 into the source,
    `skipped` names of unreadable pictures -> reason.
    """

    features: Tensor
    labels: Tensor
    indices: Tensor
    skipped: dict[str, str]

    def labelled(self) -> Features:
        """Without the pictures that have no label."""
        keep = self.labels >= 0
        return Features(self.features[keep], self.labels[keep], self.indices[keep], self.skipped)


def extract_features(
    model: nn.Module,
    source: Source,
    *,
    image_size: int = 224,
    cut: Cut = centre_crop,
    batch_size: int = 128,
    num_workers: int = 10,
    device: torch.device | str = "cpu",
    description: str = "Features",
    console: Console | None = None,
    world: World = ALONE,
    cache: FeatureCache | None = None,
) -> Features:
    """Pass every picture, by default its middle, through `model`, which is moved to `device` and evaluated without
    gradients.

    Args:
        model: normalised pictures (B, 3, H, W) -> features (B, D).
        source: where the pictures come from.
        image_size: the size that `cut` is given, in pixels.
        cut: what of a picture the model gets.
        batch_size: pictures that are read and passed on together, on a GPU in one forward pass.
        num_workers: most processes that read pictures; 0 reads in this one.
        device: where the model runs.
        description: what the progress bar says.
        console: where the bar is drawn; the terminal without one.
        world: the processes that share the work; each gets all features, and all must ask for them.
        cache: where features are kept that were computed before.

    Pictures that cannot be read are left out and named in `skipped`. Raises UserError when that is all of
    them.
    """
    was_training = model.training
    batches = stream_features(
        model,
        source,
        image_size=image_size,
        cut=cut,
        batch_size=batch_size,
        num_workers=num_workers,
        device=device,
        description=description,
        console=console,
        world=world,
        cache=cache,
    )
    features = put_together(source, batches)
    model.train(was_training)
    return features


def put_together(source: Source, batches: Iterable[FeatureBatch]) -> Features:
    """The features in `batches` of the source's pictures, in any order. Raises UserError where there are none."""
    parts: list[Tensor] = []
    indices: list[int] = []
    skipped: dict[str, str] = {}
    for part in batches:
        if part.indices:
            parts.append(part.features)
        indices += part.indices
        skipped |= part.skipped
    if not indices:
        raise UserError(none_readable(skipped))
    order = torch.tensor(indices).argsort()
    labels = torch.tensor([source.label(index) for index in indices])
    return Features(torch.cat(parts)[order], labels[order], torch.tensor(indices)[order], skipped)


def together(parts: Sequence[Features], sizes: Sequence[int]) -> Features:
    """Features of several sources of those sizes as those of all joined, in the same order."""
    starts = [0, *accumulate(sizes)]
    return Features(
        torch.cat([part.features for part in parts]),
        torch.cat([part.labels for part in parts]),
        torch.cat([part.indices + start for part, start in zip(parts, starts, strict=False)]),
        {name: reason for part in parts for name, reason in part.skipped.items()},
    )


def batches_of(pictures: int, batch_size: int) -> list[range]:
    """The numbers of so many pictures, a batch at a time."""
    return [range(start, min(start + batch_size, pictures)) for start in range(0, pictures, batch_size)]


def stream_features(
    model: nn.Module,
    source: Source,
    *,
    image_size: int,
    cut: Cut = centre_crop,
    batch_size: int,
    num_workers: int,
    device: torch.device | str,
    description: str,
    console: Console | None,
    world: World = ALONE,
    cache: FeatureCache | None = None,
) -> Iterator[FeatureBatch]:
    """What `extract_features` gathers, batch by batch in the source's order; `model` is left in evaluation mode."""
    model.eval().to(device)
    key = None if cache is None else of_features(model, source, image_size, cut, torch.device(device).type)
    keys = batches_of(len(source), batch_size)
    computed = compute_features(
        model, source, keys, Cutting(cut, image_size), num_workers=num_workers, device=device, world=world
    )
    if cache is not None and key is not None:
        # All of them or none: whoever computes waits for the others.
        if all(world.gather(cache.has(key, source))):
            yield from cache.read(key, source, batch_size)
            return
        if world.local_rank == 0:
            computed = cache.keeping(key, computed)
    with progress_bar(console) as progress:
        task = progress.add_task(description, total=len(source))
        for batch in computed:
            yield batch
            progress.advance(task, len(batch.indices) + len(batch.skipped))


def compute_features(
    model: nn.Module,
    source: Source,
    keys: Sequence[Sequence[int]],
    prepare: Prepare,
    *,
    num_workers: int,
    device: torch.device | str,
    world: World,
) -> Iterator[FeatureBatch]:
    """Features of the pictures at each of `keys`, a batch a key, by `model`, which is on `device` and evaluated.

    The processes take turns: each computes one batch, and all get it.
    """
    own = load_pictures(source, keys[world.rank :: world.size], prepare, num_workers=num_workers)
    for start in range(0, len(keys), world.size):
        batch: FeatureBatch | None = None
        if start + world.rank < len(keys):
            loaded = next(own)
            batch = features_of(model, loaded, device)
        yield from (each for each in world.gather(batch) if each is not None)


def features_of(model: nn.Module, batch: Batch, device: torch.device | str) -> FeatureBatch:
    """Features of pictures that were read, by `model`, which is on `device` and evaluated."""
    return FeatureBatch(_forward(model, batch.pictures, device), batch.indices, batch.skipped)


def _forward(model: nn.Module, pictures: Sequence[npt.NDArray[np.uint8]], device: torch.device | str) -> Tensor:
    """Features in the pictures' order; those of one shape go through the model together, on CPUs a few at a time."""
    places: dict[tuple[int, ...], list[int]] = {}
    for place, picture in enumerate(pictures):
        places.setdefault(picture.shape, []).append(place)
    batches: list[list[int]] = []
    for shape, alike in places.items():
        at_once = len(alike)
        if torch.device(device).type == "cpu":
            at_once = max(1, PIXELS_AT_ONCE // math.prod(shape[1:]))
        batches += [alike[start : start + at_once] for start in range(0, len(alike), at_once)]

    # In each thread, which has a mode of its own.
    @torch.no_grad()
    def features(batch: list[int]) -> Tensor:
        together = torch.from_numpy(np.stack([pictures[place] for place in batch]))
        return model(normalize(for_convolutions(together.to(device)))).float().cpu()

    on_cpu = torch.device(device).type == "cpu"
    parts = over_cores(features, batches) if on_cpu else [features(batch) for batch in batches]
    rows: list[Tensor] = [torch.empty(0)] * len(pictures)
    for batch, part in zip(batches, parts, strict=True):
        for place, row in zip(batch, part, strict=True):
            rows[place] = row
    return torch.stack(rows) if rows else torch.empty(0)


def pixel_features(source: Source, size: int = 32, *, num_workers: int = 0, console: Console | None = None) -> Features:
    """The baseline that any training must beat: the same crop, `size` pixels wide, its 3 * size**2 numbers as
    they are.
    """
    return extract_features(
        nn.Flatten(), source, image_size=size, num_workers=num_workers, description="Pixels", console=console
    )


def progress_bar(console: Console | None) -> Progress:
    """A bar with counts and the time left, which disappears when it is done."""
    console = console or Console()
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    # In a file, all that would be left of the bar is an empty line.
    return Progress(*columns, console=console, transient=True, disable=not console.is_terminal)


def none_readable(skipped: dict[str, str]) -> str:
    """The sentence for a source without a readable picture."""
    if not skipped:
        return "there are no pictures to look at: give a folder that has some"
    name, reason = next(iter(skipped.items()))
    count = len(skipped)
    return f"none of the {count} pictures can be read ({name}: {reason}): give pictures that Pillow can open"


def report_skipped(console: Console, skipped: dict[str, str], *, shown: int = 5) -> None:
    """Say how many pictures were left out, and why the first `shown` of them."""
    if not skipped:
        return
    some = "; ".join(f"{name}: {reason}" for name, reason in list(skipped.items())[:shown])
    rest = len(skipped) - shown
    more = f"; and {rest} more" if rest > 0 else ""
    console.print(f"{len(skipped)} unreadable pictures left out ({some}{more})", markup=False, soft_wrap=True)
