"""Parameter groups, clipping, the frozen last layer and the optimisers of DINO (paper, section 3.2)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import SGD, AdamW, Optimizer

from fastdino.reference import optim as reference_optim

OPTIMIZERS = ("adamw", "sgd", "lars")


def get_params_groups(model: nn.Module) -> list[dict[str, Any]]:
    """Trainable parameters as [regularised, not regularised]; biases and 1-D tensors are not regularised."""
    groups: tuple[list[nn.Parameter], list[nn.Parameter]] = ([], [])
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            groups[name.endswith(".bias") or parameter.ndim == 1].append(parameter)
    return [{"params": groups[0]}, {"params": groups[1], "weight_decay": 0.0}]


def build_optimizer(name: str, model: nn.Module) -> Optimizer:
    """`adamw`, `sgd` or `lars` over `model`'s groups; learning rate and weight decay are set at every step."""
    groups = get_params_groups(model)
    if name == "adamw":
        return _adamw(groups)
    if name == "sgd":
        return SGD(groups, lr=0.0, momentum=0.9)
    if name == "lars":
        return LARS(groups)
    raise ValueError(f"optimizer must be one of {', '.join(OPTIMIZERS)}, not {name!r}")


def _adamw(groups: list[dict[str, Any]]) -> AdamW:
    """In one pass over memory on CPUs, where torch by itself takes tensor by tensor in a dozen."""
    fused = True if all(p.device.type == "cpu" for group in groups for p in group["params"]) else None
    optimizer = AdamW(groups, fused=fused)

    # How to step is a machine's own affair: it neither goes into a checkpoint nor comes out of one.
    def leave_out(_: Optimizer, state: dict[str, Any]) -> dict[str, Any]:
        return state | {"param_groups": [group | {"fused": None} for group in state["param_groups"]]}

    def keep(optimizer: Optimizer) -> None:
        for group in optimizer.param_groups:
            group["fused"] = fused

    optimizer.register_state_dict_post_hook(leave_out)
    optimizer.register_load_state_dict_post_hook(keep)
    return optimizer


@torch.no_grad()
def clip_gradients(model: nn.Module, clip: float, implementation: str = "auto") -> Tensor:
    """Scale each gradient whose own L2 norm exceeds `clip` down to it.

    Returns the norms before clipping (one per parameter with a gradient, in order), on the gradients' device: nothing
    here waits for a GPU. `reference` goes tensor by tensor.
    """
    if implementation == "reference":
        return torch.tensor(reference_optim.clip_gradients(model, clip))
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    if not gradients:
        return torch.zeros(0)
    norms = torch.stack(torch._foreach_norm(gradients))
    coefficients = (clip / (norms + 1e-6)).clamp(max=1.0)
    torch._foreach_mul_(gradients, list(coefficients.unbind()))
    return norms


def cancel_gradients_last_layer(epoch: int, model: nn.Module, freeze_last_layer: int) -> None:
    """Drop the gradients of the prototypes during the first `freeze_last_layer` epochs.

    They become None, not zero: the optimiser then keeps no state for them and does not decay them.
    """
    if epoch >= freeze_last_layer:
        return
    for name, parameter in model.named_parameters():
        if is_of_last_layer(name):
            parameter.grad = None


def is_of_last_layer(name: str) -> bool:
    """Whether a parameter of this name belongs to the prototypes."""
    return "last_layer" in name


class LARS(Optimizer):
    """SGD with momentum and a learning rate per tensor (You et al. 2017), as used for large convnet batches.

    One-dimensional tensors are neither decayed nor adapted.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 0.0,
        weight_decay: float = 0.0,
        momentum: float = 0.9,
        eta: float = 0.001,
    ) -> None:
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay, "momentum": momentum, "eta": eta})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                update = parameter.grad
                if parameter.ndim != 1:
                    update = update.add(parameter, alpha=group["weight_decay"])
                    update = update * trust_ratio(parameter, update, group["eta"])
                state = self.state[parameter]
                if "mu" not in state:
                    state["mu"] = torch.zeros_like(parameter)
                state["mu"].mul_(group["momentum"]).add_(update)
                parameter.add_(state["mu"], alpha=-group["lr"])


def trust_ratio(parameter: Tensor, update: Tensor, eta: float) -> Tensor:
    """eta * |parameter| / |update|, or 1 where either is zero (scalar tensor)."""
    parameter_norm, update_norm = parameter.norm(), update.norm()
    usable = (parameter_norm > 0) & (update_norm > 0)
    return torch.where(usable, eta * parameter_norm / update_norm, torch.ones_like(update_norm))
