from __future__ import annotations

import numpy as np
import pytest
import torch

from fastdino.visualize.map.contents import nearest_pictures
from fastdino.visualize.map.layout import clusters, positions, principal_directions

GROUPS = 3
EACH = 20


@pytest.fixture(scope="module")
def groups() -> torch.Tensor:
    """Three tight groups of directions, one after another."""
    generator = torch.Generator().manual_seed(0)
    middles = torch.randn(GROUPS, 16, generator=generator).repeat_interleave(EACH, dim=0)
    return middles + 0.1 * torch.randn(GROUPS * EACH, 16, generator=generator)


def test_groups_stay_together(groups: torch.Tensor) -> None:
    placed = positions(principal_directions(groups, 0), 0)
    assert placed.shape == (60, 2)
    assert placed.dtype == np.float32
    assert placed.min() == 0
    assert placed.max() == 1
    distances = np.linalg.norm(placed[:, None] - placed[None], axis=-1)
    np.fill_diagonal(distances, np.inf)
    own = np.arange(60) // EACH
    assert (own[distances.argmin(axis=1)] == own).all()


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 7])
def test_few_pictures_are_placed_too(count: int) -> None:
    features = torch.randn(count, 8, generator=torch.Generator().manual_seed(count))
    placed = positions(principal_directions(features, 0), 0)
    assert placed.shape == (count, 2)
    assert np.isfinite(placed).all()
    assert placed.min() >= 0
    assert placed.max() <= 1


def test_equal_features_are_placed_too() -> None:
    reduced = principal_directions(torch.ones(12, 8), 0)
    assert np.isfinite(positions(reduced, 0)).all()
    assert clusters(reduced, 5, 0).tolist() == [0] * 12


def test_the_same_seed_gives_the_same_places(groups: torch.Tensor) -> None:
    first, second = (positions(principal_directions(groups, 3), 3) for _ in range(2))
    assert (first == second).all()


def test_clusters_are_the_groups_the_largest_first(groups: torch.Tensor) -> None:
    # 20, 15 and 10 of the three groups.
    kept = torch.cat([groups[:10], groups[20:40], groups[40:55]])
    found = clusters(principal_directions(kept, 0), GROUPS, 0)
    assert found.tolist() == [2] * 10 + [0] * 20 + [1] * 15


def test_neighbours_are_the_nearest_by_cosine_and_never_oneself(groups: torch.Tensor) -> None:
    found = nearest_pictures(groups)
    unit = torch.nn.functional.normalize(groups.double(), dim=1).numpy()
    similarities = unit @ unit.T
    np.fill_diagonal(similarities, -np.inf)
    expected = np.argsort(-similarities, axis=1)[:, :12]
    # In float32 two similarities that differ by less than some 1e-7 may change places; these do not come so close.
    assert (found == expected).all()
    assert nearest_pictures(groups[:1]).shape == (1, 0)
    assert nearest_pictures(groups[:3]).shape == (3, 2)
