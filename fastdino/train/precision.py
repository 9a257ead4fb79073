"""Number formats of the forward pass, and loss scaling where the format needs it."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor
from torch.optim import Optimizer

# A product of this size takes milliseconds and fills all cores.
PRODUCT = 1024
FASTER_BY = 1.5
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


class Precision:
    """Autocast to one of `fp32`, `bf16`, `fp16`; only float16 scales the loss, since only its range is too small."""

    def __init__(self, name: str, device: torch.device) -> None:
        self.name = name
        self.device = device
        self.scaler = torch.amp.GradScaler(device.type) if name == "fp16" else None

    @property
    def input_dtype(self) -> torch.dtype:
        """What the first layer computes in."""
        return DTYPES[self.name]

    def autocast(self) -> torch.autocast:
        """Context in which matrix products run in the chosen format; does nothing for fp32."""
        return torch.autocast(self.device.type, DTYPES[self.name], enabled=self.name != "fp32")

    def loss_scale(self) -> float | Tensor:
        """What the loss is multiplied with before it is differentiated; on the device if it changes there."""
        return 1.0 if self.scaler is None else self.scaler.scale(torch.ones((), device=self.device))

    def unscale_(self, optimizer: Optimizer) -> None:
        """Bring the gradients back to their true size, before anything looks at them."""
        if self.scaler is not None:
            self.scaler.unscale_(optimizer)

    def step(self, optimizer: Optimizer) -> None:
        """The optimiser's step, left out when scaling made a gradient overflow."""
        if self.scaler is None:
            optimizer.step()
        else:
            self.scaler.step(optimizer)
            self.scaler.update()

    def step_on_device(self, optimizer: Optimizer, launch: Callable[[Tensor | None, Tensor | None], None]) -> None:
        """The same without waiting: `launch` gets what the gradients are still multiplied with and whether one of them
        overflowed, one number each on the device, or None and None where nothing is scaled.
        """
        if self.scaler is None:
            launch(None, None)
        else:
            self.scaler.step(cast(Optimizer, _Scaled(optimizer, launch)))
            self.scaler.update()

    def state_dict(self) -> dict[str, Any] | None:
        """The scaler's state, or None where there is none."""
        return None if self.scaler is None else self.scaler.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the scaler; a run that does not scale has no use for it."""
        if self.scaler is not None and state:
            self.scaler.load_state_dict(state)


class _Scaled:
    """What torch's GradScaler takes for an optimiser that looks after overflows itself, such as its own fused ones."""

    _step_supports_amp_scaling = True
    grad_scale: Tensor
    found_inf: Tensor

    def __init__(self, optimizer: Optimizer, launch: Callable[[Tensor | None, Tensor | None], None]) -> None:
        self.param_groups = optimizer.param_groups
        self._launch = launch

    def step(self) -> None:
        self._launch(self.grad_scale, self.found_inf)


def choose_precision(requested: str, use_fp16: bool, device: torch.device) -> str:
    """`requested`, or for `auto`: fp32 without `use_fp16`, else what the device is fast at.

    That is bf16 on GPUs that compute in it, fp16 on others, and on CPUs bf16 where it was measured to be faster.
    """
    if requested != "auto":
        return requested
    if not use_fp16:
        return "fp32"
    if device.type == "cpu":
        return "bf16" if bf16_pays_on_this_cpu() else "fp32"
    return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"


@functools.cache
def bf16_pays_on_this_cpu() -> bool:
    """Whether products of matrices are so much faster in bfloat16 that casting does not eat it up.

    CPUs without such instructions are not asked: they emulate it, a hundred times more slowly.
    """
    capabilities: dict[str, bool] = getattr(torch.cpu, "get_capabilities", dict)()
    if not capabilities.get("amx_bf16") and not capabilities.get("avx512_bf16"):
        return False
    return _seconds_of_a_product(torch.float32) > FASTER_BY * _seconds_of_a_product(torch.bfloat16)


def _seconds_of_a_product(dtype: torch.dtype) -> float:
    """The shortest of some, because what disturbs a measurement makes it longer."""
    x = torch.ones(PRODUCT, PRODUCT, dtype=dtype)
    seconds = []
    for _ in range(5):
        start = time.perf_counter()
        torch.mm(x, x)
        seconds.append(time.perf_counter() - start)
    return min(seconds)
