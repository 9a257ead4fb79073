from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image

from fastdino.data.sources import FolderSource
from fastdino.evaluate.features import Features
from fastdino.visualize.neighbours import Shown, evenly_spread, neighbour_rows


def album(folder: Path, values: list[int]) -> tuple[FolderSource, Features]:
    """Grey pictures whose feature is an angle in proportion to their brightness."""
    folder.mkdir()
    for index, value in enumerate(values):
        Image.new("RGB", (20, 20), (value, value, value)).save(folder / f"{index}.png")
    angles = torch.tensor(values) / 255
    features = torch.stack((angles.cos(), angles.sin()), dim=1)
    count = torch.arange(len(values))
    return FolderSource(folder), Features(features, torch.zeros_like(count), count, {})


def brightness(shown: Shown) -> int:
    return int(np.asarray(shown.picture)[0, 0, 0])


def test_nearest_first_and_never_oneself(tmp_path: Path) -> None:
    source, features = album(tmp_path / "all", [0, 10, 25, 100, 250])
    rows = neighbour_rows(source, features, rows=5, neighbours=2)
    found = {brightness(query): [brightness(near) for near in nears] for query, nears in rows}
    assert found == {0: [10, 25], 10: [0, 25], 25: [10, 0], 100: [25, 10], 250: [100, 25]}


def test_queries_of_another_folder_may_find_everything(tmp_path: Path) -> None:
    gallery = album(tmp_path / "gallery", [0, 100, 200])
    queries = album(tmp_path / "queries", [100])
    [(query, nears)] = neighbour_rows(*gallery, *queries, neighbours=9, side=16)
    assert brightness(query) == 100
    assert sorted(map(brightness, nears)) == [0, 100, 200]
    assert brightness(nears[0]) == 100
    assert query.picture.size == (16, 16)
    # Queries stand after the gallery.
    assert query.place == 3
    assert nears[0].place == 1


def test_evenly_spread() -> None:
    assert evenly_spread(10, 2) == [2, 7]
    assert evenly_spread(3, 8) == [0, 1, 2]
    assert evenly_spread(0, 4) == []
