"""Small networks with tensors of odd sizes and a matrix whose rows are normalised."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fastdino.kernels.arena import Arena

ROWS = "last_layer.weight_v"


class Prototypes(nn.Module):
    def __init__(self, rows: int, width: int, generator: torch.Generator) -> None:
        super().__init__()
        self.weight_g = nn.Parameter(torch.ones(rows, 1), requires_grad=False)
        self.weight_v = nn.Parameter(torch.randn(rows, width, generator=generator))


class Network(nn.Module):
    """Not to be run: only its parameters matter."""

    def __init__(self, rows: int = 37, width: int = 256, seed: int = 0) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)

        def normal(*shape: int) -> nn.Parameter:
            return nn.Parameter(torch.randn(*shape, generator=generator))

        self.one, self.three, self.bias = normal(1), normal(3), normal(255)
        self.weight, self.token = normal(17, 241), normal(1, 1, 64)
        self.last_layer = Prototypes(rows, width, generator)


def make_arena(
    rows: int = 37, width: int = 256, shadows: bool = True, normalised: bool = True, dtype: torch.dtype = torch.float32
) -> Arena:
    student, teacher = (Network(rows, width, seed).to(dtype) for seed in (0, 1))
    return Arena(student, teacher, shadows, ROWS if normalised else None)


def modules(arena: Arena) -> tuple[Network, Network]:
    return arena._modules["student"], arena._modules["teacher"]


def values(module: nn.Module) -> dict[str, Tensor]:
    """Copies, outside of any arena."""
    return {name: p.detach().clone() for name, p in module.named_parameters()}


def expected_shadow(parameters: dict[str, Tensor], normalised: bool = True) -> list[Tensor]:
    """In float64, not yet rounded."""
    return [
        nn.functional.normalize(p.double(), dim=1) if normalised and name == ROWS else p.double()
        for name, p in parameters.items()
    ]


def assert_rounded_to_bfloat16(actual: Tensor, exact: Tensor) -> None:
    """To nearest; where float32 arithmetic has moved a value across the middle between two, to the other neighbour.

    A length in float32 is a sum over at most 14 levels and a root, a reciprocal and a product: 20 roundings.
    """
    assert actual.dtype == torch.bfloat16
    tolerance = (2.0**-8 + 20 * 2.0**-24) * exact.abs() + torch.finfo(torch.bfloat16).tiny
    assert ((actual.double() - exact).abs() <= tolerance).all()
