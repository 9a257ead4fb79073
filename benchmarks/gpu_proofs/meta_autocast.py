"""A GPU's autocast to bfloat16 for tensors on the device `meta`, which torch.autocast does not know.

The lists are those of "Autocast Op Reference" in torch's documentation of torch.amp, section CUDA, as far as a training
step meets them. tests/benchmarks compares every cast with what torch.autocast("cuda") inserts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map

NARROW = {"linear", "conv2d", "matmul", "__matmul__", "bmm", "mm", "addmm", "baddbmm"}
WIDE = {"layer_norm", "softmax", "log_softmax"}


class MetaAutocast(TorchFunctionMode):
    """See the module. Weights are cast once within it, as by torch.autocast: if they are leaves that train."""

    def __enter__(self) -> Any:
        self._weights: dict[Tensor, Tensor] = {}
        return super().__enter__()

    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        if name == "normalize":
            return _normalize(*args, **kwargs)
        if name == "_weight_norm":
            # What a GPU takes of it; other devices take it apart.
            return torch._weight_norm_interface(*args, **kwargs)[0]
        cast = self._cast_of(name)
        return func(*tree_map(cast, args), **tree_map(cast, kwargs))

    def _cast_of(self, name: str) -> Callable[[Any], Any]:
        if name in NARROW:
            return self._narrowed
        return _widened if name in WIDE else _unchanged

    def _narrowed(self, x: Any) -> Any:
        if not _is_of(torch.float32, x):
            return x
        if not (x.is_leaf and x.requires_grad):
            return x.bfloat16()
        if x not in self._weights:
            self._weights[x] = x.bfloat16()
        return self._weights[x]


def _normalize(x: Tensor, p: float = 2.0, dim: int = 1, eps: float = 1e-12, out: None = None) -> Tensor:
    """F.normalize, whose norm autocast computes in float32 without a cast of its own."""
    return x / x.norm(p, dim, keepdim=True, dtype=torch.float32).clamp_min(eps).expand_as(x)


def _widened(x: Any) -> Any:
    return x.float() if _is_of(torch.bfloat16, x) else x


def _unchanged(x: Any) -> Any:
    return x


def _is_of(dtype: torch.dtype, x: Any) -> bool:
    return isinstance(x, Tensor) and x.dtype == dtype
