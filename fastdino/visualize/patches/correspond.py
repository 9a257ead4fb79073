"""The command `fastdino correspond`: which patches of two pictures show the same, and a drawing of it."""

from __future__ import annotations

import colorsys
from pathlib import Path
from typing import NamedTuple

import torch
from PIL import Image, ImageDraw
from rich.console import Console
from torch import Tensor
from torch.nn import functional as F

from fastdino.config import CorrespondConfig
from fastdino.data.reading import UnreadableImage, read_image
from fastdino.errors import UserError
from fastdino.evaluate.output import writing_to
from fastdino.visualize.patches.features import patch_features
from fastdino.visualize.pictures import save_png
from fastdino.visualize.transformer import load_transformer

HEIGHT = 360
GAP = 12
# Drawn larger and shrunk, for smooth lines.
SMOOTHING = 3
# Lines start at least this share of the picture's longer side apart: neighbours would tell the same again.
SPACING = 1 / 12


class Matches(NamedTuple):
    """Patches of two pictures that are each other's nearest, by similarity, the most similar first."""

    first: Tensor
    """(n, 2) int64: row and column in the first picture."""
    second: Tensor
    """(n, 2) int64: row and column in the second one."""
    similarity: Tensor
    """(n,) cosine of their features."""


def match_patches(first: Tensor, second: Tensor) -> Matches:
    """Mutual nearest neighbours by cosine similarity of two pictures' patch features, (h, w, C) and (h', w', C)."""
    similarity = F.normalize(first.flatten(0, 1), dim=1) @ F.normalize(second.flatten(0, 1), dim=1).T
    forward, back = similarity.argmax(1), similarity.argmax(0)
    mutual = (back[forward] == torch.arange(len(forward))).nonzero()[:, 0]
    score, order = similarity[mutual, forward[mutual]].sort(descending=True, stable=True)
    mutual = mutual[order]
    return Matches(_positions(mutual, first.shape[1]), _positions(forward[mutual], second.shape[1]), score)


def choose_apart(matches: Matches, count: int, distance: float) -> Matches:
    """The best `count` that are at least `distance` patches from each better one, in the first picture."""
    chosen: list[int] = []
    positions = matches.first.double()
    for index in range(len(positions)):
        if len(chosen) == count:
            break
        if not chosen or bool((positions[chosen] - positions[index]).norm(dim=1).min() >= distance):
            chosen.append(index)
    return Matches(*(values[chosen] for values in matches))


def run(config: CorrespondConfig) -> Path:
    """Draw what corresponds in two pictures to the file `output`; returns its path.

    Raises UserError for everything that the user can mend.
    """
    if config.lines < 1:
        raise UserError(f"--lines is {config.lines}: give 1 or more")
    if not config.output.lower().endswith(".png"):
        raise UserError(f"--output is {config.output!r}: give a file ending in .png")
    pictures = [_read(config.first), _read(config.second)]
    model = load_transformer(config)
    features = [patch_features(model, picture, config.image_size) for picture in pictures]
    grids = [(len(one), one.shape[1]) for one in features]
    matches = match_patches(*features)
    shown = choose_apart(matches, config.lines, SPACING * max(grids[0]))
    path = Path(config.output)
    with writing_to(path, "--output"):
        path.parent.mkdir(parents=True, exist_ok=True)
        save_png(draw_matches(pictures, grids, shown), path)
    Console().print(
        f"{path}: {len(shown.first)} of {len(matches.first):,} patches that are each other's nearest, "
        f"similarity {shown.similarity[0]:.2f} to {shown.similarity[-1]:.2f}",
        markup=False,
        highlight=False,
        soft_wrap=True,
    )
    return path


def draw_matches(pictures: list[Image.Image], grids: list[tuple[int, int]], matches: Matches) -> Image.Image:
    """Two pictures side by side, `HEIGHT` pixels high, a line a match; `grids` are their rows and columns."""
    height = SMOOTHING * HEIGHT
    sized = [picture.resize((round(picture.width * height / picture.height), height)) for picture in pictures]
    start = sized[0].width + SMOOTHING * GAP
    sheet = Image.new("RGB", (start + sized[1].width, height), "white")
    sheet.paste(sized[0], (0, 0))
    sheet.paste(sized[1], (start, 0))
    draw = ImageDraw.Draw(sheet)
    count = len(matches.first)
    # Colours by row, so that lines that cross are told apart.
    for rank, index in enumerate(matches.first[:, 0].argsort(stable=True).tolist()):
        colour = tuple(round(255 * part) for part in colorsys.hsv_to_rgb(rank / count, 0.75, 1.0))
        left, top = _middle(matches.first[index], grids[0], sized[0].size)
        right, bottom = _middle(matches.second[index], grids[1], sized[1].size)
        draw.line((left, top, start + right, bottom), colour, 2 * SMOOTHING)
        for x, y in ((left, top), (start + right, bottom)):
            draw.circle((x, y), 4 * SMOOTHING, colour, "white", SMOOTHING)
    return sheet.reduce(SMOOTHING)


def _positions(index: Tensor, columns: int) -> Tensor:
    return torch.stack((index // columns, index % columns), dim=1)


def _middle(patch: Tensor, grid: tuple[int, int], size: tuple[int, int]) -> tuple[float, float]:
    """x and y of the middle of a patch in a picture of `size`."""
    row, column = patch.tolist()
    return (column + 0.5) * size[0] / grid[1], (row + 0.5) * size[1] / grid[0]


def _read(path: str) -> Image.Image:
    try:
        return read_image(Path(path))
    except UnreadableImage as error:
        raise UserError(f"{path} cannot be read ({error}): give another picture") from error
