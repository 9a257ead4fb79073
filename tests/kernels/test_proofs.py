"""The proofs themselves: an interpreter that is right about bfloat16, and a probe that finds what it looks for."""

# mypy: disable-error-code=no-untyped-def
# Triton gives the arguments of kernels their types.

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.runtime.interpreter import InterpreterBuilder, interpreter_builder

from benchmarks.gpu_proofs.interpreter import correct_bfloat16, shuffled_programs
from benchmarks.gpu_proofs.probe import Probe, ProbeError

BLOCK = 65536


@triton.jit
def convert(x_ptr, y_ptr, BLOCK: tl.constexpr):
    lanes = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(y_ptr + lanes, tl.load(x_ptr + lanes).to(y_ptr.dtype.element_ty))


@triton.jit
def convert_toward_zero(x_ptr, y_ptr, BLOCK: tl.constexpr):
    lanes = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(y_ptr + lanes, tl.load(x_ptr + lanes).to(tl.bfloat16, fp_downcast_rounding="rtz"))


@triton.jit
def calculate(x_ptr, y_ptr, out_ptr, n, BLOCK: tl.constexpr):
    """Rows of out: x + y, x - y, x * y, -x, |x|, the larger, x * y + x, x where it is below y."""
    lanes = tl.arange(0, BLOCK)
    x = tl.load(x_ptr + lanes)
    y = tl.load(y_ptr + lanes)
    tl.store(out_ptr + lanes, x + y)
    tl.store(out_ptr + n + lanes, x - y)
    tl.store(out_ptr + 2 * n + lanes, x * y)
    tl.store(out_ptr + 3 * n + lanes, -x)
    tl.store(out_ptr + 4 * n + lanes, tl.abs(x))
    tl.store(out_ptr + 5 * n + lanes, tl.maximum(x, y))
    tl.store(out_ptr + 6 * n + lanes, tl.fma(x, y, x))
    tl.store(out_ptr + 7 * n + lanes, tl.where(x < y, x, y))


@triton.jit
def multiply(a_ptr, b_ptr, out_ptr, N: tl.constexpr):
    i = tl.arange(0, N)
    tile = i[:, None] * N + i[None, :]
    tl.store(out_ptr + tile, tl.dot(tl.load(a_ptr + tile), tl.load(b_ptr + tile)))


@triton.jit
def add_up(x_ptr, out_ptr, N: tl.constexpr):
    tl.store(out_ptr, tl.sum(tl.load(x_ptr + tl.arange(0, N)), axis=0))


def same_bits(a: Tensor, b: Tensor) -> bool:
    """Equal bit for bit, but for the payload of NaNs."""
    nan = a.isnan() & b.isnan()
    return bool(((a.view(torch.int16) == b.view(torch.int16)) | nan).all())


def all_bfloat16() -> Tensor:
    return torch.from_numpy(np.arange(65536, dtype=np.uint16).view(np.int16)).view(torch.bfloat16)


def around_every_bfloat16() -> Tensor:
    """float32 patterns: every upper half with lower halves at, beside and away from the tie."""
    low = np.array([0, 1, 0x7FFF, 0x8000, 0x8001, 0xFFFF], np.uint32)
    patterns = (np.arange(65536, dtype=np.uint32)[:, None] << 16) | low
    return torch.from_numpy(patterns.ravel().view(np.float32))


def run_convert(kernel: Any, x: Tensor, dtype: torch.dtype) -> Tensor:
    y = torch.empty(x.shape, dtype=dtype)
    kernel[(x.numel() // BLOCK,)](x, y, BLOCK=BLOCK)
    return y


def test_every_bfloat16_widens_exactly() -> None:
    x = all_bfloat16()
    expected = x.float()
    actual = run_convert(convert, x, torch.float32)
    assert torch.equal(actual.isnan(), expected.isnan())
    numbers = ~expected.isnan()
    assert torch.equal(actual.view(torch.int32)[numbers], expected.view(torch.int32)[numbers])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_rounding_is_to_nearest_even(dtype: torch.dtype) -> None:
    x = around_every_bfloat16()
    assert x.numel() == 393_216
    assert same_bits(run_convert(convert, x.to(dtype), torch.bfloat16), x.bfloat16())


def test_rounding_toward_zero_truncates() -> None:
    x = around_every_bfloat16()
    truncated = (x.view(torch.int32) >> 16).to(torch.int16).view(torch.bfloat16)
    numbers = ~x.isnan()
    actual = run_convert(convert_toward_zero, x, torch.bfloat16)
    assert torch.equal(actual.view(torch.int16)[numbers], truncated.view(torch.int16)[numbers])


@pytest.mark.filterwarnings("ignore:(overflow|invalid value) encountered:RuntimeWarning")
def test_arithmetic_rounds_each_operation_once() -> None:
    x, y = all_bfloat16(), all_bfloat16()[torch.randperm(65536, generator=torch.Generator().manual_seed(0))]
    out = torch.empty(8, 65536, dtype=torch.bfloat16)
    calculate[(1,)](x, y, out, 65536, BLOCK=65536)
    fused = (x.double() * y.double() + x.double()).float().bfloat16()
    # The larger of a number and NaN is the number on GPUs.
    larger = torch.where(x.isnan(), y, torch.where(y.isnan(), x, torch.maximum(x, y)))
    expected = [x + y, x - y, x * y, -x, x.abs(), larger, fused, torch.where(x < y, x, y)]
    for actual, wanted in zip(out, expected, strict=True):
        assert same_bits(actual, wanted)


def test_dot_and_sum_take_bfloat16() -> None:
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.randn(16, 16, generator=generator).bfloat16() for _ in range(2))
    out = torch.empty(16, 16)
    multiply[(1,)](a, b, out, N=16)
    # 16 products of float32 that are summed in another order.
    torch.testing.assert_close(out, a.float() @ b.float(), rtol=0, atol=16 * 2**-24 * 16)
    total = torch.empty(1, dtype=torch.bfloat16)
    integers = torch.arange(16, dtype=torch.bfloat16)
    add_up[(1,)](integers, total, N=16)
    assert total.item() == 120


def test_correcting_twice_changes_nothing() -> None:
    before = InterpreterBuilder.binary_op
    correct_bfloat16()
    assert InterpreterBuilder.binary_op is before


def test_an_unknown_triton_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(triton, "__version__", "9.0.0")
    with pytest.raises(RuntimeError, match=r"Triton 9\.0\.0 is unknown"):
        correct_bfloat16()


@triton.jit
def last_writer(out_ptr):
    tl.store(out_ptr, tl.program_id(0))


def test_shuffled_programs_run_once_each_in_another_order() -> None:
    def order() -> list[tuple[int, int, int]]:
        interpreter_builder.set_grid_dim(4, 3, 2)
        seen = []
        for x in range(4):
            for y in range(3):
                for z in range(2):
                    interpreter_builder.set_grid_idx(x, y, z)
                    seen.append(interpreter_builder.grid_idx)
        return seen

    plain = order()
    with shuffled_programs(seed=1):
        shuffled = order()
        again = order()
    assert sorted(shuffled) == plain == order()
    assert shuffled not in (plain, again)


def test_a_result_that_depends_on_the_order_shows_it() -> None:
    out = torch.zeros(1, dtype=torch.int32)
    results = set()
    for seed in range(4):
        with shuffled_programs(seed):
            last_writer[(16,)](out)
        results.add(out.item())
    assert len(results) > 1


@triton.jit
def copy(x_ptr, y_ptr, n, BLOCK: tl.constexpr):
    lanes = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(y_ptr + lanes, tl.load(x_ptr + lanes, mask=lanes < n), mask=lanes < n)


@triton.jit
def copy_forgetting_the_load_mask(x_ptr, y_ptr, n, BLOCK: tl.constexpr):
    lanes = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(y_ptr + lanes, tl.load(x_ptr + lanes), mask=lanes < n)


@triton.jit
def copy_forgetting_the_store_mask(x_ptr, y_ptr, n, BLOCK: tl.constexpr):
    lanes = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(y_ptr + lanes, tl.load(x_ptr + lanes, mask=lanes < n))


@triton.jit
def copy_overlapping(x_ptr, y_ptr, n, BLOCK: tl.constexpr):
    lanes = tl.program_id(0) * (BLOCK - 1) + tl.arange(0, BLOCK)
    tl.store(y_ptr + lanes, tl.load(x_ptr + lanes, mask=lanes < n), mask=lanes < n)


@triton.jit
def shift(x_ptr, y_ptr, n, BLOCK: tl.constexpr):
    lanes = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(y_ptr + lanes, tl.load(x_ptr + lanes + 1, mask=lanes + 1 < n), mask=lanes + 1 < n)


@triton.jit
def sum_undefined(x_ptr, y_ptr, n, BLOCK: tl.constexpr):
    lanes = tl.arange(0, BLOCK)
    tl.store(y_ptr, tl.sum(tl.load(x_ptr + lanes, mask=lanes < n).to(tl.float32), axis=0))


@triton.jit
def count_atomically(x_ptr, y_ptr, n, BLOCK: tl.constexpr):
    tl.atomic_add(y_ptr, 1.0)


@triton.jit
def _beyond(x_ptr, n):
    return tl.load(x_ptr + n)


@triton.jit
def read_beyond_in_a_function(x_ptr, y_ptr, n, BLOCK: tl.constexpr):
    tl.store(y_ptr, _beyond(x_ptr, n))


@triton.jit
def follow(table_ptr, y_ptr, n, BLOCK: tl.constexpr):
    x_ptr = tl.load(table_ptr).to(tl.pointer_type(tl.float32))
    lanes = tl.arange(0, BLOCK)
    tl.store(y_ptr + lanes, tl.load(x_ptr + lanes, mask=lanes < n), mask=lanes < n)


def test_bytes_are_counted_exactly() -> None:
    x, y = torch.randn(100).bfloat16(), torch.zeros(100)
    with Probe() as probe:
        copy[(7,)](x, y, 100, BLOCK=16)
        copy[(7,)](x, y, 50, BLOCK=16)
    assert torch.equal(y, x.float())
    assert (probe.loaded("copy", "x_ptr"), probe.stored("copy", "y_ptr")) == (300, 600)
    assert (probe.loaded(), probe.stored(), probe.loaded("another")) == (300, 600, 0)
    assert probe.launches == {"copy": 2}
    assert probe.traffic["copy", "x_ptr"].unique_loaded == 300
    assert "x_ptr" in probe.table()


def test_an_address_read_twice_is_unique_once() -> None:
    x, y = torch.randn(10), torch.zeros(40)
    with Probe() as probe:
        copy[(4,)](x.expand(4, 10)[0], y, 10, BLOCK=16)
        copy_overlapping[(1,)](x, y, 10, BLOCK=16)
        copy_twice[(1,)](x, y, 10, BLOCK=16)
    assert probe.loaded("copy_twice", "x_ptr") == 80
    assert probe.traffic["copy_twice", "x_ptr"].unique_loaded == 40


@triton.jit
def copy_twice(x_ptr, y_ptr, n, BLOCK: tl.constexpr):
    lanes = tl.arange(0, BLOCK)
    first = tl.load(x_ptr + lanes, mask=lanes < n)
    tl.store(y_ptr + lanes, first + tl.load(x_ptr + lanes, mask=lanes < n), mask=lanes < n)


def test_in_place_is_no_race_and_goes_by_both_names() -> None:
    x = torch.randn(100)
    with Probe() as probe:
        copy[(7,)](x, x, 100, BLOCK=16)
    assert probe.loaded("copy", "x_ptr") == probe.stored("copy", "y_ptr") == 400


@pytest.mark.parametrize(
    ("kernel", "complaint"),
    [
        (copy_forgetting_the_load_mask, r"reads out of bounds: 12 of 16 lanes, the first at byte 400 of x_ptr"),
        (copy_forgetting_the_store_mask, r"writes out of bounds: 12 of 16 lanes, the first at byte 400 of y_ptr"),
        (copy_overlapping, r"a race: program 1 meets bytes of y_ptr touched by another"),
        (read_beyond_in_a_function, r"reads out of bounds: 1 of 1 lanes"),
        (count_atomically, r"atomic"),
    ],
)
def test_what_no_kernel_may_do_is_an_error(kernel: Callable[..., None], complaint: str) -> None:
    # Rows of one matrix: what lies beyond is allocated memory, which a plain run would not notice.
    x, y = torch.zeros(3, 100)[0], torch.zeros(3, 100)[0]
    with Probe(), pytest.raises(ProbeError, match=complaint):
        kernel[(7,)](x, y, 100, BLOCK=16)


def test_reading_what_another_program_writes_is_a_race() -> None:
    x = torch.zeros(100)
    with Probe(), pytest.raises(ProbeError, match="a race"):
        shift[(7,)](x, x, 100, BLOCK=16)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_an_undefined_lane_poisons_the_result(dtype: torch.dtype) -> None:
    x, y = torch.ones(10, dtype=dtype), torch.zeros(1)
    sum_undefined[(1,)](x, y, 10, BLOCK=16)
    assert y.item() == 10
    with Probe():
        sum_undefined[(1,)](x, y, 10, BLOCK=16)
    assert y.isnan()


def test_memory_behind_a_table_has_to_be_announced() -> None:
    x, y = torch.randn(10), torch.zeros(10)
    table = torch.tensor([x.data_ptr()])
    with Probe(), pytest.raises(ProbeError, match="out of bounds"):
        follow[(1,)](table, y, 10, BLOCK=16)
    with Probe() as probe:
        probe.watch("x", x)
        follow[(1,)](table, y, 10, BLOCK=16)
    assert probe.loaded("follow", "x") == 40


def test_after_the_block_nothing_is_watched() -> None:
    x, y = torch.zeros(3, 100)[0], torch.zeros(3, 112)[0]
    with Probe() as probe:
        pass
    copy_forgetting_the_load_mask[(7,)](x, y, 100, BLOCK=16)
    assert not probe.launches
