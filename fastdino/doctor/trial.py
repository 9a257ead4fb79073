"""What a kernel is tried out on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

from torch import Tensor

Outputs: TypeAlias = list[Tensor]


class Sizes(NamedTuple):
    """How large a trial is."""

    images: int
    prototypes: int
    ncrops: int
    parameters: int
    pixels: int


# As many prototypes as are timed, for which the kernels are compiled apart from those for fewer.
CHECKED = Sizes(images=4, prototypes=65536, ncrops=10, parameters=300_000, pixels=96)
# ViT-S/16 with its head, 64 pictures a step.
TIMED = Sizes(images=64, prototypes=65536, ncrops=10, parameters=44_000_000, pixels=224)
INTERPRETED = Sizes(images=2, prototypes=700, ncrops=4, parameters=3000, pixels=10)


@dataclass(frozen=True)
class Trial:
    """One kernel on given inputs.

    Attributes:
        run: by the kernel; every call starts from the same inputs, as the next two do.
        plain: by PyTorch in the same types.
        exact: in float64.
        bytes: what any implementation has to move at least; None where products take the time.
        launch: the kernel alone, on inputs that it may overwrite.
    """

    kernel: str
    run: Callable[[], Outputs]
    plain: Callable[[], Outputs]
    exact: Callable[[], Outputs]
    bytes: int | None
    launch: Callable[[], object]
