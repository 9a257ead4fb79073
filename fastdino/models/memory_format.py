"""How pictures lie in memory on their way into a network."""

from __future__ import annotations

import torch
from torch import Tensor


def for_convolutions(pictures: Tensor) -> Tensor:
    """The same pictures (B, channels, H, W), on a CPU with the channels of a pixel side by side.

    So oneDNN need not turn them round at each convolution: convolutions, norms and activations keep the order.
    """
    if pictures.device.type != "cpu":
        return pictures
    return pictures.contiguous(memory_format=torch.channels_last)
