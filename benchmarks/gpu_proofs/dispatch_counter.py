"""Counts what PyTorch's own operations move, launch and wait for, without running them.

    with DispatchCounter("meta") as counter:
        loss(torch.empty(640, 65536, device="meta"), ...).backward()
    counter.count.bytes

On the device `meta` tensors have shapes and no memory, so that a case of any size takes no time.

An operation reads each operand once and writes each result once; in-place operations do both. An operand counts with
the memory that it has: not with what an expansion repeats. Views, allocations and operations on other devices are free.
What a kernel reads twice in itself (a softmax over rows that no cache holds) is not seen, so this is a lower bound.

A launch is an operation that touches memory. A multi-tensor operation (`_foreach_...`, `_fused_...`) is one, though
PyTorch needs another for every few hundred chunks of 65,536 values; where its lists differ in shape it goes tensor by
tensor, and one launch each is counted. A wait is a number that is asked for on the host (`item()`, `if tensor:`).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

# They touch no memory, or none yet.
FREE = ("_unsafe_view", "empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided", "set_")
# They look at nothing of their operands but the shape.
FILLING = ("full_like", "new_full", "new_ones", "new_zeros", "ones_like", "zeros_like")
# What they write in place they have not read.
OVERWRITING = ("_foreach_copy_", "_foreach_zero_", "copy_", "fill_", "zero_")
# Schemas that promise less than the kernels keep: gradients change only where a loss scaler is given.
UNCHANGED = {"_fused_adamw_": "grads"}


class Count(NamedTuple):
    """Bytes from and to memory, launches of kernels, and how often the host waits for the device."""

    loaded: int = 0
    stored: int = 0
    launches: int = 0
    waits: int = 0

    @property
    def bytes(self) -> int:
        """Both ways."""
        return self.loaded + self.stored


def total(counts: Iterable[Count]) -> Count:
    """All of them one after the other."""
    return Count(*map(sum, zip(*counts, Count(), strict=True)))


class DispatchCounter(TorchDispatchMode):
    """See the module. `count` holds what has happened on `device` inside the block."""

    def __init__(self, device: str) -> None:
        super().__init__()
        self.device = device
        self.count = Count()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        operands = dict(_operands(func, args, kwargs))
        if func.overloadpacket is torch.ops.aten._local_scalar_dense:
            asked = self._ours(operands["self"])
            self.record(func, args, kwargs, None, Count(waits=len(asked)))
            # There is no number on `meta`. This one is true, and below one where a norm is compared with its limit.
            return 0.5 if asked and self.device == "meta" else func(*args, **kwargs)
        result = func(*args, **kwargs)
        self.record(func, args, kwargs, result, self._counted(func, operands, result))
        return result

    def record(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any, count: Count) -> None:
        """Called for each operation, with what it was called with and what came of it."""
        self.count = total([self.count, count])

    def _counted(self, func: Any, operands: dict[str, Any], result: Any) -> Count:
        name = func.overloadpacket.__name__
        if name in FREE or any(r.alias_info is not None and not r.alias_info.is_write for r in func._schema.returns):
            return Count()
        read: dict[Any, int] = {}
        written: dict[Any, int] = {}
        for argument in func._schema.arguments:
            tensors = self._ours(operands.get(argument.name))
            changes = argument.alias_info is not None and argument.alias_info.is_write
            if changes and UNCHANGED.get(name) != argument.name:
                written |= _sizes(tensors)
            if name not in FILLING and not argument.is_out and not (changes and name in OVERWRITING):
                read |= _sizes(tensors)
        if all(r.alias_info is None for r in func._schema.returns):
            written |= _sizes(self._ours(result))
        launches = _launches(name, operands) if read or written else 0
        return Count(sum(read.values()), sum(written.values()), launches)

    def _ours(self, value: Any) -> list[Tensor]:
        return [x for x in tree_leaves(value) if isinstance(x, Tensor) and x.device.type == self.device]


def _operands(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """By the names of the schema."""
    yield from zip((a.name for a in func._schema.arguments), args, strict=False)
    yield from kwargs.items()


def _sizes(tensors: Iterable[Tensor]) -> dict[Any, int]:
    """Bytes by place, so that an operand which occurs twice counts once."""
    return {
        (x.untyped_storage()._cdata, x.storage_offset(), x.shape, x.stride()): x.element_size()
        * math.prod(n for n, stride in zip(x.shape, x.stride(), strict=True) if stride or not n)
        for x in tensors
        if x.numel()
    }


def _launches(name: str, operands: dict[str, Any]) -> int:
    lists = [x for x in operands.values() if isinstance(x, list) and x and isinstance(x[0], Tensor)]
    if name.startswith("_foreach_") and any([x.shape for x in of] != [x.shape for x in lists[0]] for of in lists):
        return len(lists[0])
    return 1
