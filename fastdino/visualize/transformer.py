"""A vision transformer, and pictures made ready for it."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torchvision.transforms import functional as transforms

from fastdino.config import WeightsConfig
from fastdino.data.normalize import normalize
from fastdino.errors import UserError
from fastdino.models.pretrained import load_backbone
from fastdino.models.vision_transformer import VisionTransformer


def vision_transformer(model: nn.Module) -> VisionTransformer:
    """`model` itself. Raises UserError for an architecture without patches that attend to each other."""
    if isinstance(model, VisionTransformer):
        return model
    raise UserError(
        f"{type(model).__name__} has no attention and no patches to look at: give a vit_tiny, vit_small, vit_base or "
        "vit_large"
    )


def load_transformer(config: WeightsConfig) -> VisionTransformer:
    """The trained network that the flags name, on the GPU where there is one. Raises UserError if it is another one."""
    backbone = load_backbone(
        config.pretrained_weights or None,
        arch=config.arch,
        patch_size=config.patch_size,
        checkpoint_key=config.checkpoint_key,
    )
    return vision_transformer(backbone.model).to("cuda" if torch.cuda.is_available() else "cpu")


def check_image_size(image_size: tuple[int, ...], patch: int) -> None:
    """Raise UserError unless `image_size` is height and width, or the shorter side alone, of a patch at least."""
    if len(image_size) not in (1, 2) or min(image_size) < patch:
        given = " ".join(map(str, image_size))
        raise UserError(f"--image_size is {given}: give height and width, each at least one patch of {patch} pixels")


def cut_to_patches(picture: Image.Image, image_size: tuple[int, ...], patch: int) -> Image.Image:
    """Resize to `image_size` and leave out the right and lower rest that is no whole patch, as the original does.

    Raises UserError as `check_image_size` does.
    """
    check_image_size(image_size, patch)
    resized = transforms.resize(picture, list(image_size))
    return resized.crop((0, 0, resized.width - resized.width % patch, resized.height - resized.height % patch))


def fit_to_patches(picture: Image.Image, image_size: tuple[int, ...], patch: int) -> Image.Image:
    """Resize to the whole patches nearest to `image_size`: what is seen in it lies on the whole picture.

    Raises UserError as `check_image_size` does.
    """
    check_image_size(image_size, patch)
    sides: tuple[float, ...] = image_size
    if len(image_size) == 1:
        sides = tuple(image_size[0] * side / min(picture.size) for side in (picture.height, picture.width))
    return transforms.resize(picture, [patch * max(1, round(side / patch)) for side in sides])


def as_input(picture: Image.Image, device: torch.device | str) -> Tensor:
    """RGB picture -> normalised pixels (3, H, W), float32, on `device`."""
    pixels = torch.from_numpy(np.array(picture).transpose(2, 0, 1))
    return normalize(pixels.to(device))
