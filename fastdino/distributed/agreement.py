"""Whether the processes still hold the same weights, asked for the price of two numbers."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, distributed

from fastdino.distributed.parts import is_split
from fastdino.distributed.world import World
from fastdino.errors import TrainingFailed, UserError


def require_equal_start(world: World, start: Any, found_in: str) -> None:
    """Raises UserError if processes would go on from different places, on all of them."""
    starts = world.gather(start)
    if any(other != starts[0] for other in starts):
        raise UserError(
            f"the processes found different checkpoints in {found_in} (rank 0 goes on from {starts[0]}, rank "
            f"{next(r for r, other in enumerate(starts) if other != starts[0])} does not): give an --output_dir on a "
            f"disk that all machines share"
        )


@torch.no_grad()
def require_equal_weights(world: World, parameters: Iterable[Tensor]) -> None:
    """Raises TrainingFailed if the bits of the parameters differ between processes, on all of them.

    Parameters that are split among processes are nobody's twice, and are left out.
    """
    if world.size == 1:
        return
    whole = [p for p in parameters if not is_split(p)]
    if not whole:
        return
    checksum = torch.stack([_checksum(p) for p in whole]).sum()
    # One reduction tells both ends: the largest, and the smallest as the largest of its negative.
    ends = torch.stack((checksum, -checksum))
    distributed.all_reduce(ends, op=distributed.ReduceOp.MAX)
    if (ends[0] != -ends[1]).item():
        raise TrainingFailed(
            "the processes' weights have drifted apart, which equal programs on sound machines do not: see that all "
            "machines run the same versions on the same kind of GPU, and go on from the last checkpoint"
        )


def _checksum(parameter: Tensor) -> Tensor:
    """The sum of the bits, each value's weighed with an odd number of its place, which sees swapped values too."""
    bits = parameter.detach().reshape(-1).view(torch.int32)
    places = torch.arange(1, 2 * bits.numel(), 2, device=bits.device)
    return (bits * places).sum()
