from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from multiprocessing.reduction import ForkingPickler
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from fastdino import native
from fastdino.data import IterableSource, MultiCropLoader, crop_plan
from fastdino.data.normalize import normalize
from fastdino.data.order import EpochOrder
from fastdino.data.reading import read_image
from fastdino.errors import UserError
from fastdino.reference.augment import apply_plan

Batch = tuple[list[torch.Tensor], torch.Tensor]
MakeLoader = Callable[..., MultiCropLoader]


def _fill(root: Path, count: int) -> Path:
    root.mkdir(parents=True, exist_ok=True)
    for index in range(count):
        coarse = np.random.default_rng(index).integers(0, 256, (6, 8, 3), dtype=np.uint8)
        Image.fromarray(coarse).resize((40, 30)).save(root / f"{index}.png")
    return root


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """41 pictures, 0.png onwards: five batches of 8 and one picture left over."""
    return _fill(tmp_path_factory.mktemp("pictures"), 41)


@pytest.fixture
def make() -> Iterator[MakeLoader]:
    """A loader of tiny crops that is closed when the test ends."""
    loaders = []

    def build(data_path: Any, batch_size: int = 8, **options: Any) -> MultiCropLoader:
        tiny: dict[str, Any] = {
            "num_threads": 0,
            "global_size": 16,
            "local_size": 8,
            "local_crops_number": 2,
            "output": "uint8",
        }
        loaders.append(MultiCropLoader(data_path, batch_size, **(tiny | options)))
        return loaders[-1]

    yield build
    for loader in loaders:
        loader.close()


def _assert_same(ours: list[Batch], theirs: list[Batch]) -> None:
    assert len(ours) == len(theirs)
    for (our_crops, our_labels), (their_crops, their_labels) in zip(ours, theirs, strict=True):
        assert torch.equal(our_labels, their_labels)
        assert len(our_crops) == len(their_crops)
        for our, their in zip(our_crops, their_crops, strict=True):
            assert torch.equal(our, their)


def test_shapes_types_and_crop_order(folder: Path, make: MakeLoader) -> None:
    loader = make(folder)
    assert len(loader) == 5
    batches = list(loader)
    assert len(batches) == 5
    for crops, labels in batches:
        assert [tuple(crop.shape) for crop in crops] == [(8, 3, 16, 16)] * 2 + [(8, 3, 8, 8)] * 2
        assert all(crop.dtype == torch.uint8 for crop in crops)
        assert labels.dtype == torch.int64 and labels.tolist() == [-1] * 8


def test_batches_are_the_references_crops_in_the_epochs_order(folder: Path, make: MakeLoader) -> None:
    loader = make(folder, seed=5)
    loader.set_epoch(3)
    order = EpochOrder(5, 3, 41)
    for number, (crops, _) in enumerate(loader):
        for slot, index in enumerate(order[np.arange(8 * number, 8 * number + 8)]):
            image = read_image(folder / f"{index}.png")
            plan = crop_plan(5, 3, int(index), *image.size, global_size=16, local_size=8, local_crops_number=2)
            for crop, expected in zip(crops, apply_plan(image, plan), strict=True):
                np.testing.assert_array_equal(crop[slot].numpy(), expected.transpose(2, 0, 1))


def test_float32_is_the_normalised_uint8(folder: Path, make: MakeLoader) -> None:
    for (floats, _), (integers, _) in zip(make(folder, output="float32"), make(folder), strict=True):
        for ours, crop in zip(floats, integers, strict=True):
            assert torch.equal(ours, normalize(crop))


@pytest.mark.filterwarnings("ignore:This DataLoader will create")
@pytest.mark.parametrize("num_threads", [1, 3])
def test_workers_change_nothing(folder: Path, make: MakeLoader, num_threads: int) -> None:
    # Batches of 20 are made in two chunks, by different workers.
    expected = make(folder, 20, implementation="reference")
    loader = make(folder, 20, num_threads=num_threads, implementation="reference")
    for _ in range(2):
        _assert_same(list(loader), list(expected))


def test_ranks_share_the_same_global_batches(folder: Path, make: MakeLoader) -> None:
    whole = list(make(folder, 8, implementation="reference"))
    ranks = [list(make(folder, 4, rank=rank, world_size=2, implementation="reference")) for rank in range(2)]
    for number, (crops, _) in enumerate(whole):
        for place, crop in enumerate(crops):
            parts = [rank[number][0][place] for rank in ranks]
            assert torch.equal(torch.cat(parts), crop)


def test_iterating_goes_on_with_the_next_epoch(folder: Path, make: MakeLoader) -> None:
    loader = make(folder)
    first, second = list(loader), list(loader)
    assert not torch.equal(first[0][0][0], second[0][0][0])
    loader.set_epoch(0)
    _assert_same(list(loader), first)
    assert loader.state_dict() == {"epoch": 1, "samples": 0}
    other_seed = list(make(folder, seed=1))
    assert not torch.equal(first[0][0][0], other_seed[0][0][0])


@pytest.mark.parametrize("num_threads", [0, 2])
def test_resumes_in_the_middle_of_an_epoch(folder: Path, make: MakeLoader, num_threads: int) -> None:
    expected = make(folder, seed=9)
    expected.set_epoch(4)
    batches = list(expected)

    loader = make(folder, seed=9, num_threads=num_threads)
    loader.set_epoch(4)
    for number, _ in enumerate(loader):
        if number == 1:
            state = loader.state_dict()
            break
    assert state == {"epoch": 4, "samples": 16}
    _assert_same(list(loader), batches[2:])

    resumed = make(folder, seed=9, num_threads=num_threads)
    resumed.load_state_dict(state)
    resumed.set_epoch(4)
    _assert_same(list(resumed), batches[2:])

    two_ranks = make(folder, 4, seed=9, rank=1, world_size=2)
    two_ranks.load_state_dict(state)
    assert torch.equal(next(iter(two_ranks))[0][0], batches[2][0][0][4:])


def test_state_taken_at_the_last_batch_leaves_nothing_of_that_epoch(folder: Path, make: MakeLoader) -> None:
    loader = make(folder)
    for _ in loader:
        state = loader.state_dict()
    resumed = make(folder)
    resumed.load_state_dict(state)
    assert list(resumed) == []
    assert resumed.state_dict() == loader.state_dict()


def test_an_iteration_ends_when_the_loader_moves_on(folder: Path, make: MakeLoader) -> None:
    loader = make(folder)
    old = iter(loader)
    next(old)
    next(iter(loader))
    with pytest.raises(RuntimeError, match="this iteration is over"):
        next(old)


def test_unreadable_pictures_are_replaced_by_the_next_readable_one(tmp_path: Path, make: MakeLoader) -> None:
    root = tmp_path / "set"
    for name in ("a", "b"):
        _fill(root / name, 4)
    loaders = [make(root, num_threads=number) for number in (0, 2)]
    (root / "a" / "3.png").write_bytes(b"")
    (root / "b" / "0.png").write_bytes(b"text")
    (root / "b" / "3.png").unlink()
    for loader in loaders:
        ((crops, labels),) = list(loader)
        assert loader.skipped.keys() == {"a/3.png", "b/0.png", "b/3.png"}
        assert loader.skipped["a/3.png"] == "the file is empty"
        assert loader.skipped["b/3.png"] == "No such file or directory"
        used = {3: ("b/1.png", 1), 7: ("a/0.png", 0)}
        for slot, index in enumerate(EpochOrder(0, 0, 8)[np.arange(8)].tolist()):
            if index in used:
                name, label = used[index]
                image = read_image(root / name)
                plan = crop_plan(0, 0, index, *image.size, global_size=16, local_size=8, local_crops_number=2)
                expected = apply_plan(image, plan)[0].transpose(2, 0, 1)
                np.testing.assert_array_equal(crops[0][slot].numpy(), expected)
                assert labels[slot] == label


@pytest.mark.parametrize("num_threads", [0, 1])
def test_all_unreadable_is_one_sentence(tmp_path: Path, make: MakeLoader, num_threads: int) -> None:
    for index in range(3):
        (tmp_path / f"{index}.jpg").write_bytes(b"text")
    with pytest.raises(UserError, match=r"None of the 3 pictures .*\.jpg.* not a picture") as caught:
        list(make(tmp_path, 2, num_threads=num_threads))
    assert "\n" not in str(caught.value)


def test_too_few_pictures(folder: Path, make: MakeLoader) -> None:
    with pytest.raises(UserError, match=r"41 pictures are fewer than one batch of 64: use .* at most 41"):
        make(folder, 64)
    with pytest.raises(UserError, match="batch of 48 of 2 processes: use a batch size of at most 20"):
        make(folder, 24, world_size=2)
    with pytest.raises(UserError, match="batch of 42 of 42 processes: give more pictures"):
        make(folder, 1, world_size=42)


def test_unknown_output(folder: Path) -> None:
    with pytest.raises(ValueError, match="float32, bfloat16, uint8"):
        MultiCropLoader(folder, 8, output="float16")


class FourColours:
    """A user's own source in a few lines."""

    def __init__(self) -> None:
        self.classes = ["even", "odd"]

    def __len__(self) -> int:
        return 4

    def read(self, index: int) -> bytes:
        return b"P6 1 1 255 " + bytes([index * 60] * 3)

    def name(self, index: int) -> str:
        return f"colour {index}"

    def label(self, index: int) -> int:
        return index % 2


@pytest.mark.parametrize("num_threads", [0, 1])
def test_any_source(make: MakeLoader, num_threads: int) -> None:
    loader = make(FourColours(), 4, num_threads=num_threads, color_jitter=(0, 0, 0, 0))
    ((crops, labels),) = list(loader)
    assert loader.classes == ["even", "odd"]
    order = EpochOrder(0, 0, 4)[np.arange(4)]
    assert labels.tolist() == (order % 2).tolist()
    assert crops[0][:, 0, 0, 0].tolist() == (order * 60).tolist()


def test_waiting_is_measured(folder: Path, make: MakeLoader) -> None:
    loader = make(folder)
    waited = [loader.wait_seconds]
    for _ in loader:
        waited.append(loader.wait_seconds)
    assert all(np.diff(waited) > 0)


@pytest.mark.parametrize("num_threads", [1, 2, 5])
def test_the_engine_gives_the_references_batches_for_any_number_of_threads(
    folder: Path, make: MakeLoader, num_threads: int
) -> None:
    expected = make(folder, 20, implementation="reference")
    loader = make(folder, 20, num_threads=num_threads, implementation="native")
    for _ in range(2):
        _assert_same(list(loader), list(expected))


def test_bfloat16_is_the_rounded_float32(folder: Path, make: MakeLoader) -> None:
    for (rounded, _), (floats, _) in zip(make(folder, output="bfloat16"), make(folder, output="float32"), strict=True):
        for ours, crop in zip(rounded, floats, strict=True):
            assert torch.equal(ours, crop.to(torch.bfloat16))


def test_memory_of_a_batch_is_its_own_while_it_is_held_and_used_again_afterwards(
    folder: Path, make: MakeLoader
) -> None:
    loader = make(folder, implementation="native")
    held = list(loader)
    copies = [[crop.clone() for crop in crops] for crops, _ in held]
    list(loader)
    for (crops, _), copy in zip(held, copies, strict=True):
        assert all(map(torch.equal, crops, copy))
    blocks = {crops[0].untyped_storage().data_ptr() for crops, _ in held}
    del held, crops
    again = {crops[0].untyped_storage().data_ptr() for crops, _ in loader}
    assert again & blocks


class Breaks(IterableSource):
    def read(self, index: int) -> bytes:
        raise KeyError("gone")


@pytest.mark.parametrize(("implementation", "num_threads"), [("native", 2), ("reference", 0), ("reference", 1)])
def test_an_exception_of_a_source_names_the_picture(make: MakeLoader, implementation: str, num_threads: int) -> None:
    loader = make(Breaks([b""] * 8), implementation=implementation, num_threads=num_threads)
    with pytest.raises(RuntimeError, match=r"picture \d+: KeyError: 'gone'"):
        list(loader)


def test_without_the_extension_pillow_does_it(folder: Path, make: MakeLoader, monkeypatch: pytest.MonkeyPatch) -> None:
    assert make(folder).implementation.startswith("C++")
    monkeypatch.setattr(native, "_import_error", ImportError("missing"))
    assert make(folder).implementation == "Pillow, in this process"
    with pytest.raises(ValueError, match="auto, native and reference"):
        make(folder, implementation="fast")


def test_nothing_travels_through_shared_memory(folder: Path, make: MakeLoader, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(tensor: torch.Tensor) -> None:
        # An exception would be lost in the queue's thread; a dead worker is an error in the parent.
        os._exit(1)

    monkeypatch.setitem(ForkingPickler._extra_reducers, torch.Tensor, refuse)  # type: ignore[attr-defined]
    assert len(list(make(folder, num_threads=1, implementation="reference"))) == 5


def test_close_ends_the_workers_and_iterating_starts_new_ones(folder: Path, make: MakeLoader) -> None:
    loader = make(folder, num_threads=2, implementation="reference")
    batches = iter(loader)
    next(batches)
    workers = multiprocessing.active_children()
    assert len(workers) == 2
    loader.close()
    loader.close()
    assert not any(worker.is_alive() for worker in workers)
    with pytest.raises(RuntimeError, match="this iteration is over"):
        next(batches)
    expected = make(folder)
    expected.load_state_dict(loader.state_dict())
    _assert_same(list(loader), list(expected))


def test_workers_do_not_inherit_a_handler_for_sigterm(folder: Path, make: MakeLoader) -> None:
    before = signal.signal(signal.SIGTERM, lambda *_: None)
    try:
        next(iter(make(folder, num_threads=1, implementation="reference")))
        (worker,) = multiprocessing.active_children()
        # Where torch hears of the death before `join` does, it raises.
        with contextlib.suppress(RuntimeError):
            worker.terminate()
            worker.join(20)
        worker.join(1)
        assert worker.exitcode == -signal.SIGTERM
    finally:
        signal.signal(signal.SIGTERM, before)


SCRIPT = """
import os, signal, sys
from fastdino.data import MultiCropLoader

if __name__ == "__main__":
    # A shell that runs the tests in the background has it ignored.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    folder, how = sys.argv[1:]
    loader = MultiCropLoader(folder, 8, num_threads=2, global_size=64, local_size=32, local_crops_number=2)
    for epoch in range(1000000):
        for batch in loader:
            if how == "sigint is caught" and epoch < 3:
                # Caught only now, when the workers are there: they cannot have inherited the handler.
                signal.signal(signal.SIGINT, lambda *_: None)
                os.killpg(0, signal.SIGINT)
            elif how == "until interrupted":
                print("batch", flush=True)
            else:
                print("leaving", flush=True)
                sys.exit(0)
"""


def _run(tmp_path: Path, *arguments: str) -> subprocess.Popen[str]:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    path = os.pathsep.join([str(Path(__file__).parents[3]), *sys.path])
    return subprocess.Popen(
        [sys.executable, str(script), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
        start_new_session=True,
    )


@pytest.mark.parametrize("how", ["nothing is caught", "sigint is caught"])
def test_leaving_in_the_middle_does_not_hang(folder: Path, tmp_path: Path, how: str) -> None:
    process = _run(tmp_path, str(folder), how)
    output, errors = process.communicate(timeout=120)
    assert (output, errors, process.returncode) == ("leaving\n", "", 0)


def test_ctrl_c_is_the_parents_alone(folder: Path, tmp_path: Path) -> None:
    process = _run(tmp_path, str(folder), "until interrupted")
    assert process.stdout is not None
    process.stdout.readline()
    # As a terminal does: the whole process group gets the signal.
    os.killpg(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=120)
    assert process.returncode != 0
    assert errors.count("Traceback") == 1 and errors.rstrip().endswith("KeyboardInterrupt")
