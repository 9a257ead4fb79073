"""The last layer's attention of the CLS token as numbers."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from fastdino.visualize.pictures import stretch
from fastdino.visualize.transformer import vision_transformer


@torch.no_grad()
def attention_maps(model: nn.Module, image: Tensor) -> Tensor:
    """Attention of the CLS token to every patch in the last layer: one map a head.

    Args:
        model: a vision transformer of fastdino, on the image's device.
        image: normalised picture (3, H, W), both sides multiples of the patch.

    Returns (heads, H / patch, W / patch) float32 on the CPU. A map sums to 1 minus what CLS keeps for itself.
    """
    transformer = vision_transformer(model)
    rows, columns = (side // transformer.patch_size for side in image.shape[-2:])
    attention = transformer.last_attention_rows(image[None])
    return attention[0, :, 0, 1:].reshape(-1, rows, columns).float().cpu()


def mass_mask(attention: Tensor, threshold: float) -> Tensor:
    """The smallest set of patches that holds the share `threshold` of a map's sum: bool (h, w) for a map (h, w).

    Patches are dropped from the weakest on, as long as the dropped ones' share is at most 1 - threshold.
    """
    values, order = attention.flatten().double().sort(stable=True)
    kept = (values / values.sum()).cumsum(0) > 1 - threshold
    return torch.zeros_like(kept).scatter_(0, order, kept).reshape(attention.shape)


def visible(attention: Tensor) -> npt.NDArray[np.float64]:
    """A map (h, w) as brightness 0 .. 1.

    A single patch often draws far more than all others (Darcet et al. 2024) and would leave the rest dark.
    """
    return stretch(attention.clamp(max=float(attention.flatten().quantile(0.99))).numpy())
