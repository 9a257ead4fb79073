"""What a training step does on the device `meta`, operation by operation."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple
from unittest import mock

from torch import Tensor
from torch.utils.flop_counter import flop_registry

from benchmarks.gpu_proofs import meta_attention
from benchmarks.gpu_proofs.dispatch_counter import Count, DispatchCounter


class Operation(NamedTuple):
    """One call: in which part of the step, of which operation, what it moved, and the operations of its products."""

    part: str
    name: str
    moved: Count
    flops: int = 0


class StepCounter(DispatchCounter):
    """Keeps all operations; `part` names those inside it, and `note` takes what ran without PyTorch."""

    def __init__(self) -> None:
        super().__init__("meta")
        self.operations: list[Operation] = []
        self._part = ""

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Everything within belongs to it."""
        before, self._part = self._part, name
        try:
            yield
        finally:
            self._part = before

    def note(self, name: str, count: Count) -> None:
        """A kernel of ours, counted elsewhere."""
        self.operations.append(Operation(self._part, name, count))

    def record(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any, count: Count) -> None:
        if any(count):
            name = func.overloadpacket._qualified_op_name
            self.operations.append(
                Operation(self._part, name.removeprefix("aten::"), count, _flops(func, args, kwargs, result))
            )


def _flops(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> int:
    name = func.overloadpacket._qualified_op_name
    if name in (meta_attention.FORWARD, meta_attention.GRADIENTS):
        return meta_attention.flops(name, args[name == meta_attention.GRADIENTS], args[-1])
    formula = flop_registry.get(func.overloadpacket)
    return 0 if formula is None else int(formula(*args, **kwargs, out_val=result))


@contextmanager
def addresses() -> Iterator[None]:
    """Tensors without memory have addresses within it, that tell them apart and are multiples of 16."""
    places: dict[int, int] = {}
    true_address: Callable[[Tensor], int] = Tensor.data_ptr

    def data_ptr(tensor: Tensor) -> int:
        if tensor.device.type != "meta":
            return true_address(tensor)
        place = places.setdefault(tensor.untyped_storage()._cdata, len(places) + 1)
        return (place << 36) + int(tensor.storage_offset()) * tensor.element_size()

    with mock.patch.object(Tensor, "data_ptr", data_ptr):
        yield
