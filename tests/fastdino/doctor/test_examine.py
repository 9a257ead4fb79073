"""Trials in Triton's interpreter."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

pytest.importorskip("triton", reason="Triton is made for Linux only")

from benchmarks.gpu_proofs.interpreter import correct_bfloat16
from fastdino.doctor import examine as module
from fastdino.doctor.examine import error_of, examined
from fastdino.doctor.findings import Finding
from fastdino.doctor.trial import INTERPRETED
from fastdino.doctor.trials import makers
from fastdino.implementation import OPERATIONS, kernels
from fastdino.kernels.adamw_ema import StepScalars

correct_bfloat16()


def examine(operation: str) -> list[Finding]:
    return list(examined(operation, torch.device("cpu")))


@pytest.mark.parametrize("operation", OPERATIONS)
def test_sound_kernels_pass(operation: str) -> None:
    for finding in examine(operation):
        assert finding.fault == "" and finding.operation == operation
        assert finding.error is not None and 0 < finding.error <= 1
        assert finding.seconds is None and finding.bytes is None


@pytest.mark.parametrize("operation", OPERATIONS)
def test_what_is_timed_runs_again_and_again(operation: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """On small inputs, and without a clock."""

    def repeated(launch: Callable[[], object]) -> float:
        launch()
        launch()
        return 1.0

    monkeypatch.setattr(module, "TIMED", INTERPRETED)
    monkeypatch.setattr(module, "seconds_of", repeated)
    for make in makers(operation):
        timed = module._timed(Finding(operation, "a kernel"), make, torch.device("cpu"))
        assert timed.seconds == 1.0 and timed.bytes


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
    assert [bool(finding.fault) for finding in examine("loss")] == [True, True, False, False]


def test_memory_that_others_take_condemns_no_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    def breaks(*_: Any) -> None:
        raise torch.OutOfMemoryError("tried to allocate 80 GiB")

    broken("ema", "ema_", monkeypatch, breaks)
    of_lists, of_arena = examine("teacher")
    assert of_lists.fault == "" and of_lists.error is None and of_arena.error is not None


def test_a_single_value_that_is_off_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def breaks(original: Callable[..., Any], crops: Tensor, dtype: torch.dtype) -> Tensor:
        result = original(crops, dtype)
        result[0, 0, 0, 0] *= 1.05
        return result

    broken("normalize", "normalize", monkeypatch, breaks)
    (finding,) = examine("normalisation")
    assert finding.fault.startswith("normalize to bfloat16 is off")


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_no_number_is_no_result(monkeypatch: pytest.MonkeyPatch, value: float) -> None:
    broken("normalize", "normalize", monkeypatch, lambda original, *rest: original(*rest) * value)
    (finding,) = examine("normalisation")
    assert finding.fault and finding.error is None


def unclipped(original: Callable[..., Any], arena: Any, scalars: Tensor, *rest: Any) -> Tensor:
    scalars = scalars.clone()
    scalars[StepScalars._fields.index("clip")] = 0.0
    return original(arena, scalars, *rest)


def with_old_copies(original: Callable[..., Any], arena: Any, *rest: Any) -> Tensor:
    before = arena.student_shadow.clone()
    result = original(arena, *rest)
    arena.student_shadow.copy_(before)
    return result


def without_norms(original: Callable[..., Any], *rest: Any) -> Tensor:
    return original(*rest) * torch.nan


@pytest.mark.parametrize(
    ("breaks", "found"),
    [(unclipped, [True, True, False]), (with_old_copies, [True, True, False]), (without_norms, [True, True, True])],
)
def test_all_that_the_update_leaves_behind_is_examined(
    monkeypatch: pytest.MonkeyPatch, breaks: Callable[..., Any], found: list[bool]
) -> None:
    """AdamW hides how long a gradient was, and what training computes with next are the copies."""
    broken("adamw_ema", "adamw_ema_", monkeypatch, breaks)
    assert ["is off" in finding.fault for finding in examine("update")] == found


def test_the_update_is_examined_as_training_runs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    kinds = set()

    def watched(original: Callable[..., Any], arena: Any, *rest: Any) -> Tensor:
        kinds.add((arena.gradients()[0].dtype, arena.gradients_of_rows))
        return original(arena, *rest)

    broken("adamw_ema", "adamw_ema_", monkeypatch, watched)
    examine("update")
    assert kinds == {(torch.bfloat16, True), (torch.float32, False)}


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
