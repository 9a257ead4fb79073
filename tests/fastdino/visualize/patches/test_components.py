from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA

from fastdino.visualize.patches.components import find_parts, principal_components, project


def scene(seed: int, rows: int, columns: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Patches of two kinds in 12 dimensions, an object of two halves in the middle of a background."""
    generator = torch.Generator().manual_seed(seed)
    kinds = torch.eye(12)[:3] * torch.tensor([[4.0], [3.0], [3.0]])
    kind = torch.zeros(rows, columns, dtype=torch.long)
    kind[2:-2, 2 : columns // 2] = 1
    kind[2:-2, columns // 2 : -2] = 2
    return kinds[kind] + 0.1 * torch.randn(rows, columns, 12, generator=generator), kind


def test_components_are_those_of_scikit_learn() -> None:
    vectors = torch.randn(300, 8, generator=torch.Generator().manual_seed(0)) @ torch.diag(torch.arange(8, 0, -1.0))
    directions = principal_components(vectors, 3)
    expected = PCA(3, svd_solver="full").fit(vectors.double().numpy())
    # Ours come out of float64 rounded to float32, whose step is 6e-8; the sign is free.
    overlap = np.abs((expected.components_ * directions.T.numpy()).sum(axis=1))
    assert overlap == pytest.approx(np.ones(3), abs=1e-5)
    assert (directions.gather(0, directions.abs().argmax(0, keepdim=True)) > 0).all()
    variance = project(vectors, directions).var(0).numpy()
    assert variance == pytest.approx(expected.explained_variance_, rel=1e-5)


@pytest.mark.parametrize("turned", [1, -1])
def test_the_object_is_the_foreground_whatever_the_sign(turned: int) -> None:
    features, kind = scene(0, 10, 14)
    [parts] = find_parts([turned * features])
    assert torch.equal(parts.foreground, kind > 0)


def test_pictures_are_looked_at_together() -> None:
    (first, kind), (second, other) = scene(0, 10, 14), scene(1, 8, 12)
    parts = find_parts([first, second])
    assert [tuple(one.colours.shape) for one in parts] == [(10, 14, 3), (8, 12, 3)]
    for one, kinds in zip(parts, (kind, other), strict=True):
        assert torch.equal(one.foreground, kinds > 0)
        assert (one.colours[kinds == 0] == 0).all()
        assert one.colours.min() >= 0 and one.colours.max() <= 1
    # A half has the same colour in both pictures, and its own: the first component tells the halves apart.
    for half, others in ((1, 2), (2, 1)):
        same = (parts[0].colours[kind == half][:, 0].mean() - parts[1].colours[other == half][:, 0].mean()).abs()
        apart = (parts[0].colours[kind == half][:, 0].mean() - parts[0].colours[kind == others][:, 0].mean()).abs()
        assert same < 0.05 and apart > 0.8


def test_patches_that_are_all_alike_have_no_foreground() -> None:
    [parts] = find_parts([torch.ones(4, 5, 6)])
    assert not parts.foreground.any() and (parts.colours == 0).all()
