"""The map as one picture, for pages that cannot hold all of it."""

from __future__ import annotations

from io import BytesIO

import numpy as np
from PIL import Image

from fastdino.visualize.map.contents import FeatureMap

WIDTH = 1080
HEIGHTS = (360, 760)
SIDE = 36
GAP = 2
BACKGROUND = (27, 30, 38)


def overview(space: FeatureMap) -> Image.Image:
    """Thumbnails in a grid, each in the cell that its place falls into; of several there, the first one's."""
    extent = float(space.positions[:, 1].max(initial=0.0))
    height = int(np.clip(round(WIDTH * extent), *HEIGHTS))
    columns, rows = WIDTH // SIDE, height // SIDE
    reach = np.array([1.0, extent if extent > 0 else 1.0])
    cells = np.clip(space.positions / reach * (columns, rows), 0, (columns - 1, rows - 1)).astype(int)
    _, first = np.unique(cells[:, 1] * columns + cells[:, 0], return_index=True)
    canvas = Image.new("RGB", (columns * SIDE, rows * SIDE), BACKGROUND)
    atlas = space.atlas
    sheets = [Image.open(BytesIO(sheet)).convert("RGB") for sheet in atlas.sheets]
    for picture in first.tolist():
        sheet, place = divmod(int(atlas.slots[picture]), atlas.columns**2)
        row, column = divmod(place, atlas.columns)
        left, top = column * atlas.side, row * atlas.side
        thumbnail = sheets[sheet].crop((left, top, left + atlas.side, top + atlas.side))
        x, y = cells[picture] * SIDE + GAP // 2
        canvas.paste(thumbnail.resize((SIDE - GAP, SIDE - GAP), Image.Resampling.BILINEAR), (int(x), int(y)))
    return canvas
