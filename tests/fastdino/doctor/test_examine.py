"""Trials in Triton's interpreter."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

pytest.importorskip("triton", reason="Triton is made for Linux only")

from benchmarks.gpu_proofs.interpreter import correct_bfloat16
from fastdino.doctor.examine import error_of, examined
from fastdino.doctor.findings import Finding
from fastdino.implementation import OPERATIONS, kernels

correct_bfloat16()


def examine(operation: str) -> list[Finding]:
    return list(examined(operation, torch.device("cpu")))


@pytest.mark.parametrize("operation", OPERATIONS)
def test_sound_kernels_pass(operation: str) -> None:
    for finding in examine(operation):
        assert finding.fault == "" and finding.operation == operation
        assert finding.error is not None and 0 < finding.error <= 1
        assert finding.seconds is None and finding.bytes is None


def broken(module: str, name: str, monkeypatch: pytest.MonkeyPatch, breaks: Callable[..., Any]) -> None:
    original = getattr(kernels(module), name)
    monkeypatch.setattr(kernels(module), name, lambda *args, **kwargs: breaks(original, *args, **kwargs))


def test_a_kernel_that_is_a_little_off_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """A momentum that is off by a thousandth."""
    broken("ema", "ema_", monkeypatch, lambda original, t, s, momentum: original(t, s, momentum + 1e-3))
    of_lists, of_arena = examine("teacher")
    assert of_lists.fault.startswith("ema, lists of tensors is off: its error is ")
    assert of_arena.fault == ""


def test_a_gradient_that_is_off_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def breaks(original: Callable[..., Any], logits: Tensor, *rest: Any) -> Any:
        result = original(logits, *rest)
        logits[0, 0] += logits.norm()
        return result

    broken("dino_loss", "dino_loss_and_gradient_", monkeypatch, breaks)
    assert [bool(finding.fault) for finding in examine("loss")] == [True, True, False]


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_no_number_is_no_result(monkeypatch: pytest.MonkeyPatch, value: float) -> None:
    broken("normalize", "normalize", monkeypatch, lambda original, *rest: original(*rest) * value)
    (finding,) = examine("normalisation")
    assert finding.fault and finding.error is None


def test_a_kernel_that_raises_is_named_and_the_others_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    def breaks(*_: Any) -> None:
        raise RuntimeError("out of\n  registers")

    broken("ema", "ema_", monkeypatch, breaks)
    of_lists, of_arena = examine("teacher")
    assert of_lists.fault == "ema, lists of tensors raised RuntimeError: out of registers"
    assert of_arena.fault == ""


def test_other_bits_in_another_run_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def breaks(original: Callable[..., Any], crops: Tensor, dtype: torch.dtype) -> Tensor:
        calls.append(0)
        result = original(crops, dtype)
        result[0, 0, 0, 0] = torch.nextafter(result[0, 0, 0, 0], torch.tensor(9.0 * (len(calls) % 2)).to(dtype))
        return result

    broken("normalize", "normalize", monkeypatch, breaks)
    (finding,) = examine("normalisation")
    assert finding.fault == "normalize to bfloat16 gives other bits when it runs again"


def test_errors_are_measured_by_those_of_pytorch() -> None:
    exact, plain = torch.zeros(4, dtype=torch.float64), torch.full((4,), 2.0)
    assert error_of([torch.full((4,), 3.0)], [plain], [exact]) == pytest.approx(1)
    # Where PyTorch is exact, a few roundings are allowed and no more.
    exact = torch.ones(4, dtype=torch.float64)
    assert error_of([torch.full((4,), 1 + 2.0**-22)], [torch.ones(4)], [exact]) == pytest.approx(0.5)
