"""What all pictures of a source are like, in memory that hardly grows with their number."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from fastdino.prepare.inspect import DIGEST_BYTES, SAMPLE_SIDE, Picture

_NUMBER = re.compile(r"\d+")


@dataclass(frozen=True)
class Spread:
    """Smallest, median and largest value; 0 where there is none."""

    min: float
    median: float
    max: float


@dataclass
class Survey:
    """Filled picture by picture with `add`: 24 bytes for each of `count`, and an entry for each unusable one."""

    count: int
    unreadable: dict[int, str] = field(default_factory=dict)
    """Index -> reason."""
    formats: Counter[str] = field(default_factory=Counter)
    modes: Counter[str] = field(default_factory=Counter)
    misnamed: dict[int, str] = field(default_factory=dict)
    """Index -> the format that it really has."""
    progressive: int = 0
    rotated: int = 0
    animated: int = 0

    def __post_init__(self) -> None:
        self.widths = np.zeros(self.count, dtype=np.int32)
        self.heights = np.zeros(self.count, dtype=np.int32)
        self.bytes = 0
        """Of all usable files."""
        self._digests = np.zeros((self.count, DIGEST_BYTES), dtype=np.uint8)
        self._sums = np.zeros(3, dtype=np.int64)
        self._squares = np.zeros(3, dtype=np.int64)

    def add(self, index: int, found: Picture | str) -> None:
        """`found` is what `inspect` says of the picture."""
        if isinstance(found, str):
            self.unreadable[index] = found
            return
        self.widths[index], self.heights[index] = found.width, found.height
        self._digests[index] = np.frombuffer(found.digest, dtype=np.uint8)
        self.bytes += found.file_bytes
        self.formats[found.format] += 1
        self.modes[found.mode] += 1
        if found.misnamed:
            self.misnamed[index] = found.format
        self.progressive += found.progressive
        self.rotated += found.rotated
        self.animated += found.animated
        self._sums += found.sums
        self._squares += found.squares

    @property
    def usable(self) -> npt.NDArray[np.int64]:
        """Indices of the pictures that the trainer would use."""
        return np.flatnonzero(self.widths)

    def reasons(self) -> Counter[str]:
        """How many pictures are unusable for each reason; numbers in it, which differ by file, as "N"."""
        return Counter(_NUMBER.sub("N", reason) for reason in self.unreadable.values())

    def smaller_than(self, side: int) -> npt.NDArray[np.int64]:
        """Indices of usable pictures whose shorter side has fewer than `side` pixels."""
        shorter = np.minimum(self.widths, self.heights)
        return np.flatnonzero((shorter > 0) & (shorter < side))

    def duplicates(self) -> list[npt.NDArray[np.int64]]:
        """Groups of indices of equal files, each in order; the groups are in the order of their first picture."""
        usable = self.usable
        keys = self._digests[usable].view(np.uint64)
        by_digest = np.lexsort((keys[:, 1], keys[:, 0]))  # stable: equal files stay in order
        sorted_keys = keys[by_digest]
        changes = np.flatnonzero((sorted_keys[1:] != sorted_keys[:-1]).any(axis=1)) + 1
        starts = np.concatenate(([0], changes))
        ends = np.concatenate((changes, [len(usable)]))
        several = ends - starts > 1
        pairs = zip(starts[several].tolist(), ends[several].tolist(), strict=True)
        groups = [usable[by_digest[start:end]] for start, end in pairs]
        return sorted(groups, key=lambda group: int(group[0]))

    def sizes(self) -> dict[str, Spread]:
        """Width and height in pixels, area in megapixels, and width over height."""
        width, height = self.widths[self.usable].astype(np.float64), self.heights[self.usable].astype(np.float64)
        values = {"width": width, "height": height, "megapixels": width * height / 1e6, "aspect": width / height}
        return {name: _spread(numbers) for name, numbers in values.items()}

    def channels(self) -> tuple[list[float], list[float]]:
        """Mean and standard deviation of red, green and blue on a scale of 0 .. 1, each picture weighing the same."""
        points = max(1, len(self.usable)) * SAMPLE_SIDE**2
        mean = self._sums / points
        deviation = np.sqrt(np.maximum(self._squares / points - mean**2, 0))
        return (mean / 255).tolist(), (deviation / 255).tolist()


def _spread(values: npt.NDArray[np.float64]) -> Spread:
    if not len(values):
        return Spread(0, 0, 0)
    return Spread(float(values.min()), float(np.median(values)), float(values.max()))
