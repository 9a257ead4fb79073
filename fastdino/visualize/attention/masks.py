"""Attention measured as a segmentation: its masks against true ones (paper, section 4.2.2 and figure 4)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from fastdino.data.reading import UnreadableImage, open_picture, reason_of
from fastdino.models.vision_transformer import VisionTransformer
from fastdino.visualize.attention.maps import attention_maps, mass_mask
from fastdino.visualize.inputs import Input
from fastdino.visualize.pictures import enlarge
from fastdino.visualize.transformer import as_input, fit_to_patches

Mask = npt.NDArray[np.bool_]
VOID = 255
# A mask may be smaller than its picture; rounding its sides moves their ratio by less.
PROPORTIONS = 0.02


class Truth(NamedTuple):
    """Which pixels (H, W) are foreground, and which of them count."""

    foreground: Mask
    counted: Mask


class MaskScores(NamedTuple):
    """Jaccard indices 0 .. 1 of the heads' masks, (pictures, heads), and of the mean map's masks, (pictures,)."""

    names: list[str]
    heads: Tensor
    mean_map: Tensor

    def numbers(self) -> dict[str, Any]:
        """In percent, means over the pictures.

        `best_head`: of each picture's best head, the figure of the paper; `mean_of_heads`; `head`: of each head;
        `mean_map`: of the mask of the heads' mean.
        """
        return {
            "best_head": 100 * self.heads.amax(1).mean().item(),
            "mean_of_heads": 100 * self.heads.mean().item(),
            "head": (100 * self.heads.mean(0)).tolist(),
            "mean_map": 100 * self.mean_map.mean().item(),
            "pictures": len(self.names),
        }

    def per_picture(self) -> dict[str, list[float]]:
        """Percent of each head's mask, by picture."""
        return dict(zip(self.names, (100 * self.heads).tolist(), strict=True))


def score_masks(
    model: VisionTransformer,
    pictures: Iterable[tuple[str, Image.Image, Truth]],
    *,
    image_size: tuple[int, ...] = (480, 480),
    threshold: float = 0.6,
) -> MaskScores:
    """Jaccard index of the patches that hold the share `threshold` of a map and the foreground, for every map.

    Measured at the true mask's resolution.

    Args:
        model: a vision transformer in evaluation mode.
        pictures: names, RGB pictures and their truth, which has foreground; at least one.
        image_size: height and width (or the shorter side) that the network sees, rounded to whole patches.
        threshold: share of the attention that a mask holds.

    Raises ValueError if there is no picture.
    """
    names: list[str] = []
    scores: list[list[float]] = []
    for name, picture, truth in pictures:
        seen = fit_to_patches(picture, image_size, model.patch_size)
        maps = attention_maps(model, as_input(seen, model.cls_token.device))
        names.append(name)
        scores.append(
            [
                jaccard(enlarge(mass_mask(values, threshold).numpy(), truth.foreground.shape[::-1]), truth)
                for values in [*maps, maps.mean(0)]
            ]
        )
    if not names:
        raise ValueError("there is no picture to measure")
    table = torch.tensor(scores)
    return MaskScores(names, table[:, :-1], table[:, -1])


def jaccard(mask: Mask, truth: Truth) -> float:
    """Pixels in both over pixels in either, of those that count; `mask` and the truth are (H, W)."""
    both = (mask & truth.foreground & truth.counted).sum()
    either = ((mask | truth.foreground) & truth.counted).sum()
    return float(both / either)


def read_truth(content: bytes, picture: Image.Image) -> Truth:
    """The bytes of a mask file: 0 is background, everything else foreground.

    255 does not count where it is void: in files with a palette, as in PASCAL VOC, and in grey ones that have other
    labels, too. In a grey one of two values it is foreground.

    Raises UnreadableImage for what is no mask of this picture.
    """
    try:
        with open_picture(content) as file:
            labels: npt.NDArray[Any] = np.asarray(file)
            palette = file.mode == "P"
    except (OSError, SyntaxError, ValueError) as error:
        raise UnreadableImage("its mask cannot be read") from error
    if labels.ndim == 3:
        labels = np.any(labels[..., :3], axis=-1)
    void = labels == VOID if palette or len(np.unique(labels)) > 2 else np.zeros(labels.shape, dtype=bool)
    truth = Truth((labels != 0) & ~void, ~void)
    if not truth.foreground.any():
        raise UnreadableImage("its mask has no foreground")
    height, width = labels.shape
    if abs(width * picture.height / (height * picture.width) - 1) > PROPORTIONS:
        raise UnreadableImage("its mask has other proportions")
    return truth


def with_truth(
    pictures: Iterable[tuple[Input, Image.Image]], masks: Mapping[Path, Callable[[], bytes]], skipped: dict[str, str]
) -> Iterator[tuple[str, Image.Image, Truth]]:
    """Each picture's name, itself and its mask, by its `stem`; where that fails, name -> reason into `skipped`."""
    for one, picture in pictures:
        try:
            yield one.name, picture, read_truth(masks[one.stem](), picture)
        except UnreadableImage as error:
            skipped[one.name] = str(error)
        except OSError as error:
            skipped[one.name] = reason_of(error)
