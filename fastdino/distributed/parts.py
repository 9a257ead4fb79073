"""Tensors of which each process has a part: what a process has of them, putting them together, taking them apart."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any, TypeVar, cast

import torch
from torch import Tensor, distributed, nn
from torch.optim import Optimizer

T = TypeVar("T")


def is_split(tensor: Tensor) -> bool:
    """Whether each process has only a part of it."""
    # Without its module, which takes long to import, there are no split tensors.
    tensors = sys.modules.get("torch.distributed.tensor")
    return tensors is not None and isinstance(tensor, tensors.DTensor)


def local(tensor: Tensor) -> Tensor:
    """This process's part of a split tensor, sharing its memory; any other tensor as it is."""
    return cast(Any, tensor).to_local() if is_split(tensor) else tensor


def whole(value: T) -> T:
    """`value`, a tree of dictionaries and lists, with split tensors put together on the CPU.

    All processes have to ask for it, and all get it; one tensor at a time is on the device.
    """
    if isinstance(value, Tensor):
        return cast(Any, value).full_tensor().cpu() if is_split(value) else value
    if isinstance(value, Mapping):
        return cast(T, {key: whole(item) for key, item in value.items()})
    if isinstance(value, list):
        return cast(T, [whole(item) for item in value])
    return value


def split_alike(value: Tensor, like: Tensor) -> Tensor:
    """`value`, whole and equal on all processes, split as `like` is; as it is if `like` is not split."""
    if not is_split(like):
        return value
    from torch.distributed.tensor import DTensor, distribute_tensor

    assert isinstance(like, DTensor)
    # Each takes its part: there is nothing to send.
    return distribute_tensor(value.to(like.device), like.device_mesh, like.placements, src_data_rank=None)


def split_state(state: Mapping[str, Tensor], module: nn.Module) -> dict[str, Tensor]:
    """`module`'s whole `state`, split as `module` is."""
    own = module.state_dict()
    return {key: split_alike(value, own[key]) for key, value in state.items()}


def split_optimizer_state(state: Mapping[str, Any], optimizer: Optimizer) -> dict[str, Any]:
    """The whole `state` of `optimizer`, split as its parameters are."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]

    def split(index: int, value: Any) -> Any:
        # The number of steps is no tensor of the parameter's shape.
        is_moment = isinstance(value, Tensor) and value.shape == parameters[index].shape
        return split_alike(value, parameters[index]) if is_moment else value

    moments = {
        index: {name: split(index, value) for name, value in values.items()} for index, values in state["state"].items()
    }
    return {**state, "state": moments}


@torch.no_grad()
def clip_split_gradients(network: nn.Module, clip: float) -> None:
    """Scale each gradient whose own L2 norm, over all its parts, exceeds `clip` down to it."""
    gradients = [local(p.grad) for p in network.parameters() if p.grad is not None]
    squares = torch.stack(torch._foreach_norm(gradients)).square_()
    distributed.all_reduce(squares)
    coefficients = (clip / (squares.sqrt_() + 1e-6)).clamp(max=1.0)
    torch._foreach_mul_(gradients, list(coefficients.unbind()))
