"""Attention as pictures: a map a head, the masks that hold most of it, their mean, and sheets of all of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor, nn

from fastdino.visualize.attention.maps import attention_maps, mass_mask, visible
from fastdino.visualize.pictures import colour_map, enlarge, outline, overlay, picture_grid, save_png, stretch
from fastdino.visualize.transformer import as_input, cut_to_patches, vision_transformer

SHEET_SIDE = 240
POSTER_SIDE = 212
POSTER_GAP = 4
SHEET_NAME = "attention.png"
OVERVIEW_COLUMNS = 6


@dataclass(frozen=True)
class AttentionPictures:
    """A picture, what each head attends to in it, and the heads' mean.

    `maps` (heads, h, w) are numbers; all pictures are as large as `picture`. `masks` are the patches that
    hold most of a head's attention.
    """

    picture: Image.Image
    maps: npt.NDArray[np.float32]
    heads: list[Image.Image]
    masks: list[Image.Image]
    mean: Image.Image
    overlay: Image.Image

    def sheet(self) -> Image.Image:
        """All of it on one labelled sheet: picture, mean and overlay above, a row of heads and of masks
        below.
        """
        count = len(self.heads)
        columns = max(3, min(count, 6))
        rows = [[self.picture, self.mean, self.overlay]]
        labels = [["picture", "mean of heads", "mean over picture"]]
        for first in range(0, count, columns):
            part = range(first, min(first + columns, count))
            rows += [[self.heads[head] for head in part], [self.masks[head] for head in part]]
            labels += [[f"head {head}" for head in part], [f"mask of head {head}" for head in part]]
        return picture_grid(rows, SHEET_SIDE, labels)

    def poster(self) -> Image.Image:
        """For a page: picture, overlay and mean side by side, the heads small below them, without words."""
        columns = 3 if len(self.heads) <= 3 else 6
        # Whole heads at both sizes: three large tiles and their gaps are as wide as six small ones and
        # theirs.
        small = POSTER_SIDE if columns == 3 else (POSTER_SIDE - POSTER_GAP) // 2
        rows = [(POSTER_SIDE, [self.picture, self.overlay, self.mean])]
        rows += [(small, self.heads[first : first + columns]) for first in range(0, len(self.heads), columns)]
        size = (
            3 * POSTER_SIDE + 2 * POSTER_GAP,
            sum(side for side, _ in rows) + POSTER_GAP * (len(rows) - 1),
        )
        canvas = Image.new("RGB", size)
        top = 0
        for side, pictures in rows:
            for column, picture in enumerate(pictures):
                canvas.paste(picture.resize((side, side)), (column * (side + POSTER_GAP), top))
            top += side + POSTER_GAP
        return canvas


def draw_attention(
    model: nn.Module,
    picture: Image.Image,
    *,
    image_size: tuple[int, ...] = (480, 480),
    threshold: float = 0.6,
    device: torch.device | str = "cpu",
) -> AttentionPictures:
    """Attention maps of an RGB picture by a model on `device`.

    Raises UserError as `cut_to_patches` and `vision_transformer` do.
    """
    picture = cut_to_patches(picture, image_size, vision_transformer(model).patch_size)
    maps = attention_maps(model, as_input(picture, device))
    mean = maps.mean(0)
    return AttentionPictures(
        picture,
        maps.numpy(),
        [coloured(values, picture.size) for values in maps],
        [masked(picture, values, threshold) for values in maps],
        coloured(mean, picture.size),
        overlay(picture, visible(mean)),
    )


def overview(pairs: Sequence[tuple[Image.Image, Image.Image]]) -> Image.Image:
    """Several pictures, each with its map below it."""
    rows = []
    for first in range(0, len(pairs), OVERVIEW_COLUMNS):
        part = pairs[first : first + OVERVIEW_COLUMNS]
        rows += [[picture for picture, _ in part], [values for _, values in part]]
    return picture_grid(rows, SHEET_SIDE)


def coloured(attention: Tensor, size: tuple[int, int]) -> Image.Image:
    """A map (h, w) from its own darkest to its own brightest value, a rectangle a patch, `size` pixels in all."""
    return colour_map(stretch(attention.numpy())).resize(size, Image.Resampling.NEAREST)


def masked(picture: Image.Image, attention: Tensor, threshold: float) -> Image.Image:
    """`picture` with the patches that hold the share `threshold` of a map (h, w) tinted and edged."""
    return outline(picture, enlarge(mass_mask(attention, threshold).numpy(), picture.size))


def save_attention(pictures: AttentionPictures, folder: Path, threshold: float) -> list[Path]:
    """Write the pictures under the original's names, and the mean, the overlay and the sheet. Returns the paths."""
    named = {"img": pictures.picture, "attn-mean": pictures.mean, "overlay-mean": pictures.overlay}
    for head, (values, mask) in enumerate(zip(pictures.heads, pictures.masks, strict=True)):
        named[f"attn-head{head}"] = values
        named[f"mask_th{threshold}_head{head}"] = mask
    named[Path(SHEET_NAME).stem] = pictures.sheet()
    folder.mkdir(parents=True, exist_ok=True)
    return [save_png(picture, folder / f"{name}.png") for name, picture in named.items()]
