from __future__ import annotations

import pytest
import torch
from torch import nn

from fastdino.train import precision
from fastdino.train.precision import Precision, choose_precision

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("requested", "use_fp16", "expected"),
    [("auto", False, "fp32"), ("bf16", False, "bf16"), ("fp32", True, "fp32")],
)
def test_choice_on_a_cpu(requested: str, use_fp16: bool, expected: str) -> None:
    assert choose_precision(requested, use_fp16, CPU) == expected


@pytest.mark.parametrize(
    ("instructions", "seconds_of_bf16", "expected"),
    [({"amx_bf16"}, 0.5, "bf16"), ({"avx512_bf16"}, 0.5, "bf16"), ({"amx_bf16"}, 0.7, "fp32"), (set(), 0.1, "fp32")],
)
def test_cpus_take_bf16_where_it_was_measured_to_be_faster(
    monkeypatch: pytest.MonkeyPatch, instructions: set[str], seconds_of_bf16: float, expected: str
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: dict.fromkeys(instructions, True))
    seconds = {torch.float32: 1.0, torch.bfloat16: seconds_of_bf16}
    monkeypatch.setattr(precision, "_seconds_of_a_product", seconds.__getitem__)
    precision.bf16_pays_on_this_cpu.cache_clear()
    assert choose_precision("auto", True, CPU) == expected
    assert choose_precision("auto", False, CPU) == "fp32"
    precision.bf16_pays_on_this_cpu.cache_clear()


def test_a_product_takes_time() -> None:
    assert precision._seconds_of_a_product(torch.float32) > 0


@pytest.mark.parametrize(("has_bf16", "expected"), [(True, "bf16"), (False, "fp16")])
def test_choice_on_a_gpu(monkeypatch: pytest.MonkeyPatch, has_bf16: bool, expected: str) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: has_bf16)
    assert choose_precision("auto", True, torch.device("cuda")) == expected
    assert choose_precision("auto", False, torch.device("cuda")) == "fp32"


@pytest.mark.parametrize(("name", "dtype"), [("fp32", torch.float32), ("bf16", torch.bfloat16)])
def test_autocast(name: str, dtype: torch.dtype) -> None:
    with Precision(name, CPU).autocast():
        assert nn.Linear(2, 2)(torch.ones(1, 2)).dtype == dtype


def test_float16_scales_the_loss_and_skips_overflowed_steps() -> None:
    precision = Precision("fp16", CPU)
    model = nn.Linear(1, 1, bias=False)
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    before = model.weight.detach().clone()
    loss = model(torch.ones(1, 1)).sum()
    scale = float(precision.loss_scale())
    assert scale > 1
    (precision.loss_scale() * loss).backward()
    precision.unscale_(optimizer)
    assert model.weight.grad is not None
    torch.testing.assert_close(model.weight.grad, torch.ones(1, 1))
    precision.step(optimizer)
    assert not torch.equal(model.weight, before)

    before = model.weight.detach().clone()
    optimizer.zero_grad()
    (precision.loss_scale() * model(torch.full((1, 1), torch.inf)).sum()).backward()
    precision.unscale_(optimizer)
    precision.step(optimizer)
    assert torch.equal(model.weight, before)
    state = precision.state_dict()
    assert state is not None
    # An overflow halves the scale.
    assert state["scale"] == scale / 2
    other = Precision("fp16", CPU)
    other.load_state_dict(state)
    assert other.state_dict() == state


def test_other_formats_have_no_scaler() -> None:
    precision = Precision("bf16", CPU)
    assert precision.state_dict() is None
    assert precision.loss_scale() == 1
    precision.load_state_dict({"scale": 2.0})
