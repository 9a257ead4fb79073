"""Bytes to numbers: every byte, every type, any mean and deviation, and what moves."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from benchmarks.gpu_proofs.interpreter import shuffled_programs
from benchmarks.gpu_proofs.probe import Probe
from fastdino.data.normalize import normalize as reference
from fastdino.kernels.normalize import DTYPES, normalize


def every_byte() -> Tensor:
    return torch.arange(256, dtype=torch.uint8).repeat(3).view(3, 16, 16)


def random_crops(*shape: int) -> Tensor:
    return torch.randint(0, 256, shape, generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(2, 3, 96, 96), (3, 224, 224), (5, 3, 7, 9), (2, 2, 3, 1, 1), (1, 3, 64, 33)])
def test_has_the_bits_of_the_reference(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    crops = random_crops(*shape)
    with Probe():
        actual = normalize(crops, dtype)
    assert actual.dtype == dtype
    assert torch.equal(actual, reference(crops).to(dtype))


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_byte_has_the_bits_of_the_reference(dtype: torch.dtype) -> None:
    assert torch.equal(normalize(every_byte(), dtype), reference(every_byte()).to(dtype))


# Fused steps round rightly where neither a quotient nor a remainder is subnormal: no mean but 0 is as small as that.
MEANS = st.just(0.0) | st.floats(2.0**-60, 1, width=32)


@settings(max_examples=60, deadline=None)
@given(
    mean=st.tuples(*[MEANS] * 3),
    std=st.tuples(*[st.floats(2.0**-8, 16, width=32)] * 3),
)
def test_any_mean_and_deviation_give_correctly_rounded_quotients(
    mean: tuple[float, ...], std: tuple[float, ...]
) -> None:
    actual = normalize(every_byte(), torch.float32, mean, std)
    m, s = (torch.tensor(x, dtype=torch.float32).view(3, 1, 1) for x in (mean, std))
    assert torch.equal(actual, every_byte().float().div(255).sub(m).div(s))


def test_the_division_by_255_rounds_the_exact_quotient() -> None:
    """In rational arithmetic, so that not both sides err alike: no float32 is nearer to byte / 255."""
    actual = normalize(every_byte(), torch.float32, (0.0,) * 3, (1.0,) * 3)[0].flatten().numpy()
    for byte, x in enumerate(actual):
        error = abs(Fraction(float(x)) - Fraction(byte, 255))
        neighbours = (np.nextafter(x, np.float32(2)), np.nextafter(x, np.float32(-1)))
        assert all(error <= abs(Fraction(float(y)) - Fraction(byte, 255)) for y in neighbours)


def test_grey_and_many_channels() -> None:
    for channels in (1, 5):
        crops = random_crops(2, channels, 8, 8)
        mean, std = [0.1 * (c + 1) for c in range(channels)], [0.2 + 0.1 * c for c in range(channels)]
        m, s = (torch.tensor(x, dtype=torch.float32).view(-1, 1, 1) for x in (mean, std))
        assert torch.equal(normalize(crops, torch.float32, mean, std), crops.float().div(255).sub(m).div(s))


@pytest.mark.parametrize(("dtype", "size"), [(torch.bfloat16, 2), (torch.float16, 2), (torch.float32, 4)])
def test_a_byte_is_read_once_and_its_number_written_once(dtype: torch.dtype, size: int) -> None:
    crops = random_crops(2, 3, 96, 96)
    with Probe() as probe:
        normalize(crops, dtype)
    assert probe.launches == {"normalize_planes": 1}
    assert probe.loaded("normalize_planes", "bytes_ptr") == crops.numel()
    assert probe.stored("normalize_planes", "out_ptr") == size * crops.numel()


def test_in_any_order_the_same_bits() -> None:
    crops = random_crops(2, 3, 50, 70)
    with shuffled_programs(0):
        shuffled = normalize(crops)
    assert torch.equal(shuffled, normalize(crops))


@pytest.mark.parametrize(
    ("crops", "options", "complaint"),
    [
        (torch.zeros(3, 4, 4), {}, "contiguous uint8"),
        (random_crops(4, 4), {}, "contiguous uint8"),
        (random_crops(4, 4, 3).permute(2, 0, 1), {}, "contiguous uint8"),
        (random_crops(4, 4, 4), {}, "3 and 3 numbers, the crops 4 channels"),
        (random_crops(3, 4, 4), {"mean": (0.5,)}, "1 and 3 numbers"),
        (random_crops(3, 4, 4), {"dtype": torch.float64}, "not torch.float64"),
    ],
)
def test_what_does_not_fit_is_said_in_a_sentence(crops: Tensor, options: dict[str, object], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        normalize(crops, **options)


def test_no_crops_are_no_error() -> None:
    assert normalize(random_crops(0, 3, 8, 8)).shape == (0, 3, 8, 8)
