"""Features of the patches of a picture."""

from __future__ import annotations

import torch
from PIL import Image
from torch import Tensor

from fastdino.models.vision_transformer import VisionTransformer
from fastdino.visualize.transformer import as_input, fit_to_patches


@torch.no_grad()
def patch_features(model: VisionTransformer, picture: Image.Image, image_size: tuple[int, ...]) -> Tensor:
    """The last layer's normalised patch tokens of an RGB picture: (h, w, C) float32 on the CPU.

    Args:
        model: a vision transformer in evaluation mode.
        picture: it is looked at as a whole.
        image_size: height and width (or the shorter side) that the network sees, rounded to whole patches.

    Raises UserError as `fit_to_patches` does.
    """
    seen = fit_to_patches(picture, image_size, model.patch_size)
    [tokens] = model.get_intermediate_layers(as_input(seen, model.cls_token.device)[None], 1)
    return tokens[0, 1:].float().cpu().unflatten(0, (seen.height // model.patch_size, -1))
