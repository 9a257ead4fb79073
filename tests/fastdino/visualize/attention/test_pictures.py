from __future__ import annotations

import numpy as np
import pytest

from fastdino.visualize.attention import pictures
from fastdino.visualize.attention.pictures import draw_attention
from tests.fastdino.visualize.small import photograph, small_model


def test_drawn_pictures_belong_together() -> None:
    drawn = draw_attention(small_model(heads=4), photograph(), image_size=(40, 48), threshold=0.5)
    assert drawn.maps.shape == (4, 5, 6)
    everything = [drawn.picture, drawn.mean, drawn.overlay, *drawn.heads, *drawn.masks]
    assert {picture.size for picture in everything} == {(48, 40)}
    strongest = np.unravel_index(drawn.maps[3].argmax(), (5, 6))
    assert drawn.heads[3].getpixel((int(strongest[1]) * 8, int(strongest[0]) * 8)) == (253, 231, 37)
    assert drawn.sheet().width > drawn.sheet().height / 2


@pytest.mark.parametrize(("heads", "rows"), [(1, 1), (4, 1), (8, 2)])
def test_posters_are_equally_wide_and_show_every_head(heads: int, rows: int) -> None:
    drawn = draw_attention(small_model(heads=heads), photograph())
    poster = drawn.poster()
    side, gap = pictures.POSTER_SIDE, pictures.POSTER_GAP
    small = side if heads <= 3 else (side - gap) // 2
    assert poster.size == (3 * side + 2 * gap, side + rows * (gap + small))
    # The corner of the last head's tile is not the black between the tiles.
    column = (heads - 1) % (3 if heads <= 3 else 6)
    corner = poster.getpixel((column * (small + gap) + small - 1, poster.height - 1))
    assert corner != (0, 0, 0)
