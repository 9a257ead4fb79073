"""What all launchers need: the right device, its warps, and scalars that live on it."""

from __future__ import annotations

import functools
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
import triton
from torch import Tensor


def interpreted() -> bool:
    """Whether kernels run in Triton's interpreter, on tensors of a CPU."""
    return bool(triton.knobs.runtime.interpret)


def check_device(device: torch.device) -> None:
    """Raises ValueError unless kernels can run on tensors of this device: a GPU's, or the interpreter's."""
    if device.type == "cpu" and not interpreted():
        raise ValueError(
            "the Triton kernels run on GPUs, and these tensors are on the CPU: use the PyTorch implementation"
        )


def warp_size() -> int:
    """Threads that run in step on the current device."""
    return 32 if interpreted() else triton.runtime.driver.active.get_current_target().warp_size


def device_of(tensor: Tensor) -> AbstractContextManager[Any]:
    """Triton launches on the current device, which need not be the tensor's."""
    return torch.cuda.device(tensor.device) if tensor.is_cuda else nullcontext()


def on_device(value: float | Tensor, device: torch.device) -> Tensor:
    """A scalar where kernels can read it, brought there without waiting; a tensor has to be there already."""
    if isinstance(value, Tensor):
        if value.numel() != 1 or value.device != device:
            raise ValueError(f"a scalar must be one element on {device}, not {value.numel()} on {value.device}")
        return value.detach()
    return _constant(float(value), device)


@functools.lru_cache(maxsize=64)
def _constant(value: float, device: torch.device) -> Tensor:
    """Kept, for a temperature stays the same for an epoch: no step but the first fills it. Never written to."""
    return torch.full((), value, dtype=torch.float64, device=device)
