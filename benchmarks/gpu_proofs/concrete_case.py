"""The case whose bytes are counted: the original's default batch on one GPU."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import nn

from fastdino.models.head import DINOHead
from fastdino.models.multicrop import MultiCropWrapper
from fastdino.models.vision_transformer import vit_small

LAST_LAYER = "head.last_layer.weight_v"
LENGTHS = "head.last_layer.weight_g"


@dataclass(frozen=True)
class Weight:
    """A parameter: `narrow` if products take it as bfloat16, which then also give its gradient as bfloat16."""

    name: str
    shape: tuple[int, ...]
    narrow: bool
    trains: bool

    @property
    def count(self) -> int:
        """Values."""
        return torch.Size(self.shape).numel()


@dataclass(frozen=True)
class Case:
    """A step of ViT-S/16 in bfloat16 on one GPU."""

    images: int = 64
    local_crops: int = 8
    prototypes: int = 65536
    width: int = 256  # of a prototype
    crop_sizes: tuple[int, int] = field(default=(224, 96))

    @property
    def crops(self) -> int:
        """That the student sees of an image."""
        return 2 + self.local_crops

    @property
    def student_bytes(self) -> int:
        """Of its logits in bfloat16."""
        return 2 * self.crops * self.images * self.prototypes

    @property
    def teacher_bytes(self) -> int:
        """Likewise."""
        return 2 * 2 * self.images * self.prototypes

    @property
    def prototype_bytes(self) -> int:
        """Of one network's, in bfloat16."""
        return 2 * self.prototypes * self.width

    def last_layer_flops(self, forward_passes: int = 1) -> int:
        """Of its products: logits of both networks, gradients of the student's features and prototypes."""
        student, teacher = self.crops * self.images, 2 * self.images
        return 2 * self.prototypes * self.width * (forward_passes * (student + teacher) + 2 * student)

    @property
    def pixel_shapes(self) -> list[tuple[int, ...]]:
        """Of the batch's crops, one tensor a crop."""
        large, small = self.crop_sizes
        return [(self.images, 3, size, size) for size in [large] * 2 + [small] * self.local_crops]

    @cached_property
    def weights(self) -> list[Weight]:
        """Parameters of one network, in their order."""
        with torch.device("meta"):
            backbone = vit_small(16)
            network = MultiCropWrapper(backbone, DINOHead(backbone.embed_dim, self.prototypes))
        products = {
            f"{name}.{key}"
            for name, module in network.named_modules()
            if isinstance(module, (nn.Linear, nn.Conv2d))
            for key, _ in module.named_parameters(recurse=False)
        }
        return [
            Weight(name, tuple(p.shape), name in products or name == LAST_LAYER, p.requires_grad)
            for name, p in network.named_parameters()
        ]

    @property
    def parameters(self) -> int:
        """Numbers of one network."""
        return sum(weight.count for weight in self.weights)


CASE = Case()
