"""Number formats of the forward pass, and loss scaling where the format needs it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


class Precision:
    """Autocast to one of `fp32`, `bf16`, `fp16`; only float16 scales the loss, since only its range is too small."""

    def __init__(self, name: str, device: torch.device) -> None:
        self.name = name
        self.device = device
        self.scaler = torch.amp.GradScaler(device.type) if name == "fp16" else None

    def autocast(self) -> torch.autocast:
        """Context in which matrix products run in the chosen format; does nothing for fp32."""
        return torch.autocast(self.device.type, DTYPES[self.name], enabled=self.name != "fp32")

    def scale(self, loss: Tensor) -> Tensor:
        """The loss as it should be differentiated."""
        return loss if self.scaler is None else self.scaler.scale(loss)

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

    def state_dict(self) -> dict[str, Any] | None:
        """The scaler's state, or None where there is none."""
        return None if self.scaler is None else self.scaler.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the scaler; a run that does not scale has no use for it."""
        if self.scaler is not None and state:
            self.scaler.load_state_dict(state)


def choose_precision(requested: str, use_fp16: bool, device: torch.device) -> str:
    """`requested`, or for `auto`: fp32 on CPUs or without `use_fp16`, bf16 where the GPU computes in it, else fp16."""
    if requested != "auto":
        return requested
    if not use_fp16 or device.type == "cpu":
        return "fp32"
    return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
