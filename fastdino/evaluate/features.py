"""One feature vector a picture, as every evaluation needs them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor, nn
from torch.utils.data import DataLoader

from fastdino.cores import usable_cores
from fastdino.data.normalize import normalize
from fastdino.data.reading import UnreadableImage, read_image, reason_of
from fastdino.data.reference_worker import as_it_is, start_worker
from fastdino.data.sources import Source
from fastdino.errors import UserError
from fastdino.evaluate.cuts import Cut, centre_crop


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
) -> Features:
    """Pass every picture, by default its middle, through `model`, which is moved to `device` and evaluated without
    gradients.

    Args:
        model: normalised pictures (B, 3, H, W) -> features (B, D).
        source: where the pictures come from.
        image_size: the size that `cut` is given, in pixels.
        cut: what of a picture the model gets.
        batch_size: pictures in one forward pass.
        num_workers: most processes that read pictures; 0 reads in this one.
        device: where the model runs.
        description: what the progress bar says.
        console: where the bar is drawn; the terminal without one.

    Pictures that cannot be read are left out and named in `skipped`. Raises UserError when that is all of
    them.
    """
    parts: list[Tensor] = []
    indices: list[int] = []
    skipped: dict[str, str] = {}
    was_training = model.training
    for part in stream_features(
        model,
        source,
        image_size=image_size,
        cut=cut,
        batch_size=batch_size,
        num_workers=num_workers,
        device=device,
        description=description,
        console=console,
    ):
        if part.indices:
            parts.append(part.features)
        indices += part.indices
        skipped |= part.skipped
    model.train(was_training)
    if not indices:
        raise UserError(none_readable(skipped))
    labels = torch.tensor([source.label(index) for index in indices])
    return Features(torch.cat(parts), labels, torch.tensor(indices), skipped)


class FeatureBatch(NamedTuple):
    """Features (n, D) float32 on the CPU of the pictures at `indices`, (0,) where there are none, and names of those
    unreadable -> reason.
    """

    features: Tensor
    indices: list[int]
    skipped: dict[str, str]


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
) -> Iterator[FeatureBatch]:
    """What `extract_features` gathers, batch by batch in the source's order; `model` is left in evaluation mode."""
    model.eval().to(device)
    with progress_bar(console) as progress:
        task = progress.add_task(description, total=len(source))
        for batch in load_pictures(source, image_size, batch_size, num_workers, cut):
            yield FeatureBatch(_forward(model, batch.pictures, device), batch.indices, batch.skipped)
            progress.advance(task, len(batch.indices) + len(batch.skipped))


@torch.no_grad()
def _forward(model: nn.Module, pictures: Sequence[npt.NDArray[np.uint8]], device: torch.device | str) -> Tensor:
    """Features in the pictures' order; those of one shape go through the model together."""
    places: dict[tuple[int, ...], list[int]] = {}
    for place, picture in enumerate(pictures):
        places.setdefault(picture.shape, []).append(place)
    rows: list[Tensor] = [torch.empty(0)] * len(pictures)
    for alike in places.values():
        batch = torch.from_numpy(np.stack([pictures[place] for place in alike]))
        for place, row in zip(alike, model(normalize(batch.to(device))).float().cpu(), strict=True):
            rows[place] = row
    return torch.stack(rows) if rows else torch.empty(0)


def pixel_features(source: Source, size: int = 32, *, num_workers: int = 0, console: Console | None = None) -> Features:
    """The baseline that any training must beat: the same crop, `size` pixels wide, its 3 * size**2 numbers as
    they are.
    """
    return extract_features(
        nn.Flatten(), source, image_size=size, num_workers=num_workers, description="Pixels", console=console
    )


class Batch(NamedTuple):
    """Cut pictures (3, H, W) uint8 at `indices`, and names of those unreadable -> reason."""

    pictures: list[npt.NDArray[np.uint8]]
    indices: list[int]
    skipped: dict[str, str]


def load_pictures(
    source: Source, size: int, batch_size: int, num_workers: int, cut: Cut = centre_crop
) -> Iterator[Batch]:
    """Batches of `batch_size` pictures in the source's order, the last one smaller."""
    keys = [range(start, min(start + batch_size, len(source))) for start in range(0, len(source), batch_size)]
    workers = min(num_workers, usable_cores())
    loader: DataLoader[Batch] = DataLoader(
        _Batches(source, size, cut),  # type: ignore[arg-type]  # a mapping from keys to items is all that it needs
        batch_size=None,
        sampler=keys,
        # Starting processes takes longer than reading one batch.
        num_workers=workers if len(keys) > 1 else 0,
        collate_fn=as_it_is,
        worker_init_fn=start_worker,
        # Without its own, it would draw from torch's: training would go on differently after an evaluation.
        generator=torch.Generator(),
    )
    yield from loader


class _Batches:
    """Item `indices` is their Batch, in numpy: tensors would travel through /dev/shm, which containers keep
    small.
    """

    def __init__(self, source: Source, size: int, cut: Cut) -> None:
        self.source = source
        self.size = size
        self.cut = cut

    def __getitem__(self, indices: Sequence[int]) -> Batch:
        pictures: list[npt.NDArray[np.uint8]] = []
        used: list[int] = []
        skipped: dict[str, str] = {}
        for index in indices:
            try:
                picture = self.cut(read_image(self.source.read(index)), self.size)
            except UnreadableImage as error:
                skipped[self.source.name(index)] = str(error)
            except OSError as error:
                skipped[self.source.name(index)] = reason_of(error)
            else:
                pictures.append(np.asarray(picture).transpose(2, 0, 1))
                used.append(index)
        return Batch(pictures, used, skipped)


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
