"""Tar shards in a store: fsspec's own memory and files, and a store that is slow, breaks, or goes away."""

from __future__ import annotations

import os
import pickle
import tarfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any, ClassVar

import fsspec
import pytest
import torch
from fsspec.implementations.memory import MemoryFileSystem

from fastdino import native
from fastdino.data import MultiCropLoader
from fastdino.data.sources import Source, Subset, TarSource, announcing, open_source, store
from fastdino.data.sources.read_ahead import ReadAhead
from fastdino.errors import UserError
from tests.fastdino.prepare.pictures import encoded, photo

IMPLEMENTATIONS = [
    "reference",
    pytest.param("native", marks=pytest.mark.skipif(not native.available(), reason=native.why_not() or "never")),
]
PATIENCE = 30


class Slow(MemoryFileSystem):
    """A store whose parts of files are counted, may wait for each other, and may fail."""

    protocol = "slow"
    store: ClassVar[dict[str, Any]] = {}
    pseudo_dirs: ClassVar[list[str]] = [""]
    lock = threading.Lock()
    requests: ClassVar[list[str]] = []
    failures: ClassVar[Counter[str]] = Counter()
    together: ClassVar[threading.Barrier | None] = None

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return "/" + path.removeprefix("slow://").strip("/")

    def cat_file(self, path: str, start: int | None = None, end: int | None = None, **options: Any) -> bytes:
        if self.together is not None:
            self.together.wait(PATIENCE)
        with self.lock:
            self.requests.append(path)
            for failing in (path, "everything"):
                if self.failures[failing] > 0:
                    self.failures[failing] -= 1
                    raise RuntimeError("the line is dead")
        data: bytes = super().cat_file(path, start, end, **options)
        return data


@pytest.fixture(autouse=True)
def stores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    fsspec.register_implementation("slow", Slow, clobber=True)
    monkeypatch.setattr(store, "_FIRST_PAUSE", 0.0)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    yield
    for emptied in (MemoryFileSystem.store, Slow.store, Slow.requests, Slow.failures):
        emptied.clear()
    Slow.together = None


def shard(members: dict[str, bytes]) -> bytes:
    file = BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, BytesIO(content))
    return file.getvalue()


def put(url: str, members: dict[str, bytes]) -> None:
    with fsspec.open(url, "wb") as file:
        file.write(shard(members))


def contents(source: Source) -> list[tuple[str, bytes, int]]:
    return [(source.name(index), source.read(index), source.label(index)) for index in range(len(source))]


def loader_of(source: Source | str, implementation: Any, batch_size: int, threads: int = 2) -> MultiCropLoader:
    return MultiCropLoader(
        source,
        batch_size,
        num_threads=threads,
        global_size=8,
        local_crops_number=0,
        output="uint8",
        implementation=implementation,
    )


@pytest.mark.parametrize("given", ["set/s-{08..10}.tar", "set/s-*.tar", "set", "set/s-{08..09}.tar", "set/s-08.tar"])
def test_a_url_reads_as_the_files_do(tmp_path: Path, given: str) -> None:
    (tmp_path / "set").mkdir()
    for number in ("08", "09", "10"):
        # Larger than what is read of a shard at a time.
        members = {f"b/{number}.jpg": number.encode() * 700_000, "a/x.png": b"", "a/x.txt": b"no", "top.jpg": b"t"}
        for url in (f"memory://set/s-{number}.tar", f"file://{tmp_path}/set/s-{number}.tar"):
            put(url, members)
    expected = contents(TarSource(tmp_path / given))
    for url in (f"memory://{given}", f"file://{tmp_path}/{given}"):
        source = open_source(url)
        assert isinstance(source, Source)
        assert contents(source) == expected
        assert source.classes == ["a", "b"]
        assert contents(pickle.loads(pickle.dumps(source))) == expected


def test_a_shard_is_read_through_once_while_it_stays_the_same() -> None:
    put("slow://1.tar", {"a.jpg": b"a"})
    first = contents(open_source("slow://1.tar"))
    Slow.requests.clear()
    assert contents(open_source("slow://1.tar")) == first
    assert Slow.requests == ["/1.tar"]  # for the picture
    put("slow://1.tar", {"b.jpg": b"b"})
    assert contents(open_source("slow://1.tar")) == [("1.tar/b.jpg", b"b", -1)]


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize("threads", [0, 2])
def test_batches_are_those_of_the_files(tmp_path: Path, implementation: Any, threads: int) -> None:
    members = {f"{label}/{number}.jpg": encoded(photo(30 + number, 40)) for label in "ab" for number in range(5)}
    members["b/damaged.jpg"] = b"no picture"
    (tmp_path / "1.tar").write_bytes(shard(members))
    put("memory://1.tar", members)
    batches = []
    for path in ("memory://1.tar", tmp_path / "1.tar"):
        loader = loader_of(open_source(path), implementation, 3, threads)
        batches.append([*loader, *loader])
        assert set(loader.skipped) == {"1.tar/b/damaged.jpg"}
        loader.close()
    for (our_crops, our_labels), (their_crops, their_labels) in zip(*batches, strict=True):
        assert torch.equal(our_labels, their_labels)
        assert all(map(torch.equal, our_crops, their_crops))


@pytest.mark.skipif(not native.available(), reason=native.why_not() or "never")
def test_a_slow_store_is_read_ahead_of_the_batches() -> None:
    """Every request waits until as many as a batch has are under way: one after the other they would never end."""
    put("slow://1.tar", {f"{number}.jpg": encoded(photo(30, 30)) for number in range(64)})
    source = Subset(open_source("slow://1.tar"), range(64))
    Slow.requests.clear()
    Slow.together = threading.Barrier(8)
    loader = loader_of(source, "native", 8, threads=1)
    batches = iter(loader)
    for _ in range(4):
        next(batches)
    # Those of three more batches come without anyone waiting for them.
    end = time.monotonic() + PATIENCE
    while len(Slow.requests) < 7 * 8:
        assert time.monotonic() < end
        time.sleep(0.01)
    loader.close()


def test_sources_that_read_at_once_are_told_nothing(tmp_path: Path) -> None:
    (tmp_path / "1.tar").write_bytes(shard({"a.jpg": b"a"}))
    source = TarSource(tmp_path)
    assert announcing(source) is None and announcing(Subset(source, [0])) is None


def test_of_a_broken_line_nothing_is_seen() -> None:
    put("slow://1.tar", {"a.jpg": b"a"})
    source = open_source("slow://1.tar")
    Slow.failures["everything"] = 4
    assert source.read(0) == b"a"


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize("threads", [0, 2])
def test_a_store_that_is_gone_is_one_sentence(implementation: Any, threads: int) -> None:
    put("slow://1.tar", {f"{number}.jpg": encoded(photo(30, 30)) for number in range(8)})
    loader = loader_of("slow://1.tar", implementation, 4, threads)
    Slow.failures["everything"] = 10**9
    with pytest.raises(UserError, match=r"^slow://1\.tar has stopped answering \(the line is dead\): see that [^\n]*$"):
        list(loader)
    loader.close()


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_a_shard_that_cannot_be_read_is_passed_over(implementation: Any) -> None:
    for number in range(3):
        put(f"slow://{number}.tar", {f"{name}.jpg": encoded(photo(30, 30)) for name in "ab"})
    loader = loader_of("slow://{0..2}.tar", implementation, 6, 0)
    Slow.failures["/1.tar"] = 10**9
    Slow().rm("/2.tar")
    assert len(list(loader)) == 1
    assert loader.skipped == {
        **dict.fromkeys(("1.tar/a.jpg", "1.tar/b.jpg"), "the line is dead"),
        **dict.fromkeys(("2.tar/a.jpg", "2.tar/b.jpg"), "the shard is gone"),
    }
    loader.close()


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("memory://gone.tar", r"There is no tar file memory:///gone\.tar: give"),
        ("memory://gone/*.tar", "There is no tar file memory://"),
        ("nowhere://x.tar", "cannot be opened: Protocol not known"),
        ("memory://text.tar", "is no tar file"),
    ],
)
def test_what_cannot_be_used_is_one_sentence(url: str, words: str) -> None:
    MemoryFileSystem().pipe_file("/text.tar", b"text" * 1000)
    with pytest.raises(UserError, match=words) as caught:
        open_source(url)
    assert "\n" not in str(caught.value)


def test_a_store_that_gives_whole_files_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    put("memory://1.tar", {"a.jpg": b"a"})
    whole = shard({"a.jpg": b"a"})
    monkeypatch.setattr(MemoryFileSystem, "cat_file", lambda *_, **__: whole)
    with pytest.raises(UserError, match="gives whole files where a part is asked for"):
        open_source("memory://1.tar").read(0)


class Pictures:
    """Of 10 bytes each, which are given only when they may be."""

    def __init__(self) -> None:
        self.allowed = threading.Event()
        self.begun: list[int] = []

    def read(self, index: int) -> bytes:
        self.begun.append(index)
        assert self.allowed.wait(PATIENCE)
        return b"%10d" % index


def test_no_more_is_fetched_than_memory_is_for() -> None:
    pictures = Pictures()
    ahead = ReadAhead(pictures.read, lambda index: 10, threads=8, most_bytes=35)
    pictures.allowed.set()
    ahead.announce(range(8), False)
    for index in range(8):
        assert len(ahead._fetches) <= 3
        assert ahead.take(index) == b"%10d" % index
    assert sorted(pictures.begun) == list(range(8))
    assert not ahead._fetches and not ahead._waiting and ahead._bytes == 0


def test_what_nobody_takes_is_let_go() -> None:
    pictures = Pictures()
    pictures.allowed.set()
    ahead = ReadAhead(pictures.read, lambda index: 10, threads=1, most_bytes=20)
    ahead.announce([0, 1, 2, 3], False)
    ahead.announce([7], True)
    assert ahead.take(7) == b"         7"
    assert not ahead._fetches and ahead._bytes == 0
    ahead.announce([8], False)
    for _ in range(300):
        ahead.announce([], False)
    assert not ahead._fetches and ahead._bytes == 0


def test_out_of_turn_nobody_waits_in_line() -> None:
    pictures = Pictures()
    ahead = ReadAhead(pictures.read, lambda index: 10, threads=1)
    ahead.announce([0, 1, 2], False)
    taken: list[bytes] = []
    impatient = threading.Thread(target=lambda: taken.append(ahead.take(2)))
    impatient.start()
    end = PATIENCE * 100
    while 2 not in pictures.begun and end:
        impatient.join(0.01)
        end -= 1
    # The only thread is still busy with the first.
    assert 1 not in pictures.begun and 2 in pictures.begun
    pictures.allowed.set()
    impatient.join(PATIENCE)
    assert taken == [b"         2"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_a_forked_process_reads_for_itself() -> None:
    put("memory://1.tar", {"a.jpg": b"a", "b.jpg": b"b"})
    source = open_source("memory://1.tar")
    assert source.read(0) == b"a"
    child = os.fork()
    if child == 0:
        os._exit(0 if source.read(1) == b"b" else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
