from __future__ import annotations

import pytest
import torch

from fastdino import VisionTransformer, vit_tiny
from fastdino.models.backbones import build_backbone
from fastdino.models.pretrained import Backbone


def described(model: VisionTransformer, arch: str) -> Backbone:
    # As large as what they are added to, so that a wrong position shows in the features.
    torch.nn.init.normal_(model.pos_embed)
    model.eval().requires_grad_(False)
    return Backbone(model, arch, model.patch_size, model.patch_embed.img_size, model.embed_dim)


@pytest.fixture(scope="session")
def named() -> Backbone:
    """An architecture that other libraries know by name."""
    torch.manual_seed(0)
    return described(vit_tiny(patch_size=16, img_size=64), "vit_tiny")


@pytest.fixture(scope="session")
def small() -> Backbone:
    """One that is quick to follow, for formats that keep the computation."""
    torch.manual_seed(0)
    return described(
        VisionTransformer(img_size=32, patch_size=8, embed_dim=32, depth=2, num_heads=2), "a small vision transformer"
    )


@pytest.fixture(scope="session")
def convnet() -> Backbone:
    torch.manual_seed(0)
    return Backbone(build_backbone("resnet18").eval().requires_grad_(False), "resnet18", None, 64, 512)
