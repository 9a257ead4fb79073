"""A billion pictures on 1,024 processes, stopped in the middle and gone on with on half as many: each picture once?

    python -m benchmarks.scale [--pictures N] [--ranks N] [--batch_size N]

Draws every index that the loaders of all processes hand out in an epoch, by the loader's own functions, and marks it in
a bitmap; if as many bits are set as indices were drawn, none came twice. In the middle the position is saved, as a
checkpoint holds it, and taken up by half as many processes with twice the batch.

The same follows from the order's construction. Each round of its Feistel network can be undone, so the network permutes
a power of two; to go on along a cycle until the range is reached permutes the range. The positions of the ranks are the
numbers from 0 on, cut into pieces.
"""

from __future__ import annotations

import argparse
import resource
import time
from collections.abc import Iterator
from itertools import chain
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from fastdino.data import MultiCropLoader
from fastdino.data.order import EpochOrder

SEED, EPOCH = 0, 3


class Pictures:
    """A source of nothing but a length."""

    def __init__(self, count: int) -> None:
        self.classes: list[str] = []
        self._count = count

    def __len__(self) -> int:
        return self._count

    def read(self, index: int) -> bytes:
        raise OSError("there are no pictures, only their numbers")

    def name(self, index: int) -> str:
        return f"picture {index}"

    def label(self, index: int) -> int:
        return -1


class Outcome(NamedTuple):
    """Of one epoch: indices drawn, different ones among them, and the position saved in its middle."""

    drawn: int
    different: int
    position: dict[str, int]


def simulate(pictures: int, ranks: int, batch_size: int) -> Outcome:
    """One epoch, whose second half is drawn by half as many ranks with twice the batch."""
    bitmap = np.zeros(-(-pictures // 8), dtype=np.uint8)
    before = Ranks(pictures, ranks, batch_size)
    after = Ranks(pictures, ranks // 2, batch_size * 2)
    middle = before.batches // 2
    position = before.position(middle)
    drawn = 0
    for indices in chain(before.draw(0, middle), after.draw(after.batch_at(position), after.batches)):
        drawn += indices.size
        # One beyond the end would raise IndexError, one before the beginning must not count from the end.
        assert indices.min() >= 0
        mark(bitmap, indices)
    different = sum(int(np.unpackbits(part).sum()) for part in np.array_split(bitmap, 64))
    return Outcome(drawn, different, position)


class Ranks:
    """The loaders of all processes; those of the others differ from the first one's in their rank alone."""

    def __init__(self, pictures: int, ranks: int, batch_size: int) -> None:
        self._loader = MultiCropLoader(
            Pictures(pictures), batch_size, seed=SEED, num_threads=0, world_size=ranks, implementation="reference"
        )
        self._settings = [self._loader._settings._replace(rank=rank) for rank in range(ranks)]
        self._order = EpochOrder(SEED, EPOCH, pictures)
        self.batches = len(self._loader)

    def draw(self, start: int, end: int) -> Iterator[npt.NDArray[np.int64]]:
        """The indices of each global batch, (ranks, batch_size)."""
        within = np.arange(self._settings[0].batch_size)
        for batch in range(start, end):
            first = np.array([settings.first_position(batch) for settings in self._settings])
            yield self._order[first[:, None] + within]

    def position(self, batch: int) -> dict[str, int]:
        """What a checkpoint holds before `batch`."""
        self._loader._move_to(EPOCH, batch)
        return self._loader.state_dict()

    def batch_at(self, position: dict[str, int]) -> int:
        """The batch that a run goes on with from a saved position."""
        self._loader.load_state_dict(position)
        return self._loader._batch


def mark(bitmap: npt.NDArray[np.uint8], indices: npt.NDArray[np.int64]) -> None:
    """Set the bits of `indices`."""
    flat = indices.reshape(-1)
    np.bitwise_or.at(bitmap, flat >> 3, np.left_shift(np.uint8(1), (flat & 7).astype(np.uint8)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, default=10**9)
    parser.add_argument("--ranks", type=int, default=1024)
    parser.add_argument("--batch_size", type=int, default=64)
    arguments = parser.parse_args()
    # What is imported on the way is not the order's.
    simulate(2 * arguments.ranks * arguments.batch_size, arguments.ranks, arguments.batch_size)
    started = time.monotonic()
    at_start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    outcome = simulate(arguments.pictures, arguments.ranks, arguments.batch_size)
    seconds = time.monotonic() - started
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - at_start
    order = EpochOrder(SEED, EPOCH, arguments.pictures)
    size = sum(getattr(value, "nbytes", 8) for value in vars(order).values())
    print(f"{arguments.pictures:,} pictures, {arguments.ranks:,} ranks, then {arguments.ranks // 2:,}")
    print(f"drawn {outcome.drawn:,}, different {outcome.different:,}")
    print(f"left over, fewer than a global batch: {arguments.pictures - outcome.drawn:,}")
    print(f"order: {size} bytes; saved position: {outcome.position}")
    print(f"memory grew by {grown / 1024:.0f} MB, of which the bitmap is {arguments.pictures / 8e6:.0f} MB")
    print(f"{seconds:.0f} s, {seconds / outcome.drawn * 1e9:.0f} ns an index with its mark, on one core")
    if outcome.drawn != outcome.different:
        raise SystemExit("some pictures came twice")


if __name__ == "__main__":
    main()
