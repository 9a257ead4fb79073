"""Crops of several resolutions through one backbone and one head (paper, section 3.1)."""

from __future__ import annotations

from itertools import groupby

import torch
from torch import Tensor, nn

from fastdino.models.memory_format import for_convolutions


class MultiCropWrapper(nn.Module):
    """Runs the backbone once over all crops, then the head once over all features.

    A backbone without `forward_packed` runs once per run of crops of equal width instead. A linear classifier that the
    backbone still carries as `fc` or `head` is replaced by the identity.
    """

    def __init__(self, backbone: nn.Module, head: nn.Module) -> None:
        super().__init__()
        for name in ("fc", "head"):
            if isinstance(getattr(backbone, name, None), nn.Linear):
                setattr(backbone, name, nn.Identity())
        self.backbone = backbone
        self.head = head

    def features(self, crops: Tensor | list[Tensor]) -> Tensor:
        """Crops, each (B, channels, size, size) -> features (crops * B, C), every image's first crop first."""
        if isinstance(crops, Tensor):
            crops = [crops]
        packed = getattr(self.backbone, "forward_packed", None)
        if packed is not None:
            return packed(crops)
        outputs = []
        for _, group in groupby(crops, key=lambda crop: crop.shape[-1]):
            output = self.backbone(for_convolutions(torch.cat(list(group))))
            # The original XCiT returns its class token first in a tuple.
            outputs.append(output[0] if isinstance(output, tuple) else output)
        return torch.cat(outputs)

    def forward(self, crops: Tensor | list[Tensor]) -> Tensor:
        """Crops -> logits (crops * B, out_dim), crop-major."""
        return self.head(self.features(crops))
