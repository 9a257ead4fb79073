"""Where a network without attention looks: what each place contributes to a feature that is a mean over places.

With f = sum_p x_p / P, place p contributes <x_p, f> / (P |f|^2); the contributions of a picture sum to 1. Class
activation maps (Zhou et al. 2016), with the feature itself in place of a class.
"""

from __future__ import annotations

import torch
from PIL import Image
from torch import Tensor, nn

from fastdino.visualize.attention.maps import visible
from fastdino.visualize.attention.pictures import AttentionPictures, coloured
from fastdino.visualize.pictures import overlay
from fastdino.visualize.transformer import as_input, cut_to_patches

# Places a side that show shapes; more pixels would take longer than they tell.
PLACES = 16
MOST_PIXELS = 640


@torch.no_grad()
def contributions(model: nn.Module, pixels: Tensor) -> Tensor | None:
    """Normalised pixels (3, H, W) -> contributions (h, w) that sum to 1, float32 on the CPU.

    None where the feature is no mean over places of something that a part of the network puts out. `model` is in
    evaluation mode.
    """
    grids: list[Tensor] = []

    def keep(module: nn.Module, inputs: tuple[Tensor, ...], output: object) -> None:
        if isinstance(output, Tensor) and output.ndim == 4 and output.shape[-1] * output.shape[-2] > 1:
            grids.append(output)

    handles = [module.register_forward_hook(keep) for module in model.modules()]
    try:
        feature = model(pixels[None])
    finally:
        for handle in handles:
            handle.remove()
    if not isinstance(feature, Tensor) or feature.ndim != 2:
        return None
    for grid in reversed(grids):
        # Sums of at most a few thousand float32 numbers in another order.
        if grid.shape[1] == feature.shape[1] and torch.allclose(grid.mean(dim=(2, 3)), feature, rtol=1e-3, atol=1e-5):
            shares = torch.einsum("chw,c->hw", grid[0], feature[0]) / (feature[0].square().sum() * grid[0, 0].numel())
            return shares.float().cpu()
    return None


def draw_contributions(
    model: nn.Module, picture: Image.Image, *, image_size: int, device: torch.device | str = "cpu"
) -> Image.Image | None:
    """An RGB picture, its contributions over it and alone, side by side; None as in `contributions`.

    The picture is enlarged from `image_size` pixels a side until the network sees it in 16 x 16 places.
    """
    first = contributions(model, as_input(picture.resize((image_size, image_size)), device))
    if first is None:
        return None
    stride = max(1, round(image_size / len(first)))
    side = min(max(image_size, PLACES * stride), MOST_PIXELS)
    seen = cut_to_patches(picture, (side, side), min(stride, side))
    shares = contributions(model, as_input(seen, device))
    if shares is None:
        return None
    heat = coloured(shares, seen.size)
    return AttentionPictures(seen, shares[None].numpy(), [], [], heat, overlay(seen, visible(shares))).poster()
