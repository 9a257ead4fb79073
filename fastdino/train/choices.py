"""Which implementations a run takes, in words for its log."""

from __future__ import annotations

import torch
from torch import nn

from fastdino import attention
from fastdino import implementation as implementations
from fastdino.config import TrainConfig
from fastdino.errors import UserError
from fastdino.train.precision import Precision


def attention_in_words(backbone: nn.Module, precision: Precision) -> str:
    """What computes the attention of all crops at once, and why; empty for networks that take crops size by size."""
    if not hasattr(backbone, "forward_packed"):
        return ""
    backend, why = attention.choose(precision.device.type, precision.input_dtype)
    return f"; attention by {backend} ({why})"


def choices_in_words(config: TrainConfig, device: torch.device) -> str:
    """Who computes what, and why: `loss, update by torch (the device is a CPU)`.

    Raises UserError if what is asked for cannot run.
    """
    by_choice: dict[implementations.Choice, list[str]] = {}
    for operation in implementations.OPERATIONS:
        if config.fsdp and operation == implementations.UPDATE:
            choice = implementations.Choice("torch", "the weights are split among processes")
            by_choice.setdefault(choice, []).append(operation)
            continue
        try:
            choice = implementations.choose(operation, config.implementation, device)
        except ValueError as error:
            raise UserError(f"--implementation {config.implementation}: {error}") from error
        by_choice.setdefault(choice, []).append(operation)
    return "; ".join(f"{', '.join(operations)} by {name} ({why})" for (name, why), operations in by_choice.items())


def why_narrow(config: TrainConfig, precision: str, device: torch.device) -> str | None:
    """Why the loss kernels move this run's logits one by one; None if they do not, or if others compute the loss."""
    padded = precision == "bf16" and config.norm_last_layer and config.optimizer == "adamw"
    if padded or implementations.choose(implementations.LOSS, config.implementation, device).name != "triton":
        return None
    logits = torch.empty(1, config.out_dim, device="meta")
    return implementations.kernels("dino_loss_launch").why_narrow(logits)
