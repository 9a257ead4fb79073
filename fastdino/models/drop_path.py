"""Stochastic depth of a residual branch over packed sequences."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from fastdino.attention import Packing

# Tokens (tokens, C) -> the same again, and what is to be added to them. The gradient of what goes on from the former
# comes back into the branch with the other's.
Branch: TypeAlias = Callable[[Tensor, Packing], tuple[Tensor, Tensor]]


def rate_to_leave_out(device: torch.device) -> float:
    """The rate of stochastic depth above which gathering what is kept costs less than computing what is dropped.

    Estimated for CPUs, where copies of the tokens cost a few per cent of a branch's products; GPUs copy more slowly,
    measured by how fast they multiply, and DINOv2 takes a tenth.
    """
    return 0.03 if device.type == "cpu" else 0.1


class DropPath(nn.Module):
    """Stochastic depth: drops a residual branch for whole sequences and rescales the kept ones (Huang et al. 2016).

    Above `rate_to_leave_out` the branch is computed for the kept sequences only; below, gathering them costs more than
    what they save. Each sequence is dropped independently, as in the original.
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate, self.drops = rate, rate > 0.0
        # As a tensor, because compiled code would be another one for each number. Not as a buffer, which would travel:
        # operations on GPUs take a scalar of the host's.
        self.keep = torch.tensor(1.0 - rate)

    def forward(self, x: Tensor, packing: Packing, branch: Branch, only_first: bool = False) -> Tensor:
        """Tokens (tokens, C) -> x + what the branch adds, where it is kept.

        With `only_first` the branch gives the first token of each sequence, and so does this.
        """
        of_base = packing.of_first_tokens if only_first else packing
        if not (self.drops and self.training):
            x, change = branch(x, packing)
            return (packing.first_tokens(x) if only_first else x) + change
        # Compiled code wants the same shapes at each step.
        if torch.compiler.is_compiling() or self.rate <= rate_to_leave_out(x.device):
            kept = (torch.rand(packing.sequences, dtype=x.dtype, device=x.device) < self.keep) / self.keep
            x, change = branch(x, packing)
            base = packing.first_tokens(x) if only_first else x
            return _plus_scaled(base, change, of_base.spread(kept).unsqueeze(-1))
        # Drawn on the host, which has to know how many are left and should not have to ask a GPU.
        keep = 1.0 - self.rate
        chosen = torch.rand(packing.sequences) < keep
        weight = 1 / keep
        if not chosen.any():
            # A branch without gradients would leave the other processes waiting for them.
            chosen[0], weight = True, 0.0
        rest, tokens = packing.chosen(chosen)
        changed = of_base.chosen(chosen)[1] if only_first else tokens
        changed, tokens = (index.to(x.device, non_blocking=True) for index in (changed, tokens))
        base = packing.first_tokens(x) if only_first else x
        _, change = branch(x[tokens], rest)
        return base.index_add(0, changed, change.to(x.dtype), alpha=weight)

    def extra_repr(self) -> str:
        return f"rate={self.rate:.3f}"


def _plus_scaled(x: Tensor, branch: Tensor, factor: Tensor) -> Tensor:
    """(tokens, C), (tokens, C), (tokens, 1) -> x + branch * factor."""
    # A compiler fuses these itself.
    if branch.dtype == x.dtype or torch.compiler.is_compiling():
        return x + branch * factor
    result: Tensor = _PlusScaledNarrow.apply(x, branch, factor)
    return result


class _PlusScaledNarrow(torch.autograd.Function):
    """The same for a branch in 16 bits, whose float32 product and float32 gradient never reach the memory."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, branch: Tensor, factor: Tensor) -> Tensor:
        ctx.save_for_backward(factor)
        ctx.dtype = branch.dtype
        # With `out`, autocast leaves its arguments as they are instead of casting them first.
        return torch.addcmul(x, branch, factor, out=torch.empty_like(x))

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None]:
        (factor,) = ctx.saved_tensors
        return gradient, torch.mul(gradient, factor, out=torch.empty_like(gradient, dtype=ctx.dtype)), None
