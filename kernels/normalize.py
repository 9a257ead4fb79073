# mypy: disable-error-code=no-untyped-def
# Triton gives the arguments of kernels their types.
"""Crops from bytes to the numbers that the network sees, in one pass: (byte / 255 - mean) / deviation.

A byte is read once and its number written once: 3 bytes a value in bfloat16, where torchvision's operations and the
cast move 35. (PyTorch can do it in one operation that multiplies and adds, with other bits in the last place.)

Every quotient is the correctly rounded one (but for means so small that it is subnormal), so that float32 has the bits
of `fastdino.data.normalize` on a CPU, and the 16-bit types those bits rounded once. (PyTorch on a GPU multiplies by
1 / 255 instead, which differs in the last place for some bytes.) With r the rounded reciprocal of d, q = x r is off by
little, x - q d is exact in a fused multiply-add, and q + (x - q d) r rounds to x / d (Markstein 1990): three operations
where a general division that minds special cases takes four times as many, too many for a kernel that moves bytes.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from fastdino.data.normalize import IMAGENET_MEAN, IMAGENET_STD
from fastdino.kernels import launch
from fastdino.kernels.configuration import Configuration

WARPS = 4
# Bytes of a thread's 128-bit load.
VALUES_PER_THREAD = 16
# The divisions are made of fused operations where they are meant, and of no others.
OPTIONS: dict[str, Any] = {"num_warps": WARPS, "enable_fp_fusion": False}
DTYPES = (torch.float32, torch.bfloat16, torch.float16)


@triton.jit
def quotient(x, divisor, reciprocal):
    """x / divisor, correctly rounded, where `reciprocal` is that of the divisor."""
    q = x * reciprocal
    return tl.fma(tl.fma(-q, divisor, x), reciprocal, q)


@triton.jit(do_not_specialize=["channels", "size", "blocks"])
def normalize_planes(
    bytes_ptr,
    constants_ptr,
    out_ptr,
    channels,
    size,
    blocks,
    BLOCK: tl.constexpr,
    VECTOR: tl.constexpr,
):
    """Each program owns a block of one channel of one crop, `size` * VECTOR values in `blocks` blocks.

    `constants` are (channels, 3): mean, deviation, reciprocal of the deviation.
    """
    plane = tl.program_id(0) // blocks
    lanes = (tl.program_id(0) % blocks) * BLOCK + tl.arange(0, BLOCK)
    inside = lanes < size * VECTOR
    start = plane.to(tl.int64) * size * VECTOR
    constant_ptr = constants_ptr + 3 * (plane % channels)
    mean, deviation = tl.load(constant_ptr), tl.load(constant_ptr + 1)
    x = tl.load(bytes_ptr + start + lanes, mask=inside).to(tl.float32)
    x = quotient(x, 255.0, 1.0 / 255.0)
    x = quotient(x - mean, deviation, tl.load(constant_ptr + 2))
    tl.store(out_ptr + start + lanes, x.to(out_ptr.dtype.element_ty), mask=inside)


@torch.no_grad()
def normalize(
    crops: Tensor,
    dtype: torch.dtype = torch.bfloat16,
    mean: Sequence[float] = IMAGENET_MEAN,
    std: Sequence[float] = IMAGENET_STD,
) -> Tensor:
    """uint8 crops (..., C, H, W), contiguous, as `dtype`: float32, bfloat16 or float16.

    Args:
        mean, std: one number per channel, on a scale from 0 to 1.

    Raises:
        ValueError: the crops are no contiguous bytes, or mean and std do not have their channels.
    """
    if crops.dtype != torch.uint8 or crops.dim() < 3 or not crops.is_contiguous():
        raise ValueError(
            f"crops must be contiguous uint8 of shape (..., channels, height, width), not {crops.dtype} of shape "
            f"{tuple(crops.shape)} with strides {crops.stride()}"
        )
    if dtype not in DTYPES:
        raise ValueError(f"crops become float32, bfloat16 or float16, not {dtype}")
    channels, size = crops.shape[-3], crops.shape[-2] * crops.shape[-1]
    if not len(mean) == len(std) == channels:
        raise ValueError(f"mean and std have {len(mean)} and {len(std)} numbers, the crops {channels} channels")
    launch.check_device(crops.device)
    out = torch.empty_like(crops, dtype=dtype)
    if not crops.numel():
        return out
    block = block_values(launch.warp_size())
    blocks = triton.cdiv(size, block)
    vector = VALUES_PER_THREAD if size % VALUES_PER_THREAD == 0 else 1
    with launch.device_of(crops):
        normalize_planes[crops.numel() // size * blocks,](
            crops,
            _constants(tuple(mean), tuple(std), crops.device),
            out,
            channels,
            size // vector,
            blocks,
            BLOCK=block,
            VECTOR=vector,
            **OPTIONS,
        )
    return out


@functools.lru_cache(maxsize=8)
def _constants(mean: tuple[float, ...], std: tuple[float, ...], device: torch.device) -> Tensor:
    """Kept, because copying them to a GPU would make the host wait for it at every call."""
    deviation = torch.tensor(std, dtype=torch.float32)
    return torch.stack((torch.tensor(mean, dtype=torch.float32), deviation, 1 / deviation), dim=1).to(device)


def block_values(warp_size: int) -> int:
    """Values of a program."""
    return WARPS * warp_size * VALUES_PER_THREAD


def configurations(warp_size: int) -> Iterator[Configuration]:
    """What the launcher can choose."""
    for dtype, size in (("fp32", 4), ("bf16", 2), ("fp16", 2)):
        for vector in (VALUES_PER_THREAD, 1):
            yield Configuration(
                f"{dtype}, {'aligned' if vector > 1 else 'unaligned'}",
                normalize_planes,
                {
                    "bytes_ptr": "*u8:16",
                    "constants_ptr": "*fp32:16",
                    "out_ptr": f"*{dtype}:16",
                    **dict.fromkeys(("channels", "size", "blocks"), "i32"),
                    **dict.fromkeys(("BLOCK", "VECTOR"), "constexpr"),
                },
                {"BLOCK": block_values(warp_size), "VECTOR": vector},
                OPTIONS,
                wide_loads=vector > 1,
                wide_stores=size * (vector > 1),
                extreme=vector > 1 or size == 4,
            )
