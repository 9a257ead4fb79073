"""Pictures that a program has in its hands."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Sequence, Sized
from typing import TypeAlias, cast

from fastdino.errors import UserError

Item: TypeAlias = bytes | tuple[bytes, int]
"""An undecoded picture, or one with its label."""

# A picture that cannot be decoded is replaced by a later one, and the loader works on some batches at a time: so many
# items are kept behind the newest one.
WINDOW = 1024


class IterableSource:
    """Pictures as bytes, or as (bytes, label), from any iterable.

    A sequence is shuffled like a folder. Anything else is a stream: each epoch goes through it once, from its
    beginning, in its own order; `length` says how many pictures that is, unless the iterable knows. A stream is read
    in order by one reader at a time; it keeps the last WINDOW items in memory.

    Raises UserError for a stream without a length; while reading, for one that ends early, and for an iterator, which
    can be gone through only once, in the second epoch. What the iterable raises passes through.
    """

    def __init__(self, pictures: Iterable[Item], length: int | None = None) -> None:
        self.classes: list[str] = []
        self.sequential = not isinstance(pictures, Sequence)
        self._pictures = pictures
        if length is None:
            if not isinstance(pictures, Sized):
                raise UserError("A stream of pictures needs its length: IterableSource(pictures, length=...).")
            length = len(pictures)
        self._length = length
        self._stream: Iterator[Item] | None = None
        self._items: dict[int, Item] = {}
        self._next = 0
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return self._length

    def start_epoch(self, epoch: int) -> None:
        """Go back to the beginning of a stream."""
        with self._lock:
            stream = iter(self._pictures)
            if self._stream is stream and self._next > 0:
                raise UserError(
                    f"Epoch {epoch} needs the stream from its beginning, and an iterator has only one pass: "
                    "give an object whose __iter__ starts anew."
                )
            self._stream, self._next, self._items = stream, 0, {}

    def read(self, index: int) -> bytes:
        item = self._item(index)
        return item[0] if isinstance(item, tuple) else item

    def name(self, index: int) -> str:
        """Its number."""
        return f"picture {index}"

    def label(self, index: int) -> int:
        item = self._item(index)
        return int(item[1]) if isinstance(item, tuple) else -1

    def _item(self, index: int) -> Item:
        if not self.sequential:
            return cast("Sequence[Item]", self._pictures)[index]
        with self._lock:
            if self._stream is None:
                self._stream = iter(self._pictures)
            while self._next <= index:
                self._advance()
            if index not in self._items:
                raise UserError(f"Picture {index} of the stream has passed: more than {WINDOW} came after it.")
            return self._items[index]

    def _advance(self) -> None:
        assert self._stream is not None
        try:
            self._items[self._next] = next(self._stream)
        except StopIteration:
            raise UserError(
                f"The stream of pictures ended after {self._next} of {self._length}: give its true length."
            ) from None
        self._items.pop(self._next - WINDOW, None)
        self._next += 1
