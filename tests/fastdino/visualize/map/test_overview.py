from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from fastdino.visualize.map.overview import BACKGROUND, HEIGHTS, SIDE, WIDTH, overview
from tests.fastdino.visualize.map.insects import COLOURS, EACH, content


def colour_at(drawn: np.ndarray, row: int, column: int) -> np.ndarray:
    """In the middle of a cell."""
    return drawn[row * SIDE + SIDE // 2, column * SIDE + SIDE // 2]


def test_pictures_stand_where_their_places_fall() -> None:
    drawn = np.asarray(overview(content()), dtype=int)
    last_row, last_column = drawn.shape[0] // SIDE - 1, drawn.shape[1] // SIDE - 1
    # As in `content`: the pictures 0, 150, 250, 1 are alone in the corners.
    corners = {0: (0, 0), 150: (0, last_column), 250: (last_row, 0), 1: (last_row, last_column)}
    for picture, cell in corners.items():
        # WebP's rounding is some units of 255.
        assert np.abs(colour_at(drawn, *cell) - COLOURS[picture // EACH]).max() <= 12
    assert colour_at(drawn, 0, last_column // 2).tolist() == list(BACKGROUND)


def test_of_several_in_one_cell_the_first_is_shown() -> None:
    space = content()
    moved = space.positions.copy()
    moved[:] = (0.5, 0.0)
    drawn = np.asarray(overview(dataclasses.replace(space, positions=moved)), dtype=int)
    shown = (drawn != BACKGROUND).any(axis=2)
    assert shown.sum() <= SIDE * SIDE
    assert np.abs(drawn[shown] - COLOURS[0]).max() <= 12


@pytest.mark.parametrize(("extent", "height"), [(0.0, HEIGHTS[0]), (0.5, WIDTH // 2), (1.0, HEIGHTS[1])])
def test_it_is_as_high_as_the_map_within_reason(extent: float, height: int) -> None:
    space = content()
    flat = space.positions * np.array([1.0, extent], dtype=np.float32)
    drawn = overview(dataclasses.replace(space, positions=flat))
    assert drawn.width == WIDTH
    assert height - SIDE < drawn.height <= height


def test_a_map_of_one_picture() -> None:
    space = content()
    alone = dataclasses.replace(space, positions=space.positions[:1] * 0)
    assert np.abs(colour_at(np.asarray(overview(alone), dtype=int), 0, 0) - COLOURS[0]).max() <= 12
