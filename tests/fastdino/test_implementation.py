from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from fastdino import implementation
from fastdino.doctor import record
from fastdino.implementation import OPERATIONS, choose

CPU, GPU = torch.device("cpu"), torch.device("cuda")


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    choose.cache_clear()
    yield
    choose.cache_clear()


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """A GPU on which Triton runs."""
    monkeypatch.setattr(implementation, "why_no_triton", lambda device: "")
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "A GPU")


def test_cpus_take_torch_and_say_why() -> None:
    for operation in OPERATIONS:
        assert choose(operation, "auto", CPU) == ("torch", "the device is a CPU")


def test_gpus_take_triton(gpu: None) -> None:
    assert {choose(operation, "auto", GPU).name for operation in OPERATIONS} == {"triton"}


@pytest.mark.parametrize("requested", ["torch", "reference"])
def test_what_is_asked_for_is_taken(gpu: None, requested: str) -> None:
    assert choose("loss", requested, GPU) == (requested, "as asked for")


def test_a_kernel_that_failed_is_switched_off_alone_until_it_is_sound(gpu: None) -> None:
    record.keep(GPU, {"loss": "its gradient was off"})
    assert choose("loss", "auto", GPU) == ("torch", "its gradient was off")
    assert choose("update", "auto", GPU).name == "triton"
    assert choose("loss", "triton", GPU).name == "triton"
    choose.cache_clear()
    record.keep(GPU, {})
    assert choose("loss", "auto", GPU).name == "triton"


def test_other_gpus_and_a_damaged_record_do_not_matter(
    gpu: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path = record.keep(GPU, {"loss": "its gradient was off"})
    assert path is not None and path.is_relative_to(tmp_path)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Another GPU")
    assert choose("loss", "auto", GPU).name == "triton"
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "A GPU")
    (subject,) = json.loads(path.read_text())
    for damage in ("{", "[]", json.dumps({subject: 1})):
        choose.cache_clear()
        path.write_text(damage)
        assert choose("loss", "auto", GPU).name == "triton"


def test_without_a_home_nothing_is_kept(gpu: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/dev/null")
    assert record.keep(GPU, {"loss": "its gradient was off"}) is None


def test_unknown_names_are_refused() -> None:
    with pytest.raises(ValueError, match="auto, triton, torch, reference, not 'cuda'"):
        choose("loss", "cuda", CPU)


def test_triton_on_a_cpu_is_refused_outside_of_the_interpreter(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("triton")
    assert choose("loss", "triton", CPU).name == "triton"
    choose.cache_clear()
    monkeypatch.setattr(implementation.kernels("launch"), "interpreted", lambda: False)
    with pytest.raises(ValueError, match="the Triton kernels cannot be used: the device is a CPU"):
        choose("loss", "triton", CPU)


def test_choosing_for_a_cpu_does_not_import_triton() -> None:
    code = (
        "import sys, torch; from fastdino.implementation import choose; choose('loss', 'auto', torch.device('cpu'));"
        "sys.exit('triton' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_obstacles_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("triton")
    monkeypatch.setattr(implementation.kernels("launch"), "interpreted", lambda: False)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
    assert "older than" in implementation.why_no_triton(GPU)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    assert implementation.why_no_triton(GPU) == ""
    monkeypatch.setattr("shutil.which", lambda name: None)
    assert "install gcc" in implementation.why_no_triton(GPU)
    monkeypatch.setitem(sys.modules, "fastdino.kernels.launch", None)
    assert "they do not load" in implementation.why_no_triton(GPU)
