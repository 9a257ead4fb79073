"""The one place where bytes become the numbers that the network sees."""

from __future__ import annotations

from functools import cache

import torch

# Mean and standard deviation of ImageNet's training pictures on a 0 .. 1 scale, red, green, blue.
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


def normalize(crops: torch.Tensor) -> torch.Tensor:
    """uint8 crops (..., 3, H, W) to float32 with ImageNet's mean and deviation, on the crops' device.

    The operations and their order are those of torchvision's ToTensor and Normalize, so that the result has
    their bits.
    """
    mean, std = _constants(crops.device)
    return crops.to(torch.float32).div_(255).sub_(mean).div_(std)


# Cached, because copying them to a GPU would make the host wait for it at every call.
@cache
def _constants(device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    mean = torch.tensor(IMAGENET_MEAN, dtype=torch.float32, device=device)
    std = torch.tensor(IMAGENET_STD, dtype=torch.float32, device=device)
    return mean.view(3, 1, 1), std.view(3, 1, 1)
