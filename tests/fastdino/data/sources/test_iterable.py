from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch

from fastdino import native
from fastdino.data import MultiCropLoader
from fastdino.data.sources import IterableSource, Source, iterable, open_source
from fastdino.errors import UserError
from tests.fastdino.prepare.pictures import encoded, photo

IMPLEMENTATIONS = [
    "reference",
    pytest.param("native", marks=pytest.mark.skipif(not native.available(), reason=native.why_not() or "never")),
]
every_implementation = pytest.mark.parametrize("implementation", IMPLEMENTATIONS)


class Stream:
    """Numbered pictures that start anew with every `iter`; the number is also the label."""

    def __init__(self, count: int, bad: tuple[int, ...] = ()) -> None:
        self.count = count
        self.bad = bad
        self.passes = 0
        self.given: list[int] = []
        self.readers: set[int] = set()

    def __iter__(self) -> Iterator[tuple[bytes, int]]:
        self.passes += 1
        for number in range(self.count):
            self.given.append(number)
            self.readers.add(threading.get_ident())
            yield b"no picture" if number in self.bad else _picture(number), number


def _picture(number: int) -> bytes:
    """One colour, which tells the number."""
    return b"P6 1 1 255 " + bytes([number] * 3)


def _loader(source: Any, batch_size: int, implementation: Any, **options: Any) -> MultiCropLoader:
    plain: dict[str, Any] = {"local_crops_number": 0, "global_size": 4, "color_jitter": (0, 0, 0, 0)}
    settings = plain | {"output": "uint8", "num_threads": 3, "implementation": implementation} | options
    return MultiCropLoader(source, batch_size, **settings)


def _colours(crops: list[torch.Tensor]) -> list[int]:
    return crops[0][:, 0, 0, 0].tolist()


def test_a_sequence_is_a_source_like_any_other() -> None:
    source = IterableSource([b"a", (b"b", 5), b"c"])
    assert isinstance(source, Source) and not source.sequential
    assert [source.read(index) for index in (2, 0, 1)] == [b"c", b"a", b"b"]
    assert [source.label(index) for index in range(3)] == [-1, 5, -1]
    assert source.name(1) == "picture 1"
    assert len(source) == 3 and source.classes == []


@every_implementation
def test_a_sequence_is_shuffled_in_every_epoch(implementation: str) -> None:
    loader = _loader([(_picture(number), number) for number in range(40)], 40, implementation, num_threads=0)
    epochs = [labels.tolist() for _ in range(2) for _, labels in loader]
    loader.close()
    assert epochs[0] != epochs[1] != list(range(40))
    assert [sorted(labels) for labels in epochs] == [list(range(40))] * 2


@every_implementation
def test_a_stream_is_gone_through_once_an_epoch_in_its_own_order(implementation: str) -> None:
    stream = Stream(22)
    loader = _loader(IterableSource(stream, 22), 5, implementation)
    for epoch in range(1, 4):
        batches = list(loader)
        assert [labels.tolist() for _, labels in batches] == [list(range(start, start + 5)) for start in (0, 5, 10, 15)]
        assert [_colours(crops) for crops, _ in batches] == [labels.tolist() for _, labels in batches]
        assert stream.passes == epoch
    loader.close()
    # Each item once, in order, although there are several threads.
    assert stream.given == [*range(20)] * 3


@every_implementation
def test_what_cannot_be_decoded_is_replaced_by_the_one_after_it(implementation: str) -> None:
    loader = _loader(IterableSource(Stream(12, bad=(2, 3, 7)), 12), 10, implementation)
    for _ in range(2):
        ((_, labels),) = list(loader)
        assert labels.tolist() == [0, 1, 4, 4, 4, 5, 6, 8, 8, 9]
    loader.close()
    assert loader.skipped.keys() == {"picture 2", "picture 3", "picture 7"}


@every_implementation
def test_a_stream_resumes_where_it_was_left(implementation: str) -> None:
    loader = _loader(IterableSource(Stream(20), 20), 4, implementation)
    loader.load_state_dict({"epoch": 1, "samples": 8})
    batches = list(loader)
    loader.close()
    assert [labels.tolist() for _, labels in batches] == [[8, 9, 10, 11], [12, 13, 14, 15], [16, 17, 18, 19]]


@every_implementation
def test_an_iterator_lasts_one_epoch(implementation: str) -> None:
    loader = _loader(IterableSource(iter(Stream(8)), 8), 4, implementation)
    assert len(list(loader)) == 2
    with pytest.raises(UserError, match=r"Epoch 1 needs the stream from its beginning.*__iter__ starts anew"):
        next(iter(loader))
    loader.close()


@every_implementation
def test_a_stream_that_ends_early(implementation: str) -> None:
    loader = _loader(IterableSource(Stream(6), 8), 4, implementation)
    with pytest.raises(UserError, match="The stream of pictures ended after 6 of 8: give its true length"):
        list(loader)
    loader.close()


@every_implementation
def test_what_a_stream_raises_names_the_picture(implementation: str) -> None:
    def broken() -> Iterator[bytes]:
        yield from map(_picture, range(5))
        raise LookupError("line down")

    loader = _loader(IterableSource(broken(), 8), 4, implementation)
    with pytest.raises(RuntimeError, match="picture 5: LookupError: line down"):
        list(loader)
    loader.close()


def test_only_the_last_items_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(iterable, "WINDOW", 10)
    source = IterableSource(Stream(100), 100)
    for index in range(50):
        source.read(index)
    assert len(source._items) == 10
    assert source.label(40) == 40
    with pytest.raises(UserError, match="Picture 39 of the stream has passed: more than 10 came after it"):
        source.read(39)


def test_a_stream_needs_its_length() -> None:
    with pytest.raises(UserError, match=r"needs its length: IterableSource\(pictures, length=\.\.\.\)"):
        IterableSource(Stream(3))

    class Counted(Stream):
        def __len__(self) -> int:
            return self.count

    assert len(IterableSource(Counted(3))) == 3


def test_open_source_takes_iterables_and_refuses_the_rest() -> None:
    assert isinstance(open_source([b"a"]), IterableSource)
    source = IterableSource([b"a"])
    assert open_source(source) is source
    for nothing in (b"bytes", 5, None):
        with pytest.raises(UserError, match=r"No pictures can be had from a \w+: give a folder"):
            open_source(nothing)


@pytest.mark.skipif(not native.available(), reason=native.why_not() or "never")
@pytest.mark.parametrize("threads", [1, 5])
def test_both_implementations_make_the_same_of_a_stream(threads: int) -> None:
    pictures = [encoded(photo(30 + number, 40)) if number % 4 else b"no picture" for number in range(30)]

    class Files(Stream):
        def __iter__(self) -> Iterator[tuple[bytes, int]]:
            return ((picture, number) for number, picture in enumerate(pictures))

    batches = []
    for implementation in ("native", "reference"):
        loader = _loader(IterableSource(Files(30), 30), 6, implementation, num_threads=threads, local_crops_number=2)
        batches.append([*loader, *loader])
        loader.close()
    assert len(batches[0]) == 10
    for (our_crops, our_labels), (their_crops, their_labels) in zip(*batches, strict=True):
        np.testing.assert_array_equal(our_labels, their_labels)
        assert all(map(torch.equal, our_crops, their_crops))
