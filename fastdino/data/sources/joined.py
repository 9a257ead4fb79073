"""Several sources as one."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate

from fastdino.data.sources.protocol import Source


class Joined:
    """The pictures of several sources with the same classes, those of one after those of another."""

    def __init__(self, sources: Sequence[Source]) -> None:
        self.sources = list(sources)
        self.classes = sources[0].classes
        self._starts = [0, *accumulate(map(len, sources))]

    def __len__(self) -> int:
        return self._starts[-1]

    def read(self, index: int) -> bytes:
        source, own = self._found(index)
        return source.read(own)

    def name(self, index: int) -> str:
        """Its name in its own source: two sources may have the same."""
        source, own = self._found(index)
        return source.name(own)

    def label(self, index: int) -> int:
        source, own = self._found(index)
        return source.label(own)

    def _found(self, index: int) -> tuple[Source, int]:
        number = bisect_right(self._starts, index) - 1
        return self.sources[number], index - self._starts[number]
