"""The C++ pool among interruptions: other threads, processes, signals, slow sources and slow consumers."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from fastdino import native
from fastdino.data import IterableSource, MultiCropLoader, engine

pytestmark = pytest.mark.skipif(not native.available(), reason=native.why_not() or "never")

PATIENCE = 60
"""Seconds until a test gives up on what should come at once, on any machine."""
TINY: dict[str, Any] = {"global_size": 16, "local_size": 8, "local_crops_number": 1, "output": "uint8"}
Batch = tuple[list[torch.Tensor], torch.Tensor]
MakeLoader = Callable[..., MultiCropLoader]


def _pictures(count: int) -> list[bytes]:
    pictures = []
    for index in range(count):
        coarse = np.random.default_rng(index).integers(0, 256, (6, 8, 3), dtype=np.uint8)
        stream = BytesIO()
        Image.fromarray(coarse).resize((40, 30)).save(stream, "JPEG")
        pictures.append(stream.getvalue())
    return pictures


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """41 pictures: five batches of 8 and one picture left over."""
    root = tmp_path_factory.mktemp("pictures")
    for index, picture in enumerate(_pictures(41)):
        (root / f"{index}.jpg").write_bytes(picture)
    return root


@pytest.fixture
def make() -> Iterator[MakeLoader]:
    """A native loader of tiny crops that is closed when the test ends."""
    loaders = []

    def build(data_path: Any, batch_size: int = 8, **options: Any) -> MultiCropLoader:
        settings: dict[str, Any] = TINY | {"num_threads": 2, "implementation": "native"} | options
        loaders.append(MultiCropLoader(data_path, batch_size, **settings))
        return loaders[-1]

    yield build
    for loader in loaders:
        loader.close()


def _same(ours: list[Batch], theirs: list[Batch]) -> bool:
    return len(ours) == len(theirs) and all(
        torch.equal(our_labels, their_labels) and all(map(torch.equal, our_crops, their_crops))
        for (our_crops, our_labels), (their_crops, their_labels) in zip(ours, theirs, strict=True)
    )


class Gate(IterableSource):
    """Pictures that are to be had only once `open` is set."""

    def __init__(self, count: int) -> None:
        super().__init__(_pictures(count))
        self.asked = threading.Event()
        self.open = threading.Event()
        self.reads = 0
        self._count = threading.Lock()

    def read(self, index: int) -> bytes:
        with self._count:
            self.reads += 1
        self.asked.set()
        assert self.open.wait(PATIENCE)
        return super().read(index)


def _python(script: str, *arguments: str, **options: Any) -> subprocess.Popen[str]:
    path = os.pathsep.join([str(Path(__file__).parents[3]), *sys.path])
    return subprocess.Popen(
        [sys.executable, "-c", script, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
        **options,
    )


RESUME = """
import hashlib, json, sys
from fastdino.data import MultiCropLoader
folder, options, state, batches = sys.argv[1], *map(json.loads, sys.argv[2:])
loader = MultiCropLoader(folder, implementation="native", **options)
loader.load_state_dict(state)
digests = []
while len(digests) < batches:
    for crops, labels in loader:
        digests.append(hashlib.sha256(b"".join(crop.numpy().tobytes() for crop in crops)).hexdigest())
        if len(digests) == batches:
            break
print(json.dumps([digests, loader.state_dict()]))
"""


def _run_on(folder: Path, options: dict[str, Any], state: dict[str, int], batches: int) -> list[Any]:
    """The batches that a process of its own makes from `state` on, as digests, and its state afterwards."""
    process = _python(RESUME, str(folder), json.dumps(TINY | {"seed": 9} | options), json.dumps(state), str(batches))
    output, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, errors
    answer: list[Any] = json.loads(output)
    return answer


def test_resumes_in_a_new_process_in_the_middle_of_an_epoch(folder: Path, make: MakeLoader) -> None:
    loader = make(folder, seed=9, num_threads=3)
    loader.set_epoch(4)
    expected = [
        hashlib.sha256(b"".join(crop.numpy().tobytes() for crop in crops)).hexdigest()
        for crops, _ in [*loader, *loader]
    ]
    before, state = _run_on(folder, {"batch_size": 8, "num_threads": 1}, {"epoch": 4, "samples": 0}, 3)
    assert state == {"epoch": 4, "samples": 24}
    # Over the end of the epoch, beyond which batches are prepared ahead.
    after, state = _run_on(folder, {"batch_size": 8, "num_threads": 5}, state, 4)
    assert before + after == expected[:7]
    assert state == {"epoch": 5, "samples": 16}


@pytest.mark.parametrize("ranks", [1, 2, 4])
def test_any_number_of_ranks_makes_the_same_global_batches(folder: Path, make: MakeLoader, ranks: int) -> None:
    whole = make(folder, 8)
    parts = [make(folder, 8 // ranks, rank=rank, world_size=ranks, num_threads=1 + rank) for rank in range(ranks)]
    for _ in range(2):
        for (crops, labels), *shares in zip(whole, *parts, strict=True):
            assert torch.equal(torch.cat([labels for _, labels in shares]), labels)
            for place, crop in enumerate(crops):
                assert torch.equal(torch.cat([share[place] for share, _ in shares]), crop)


def test_abandoned_iterations_leave_nothing_behind(folder: Path, make: MakeLoader) -> None:
    epochs = [list(loader) for loader in [make(folder)] for _ in range(3)]
    loader = make(folder, num_threads=5)
    draw = np.random.default_rng(0)
    for _ in range(60):
        epoch, batch, taken = draw.integers([3, 5, 4]).tolist()
        loader.load_state_dict({"epoch": epoch, "samples": 8 * batch})
        batches = [ours for ours, _ in zip(loader, range(taken), strict=False)]
        assert _same(batches, epochs[epoch][batch : batch + taken])


def test_close_twice_and_go_on(folder: Path, make: MakeLoader) -> None:
    expected = list(make(folder))
    loader = make(folder)
    loader.close()
    batches = iter(loader)
    first = next(batches)
    spent = loader.stats()
    loader.close()
    loader.close()
    with pytest.raises(RuntimeError, match="this iteration is over"):
        next(batches)
    assert _same([first, *loader], expected)
    assert all(loader.stats()[stage] >= seconds for stage, seconds in spent.items())


def test_close_from_another_thread_ends_the_wait(make: MakeLoader) -> None:
    source = Gate(16)
    loader = make(source)
    raised: list[BaseException] = []

    def consume() -> None:
        try:
            next(iter(loader))
        except RuntimeError as error:
            raised.append(error)

    consumer = threading.Thread(target=consume, daemon=True)
    consumer.start()
    assert source.asked.wait(PATIENCE)
    closer = threading.Thread(target=loader.close, daemon=True)
    closer.start()
    source.open.set()
    for thread in (closer, consumer):
        thread.join(PATIENCE)
        assert not thread.is_alive()
    # Unless the batch was there first, which is fine as well.
    assert all("closed" in str(error) for error in raised)
    assert len(list(loader)) >= 1


def test_ctrl_c_while_waiting_is_heard_at_once_and_costs_nothing(make: MakeLoader) -> None:
    source = Gate(16)
    loader = make(source)

    def interrupt() -> None:
        if source.asked.wait(PATIENCE):
            os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt, daemon=True).start()
    # No picture is there yet: who waits for one to come waits for ever.
    with pytest.raises(KeyboardInterrupt):
        next(iter(loader))
    source.open.set()
    assert _same(list(loader), list(make(_pictures(16))))


class Interrupted:
    """A pool in whose `method` Ctrl-C arrives at the given call, before or after what it does."""

    def __init__(self, pool: Any, method: str, call: int, after: bool) -> None:
        self._pool, self._method, self._call, self._after = pool, method, call, after

    def __getattr__(self, name: str) -> Any:
        return self._strike if name == self._method else getattr(self._pool, name)

    def _strike(self, *arguments: Any) -> Any:
        self._call -= 1
        if self._call == 0 and not self._after:
            raise KeyboardInterrupt
        answer = getattr(self._pool, self._method)(*arguments)
        if self._call == 0 and self._after:
            raise KeyboardInterrupt
        return answer


@pytest.mark.parametrize("method", ["submit", "wait", "cancel"])
@pytest.mark.parametrize("after", [False, True])
def test_ctrl_c_between_any_two_steps(
    make: MakeLoader, monkeypatch: pytest.MonkeyPatch, method: str, after: bool
) -> None:
    # Labels tell at once whether a batch is taken for another.
    source = [(picture, number) for number, picture in enumerate(_pictures(40))]
    expected = list(make(source))
    new_pool = engine.new_pool
    for call in range(1, 6):
        monkeypatch.setattr(
            engine,
            "new_pool",
            lambda *recipe, call=call, **settings: Interrupted(new_pool(*recipe, **settings), method, call, after),
        )
        loader = make(source)
        batches: list[Batch] = []
        interruptions = 0
        while len(batches) < 5:
            try:
                batches.extend(loader)
            except KeyboardInterrupt:
                interruptions += 1
        assert _same(batches, expected)
        # The pool is made anew, and its batches cancelled, only once.
        assert interruptions == (method != "cancel" or call == 1)


def test_a_slow_consumer_holds_the_readers_back(make: MakeLoader) -> None:
    source = Gate(400)
    source.open.set()
    batches = iter(make(source, 8))
    for taken in range(1, 5):
        next(batches)
        # As many more as there are threads for, and no others: two batches, and half a one for each thread.
        most = 8 * (taken + 3)
        started = time.monotonic()
        while source.reads < most and time.monotonic() < started + PATIENCE:
            time.sleep(0.01)
        time.sleep(0.1)
        assert source.reads == most


LEAVE = """
import atexit, contextlib, os, sys, threading, time
# Runs after the loaders are closed: whoever opens one again has time to.
atexit.register(time.sleep, 0.3)
from fastdino.data import IterableSource, MultiCropLoader

class Slow(IterableSource):
    def read(self, index):
        threading.Event().wait(0.02)  # a reader that needs the interpreter to go on
        return super().read(index)

folder, how = sys.argv[1:]
pictures = [open(os.path.join(folder, name), "rb").read() for name in sorted(os.listdir(folder))]
loader = MultiCropLoader(Slow(pictures), 8, num_threads=3, global_size=16, local_size=8, local_crops_number=1,
                         implementation="native")
batches = iter(loader)
next(batches)
if how == "fork":
    child = os.fork()
    if child == 0:
        sys.exit(7)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
    next(batches)
elif how == "thread":
    def consume():
        while True:  # closed and opened again, until the interpreter goes
            with contextlib.suppress(RuntimeError):
                list(loader)
    threading.Thread(target=consume, daemon=True).start()
print("leaving", flush=True)
"""


@pytest.mark.parametrize(("how", "says"), [("end", ""), ("thread", ""), ("fork", "7\n")])
def test_leaving_while_python_reads(folder: Path, how: str, says: str) -> None:
    process = _python(LEAVE, str(folder), how)
    output, errors = process.communicate(timeout=PATIENCE)
    assert (output, errors, process.returncode) == (f"{says}leaving\n", "", 0)
