"""The one place where bytes become the numbers that the network sees."""

from __future__ import annotations

from functools import cache

import torch

from fastdino import implementation as implementations

# Mean and standard deviation of ImageNet's training pictures on a 0 .. 1 scale, red, green, blue.
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


def normalize(crops: torch.Tensor, dtype: torch.dtype = torch.float32, implementation: str = "auto") -> torch.Tensor:
    """uint8 crops (..., 3, H, W) to `dtype` with ImageNet's mean and deviation, on the crops' device.

    By `triton`, and by `torch` on CPUs, the result has the bits of torchvision's ToTensor and Normalize, rounded once
    to 16-bit types. `implementation` is as in implementation.choose.
    """
    choice = implementations.choose(implementations.NORMALISATION, implementation, crops.device)
    if choice.name == "triton":
        return implementations.kernels("normalize").normalize(crops.contiguous(), dtype)
    mean, std = _constants(crops.device)
    return crops.to(torch.float32).div_(255).sub_(mean).div_(std).to(dtype)


# Cached, because copying them to a GPU would make the host wait for it at every call.
@cache
def _constants(device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    mean = torch.tensor(IMAGENET_MEAN, dtype=torch.float32, device=device)
    std = torch.tensor(IMAGENET_STD, dtype=torch.float32, device=device)
    return mean.view(3, 1, 1), std.view(3, 1, 1)
