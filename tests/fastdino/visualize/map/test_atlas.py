from __future__ import annotations

from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fastdino.data.sources import FolderSource
from fastdino.visualize.map.atlas import MOST_PIXELS, pack, read_thumbnails, thumbnail_side, z_order


@pytest.mark.parametrize(("count", "side"), [(1, 96), (5_000, 96), (10_000, 64), (50_000, 32), (10**6, 32)])
def test_many_thumbnails_are_small(count: int, side: int) -> None:
    assert thumbnail_side(count) == side
    assert side == 32 or count * side**2 <= MOST_PIXELS


def test_every_picture_is_where_its_slot_says() -> None:
    generator = np.random.default_rng(0)
    colours = generator.integers(0, 256, (300, 3), dtype=np.uint8)
    thumbnails = np.broadcast_to(colours[:, None, None], (300, 96, 96, 3))
    atlas = pack(thumbnails, generator.random((300, 2), dtype=np.float32))
    assert sorted(atlas.slots.tolist()) == list(range(300))
    assert len(atlas.sheets) == 3
    sheets = [Image.open(BytesIO(sheet)).convert("RGB") for sheet in atlas.sheets]
    for colour, slot in zip(colours, atlas.slots.tolist(), strict=True):
        sheet, place = divmod(slot, atlas.columns**2)
        row, column = divmod(place, atlas.columns)
        # The middle, because WebP stores colours at half the resolution; its rounding is some units of 255.
        middle = sheets[sheet].getpixel((column * atlas.side + 48, row * atlas.side + 48))
        assert np.abs(np.array(middle) - colour.astype(int)).max() <= 12


def test_what_is_close_on_the_map_is_on_the_same_sheet() -> None:
    positions = np.random.default_rng(0).random((1000, 2), dtype=np.float32)
    atlas = pack(np.zeros((1000, 96, 96, 3), dtype=np.uint8), positions)
    sheets = atlas.slots // atlas.columns**2
    corner = (positions < 0.25).all(axis=1)
    assert len(set(sheets[corner].tolist())) <= 2 < len(set(sheets.tolist()))


def test_the_curve_visits_quarters_as_wholes() -> None:
    quarters = np.array([(x, y) for y in (0.1, 0.6) for x in (0.1, 0.3, 0.6, 0.9)], dtype=np.float32)
    order = np.argsort(z_order(quarters))
    visited = [(x > 0.5, y > 0.5) for x, y in quarters[order].tolist()]
    assert visited == [(False, False)] * 2 + [(True, False)] * 2 + [(False, True)] * 2 + [(True, True)] * 2


def test_thumbnails_are_the_middle_squares(tmp_path: Path) -> None:
    wide = Image.new("RGB", (300, 100), "red")
    wide.paste("blue", (100, 0, 200, 100))
    wide.save(tmp_path / "1.png")
    (tmp_path / "2.png").write_bytes(b"gone")
    advanced: list[int] = []
    thumbnails = read_thumbnails(FolderSource(tmp_path), [0, 1], 32, 0, advanced.append)
    assert (thumbnails[0] == (0, 0, 255)).all()
    assert (thumbnails[1] == 128).all()
    assert sum(advanced) == 2
