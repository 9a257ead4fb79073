"""Entry points of torch.hub, those of facebookresearch/dino: `torch.hub.load(FOLDER, "dino_vits16", source="local")`.

With `pretrained` the published weights are downloaded once, into torch.hub's folder. Further arguments go to the
network.
"""

from __future__ import annotations

from typing import Any as _Any

from torch import nn as _nn

from fastdino.models.backbones import VISION_TRANSFORMERS as _VISION_TRANSFORMERS
from fastdino.models.backbones import build_backbone as _build_backbone
from fastdino.models.formats.published import PUBLISHED as _PUBLISHED
from fastdino.models.pretrained import load_published as _load_published

dependencies = ["torch", "torchvision", "timm", "safetensors", "PIL", "rich"]


def dino_vits16(pretrained: bool = True, **kwargs: _Any) -> _nn.Module:
    """ViT-S/16: features of 384 numbers."""
    return _backbone("dino_vits16", pretrained, kwargs)


def dino_vits8(pretrained: bool = True, **kwargs: _Any) -> _nn.Module:
    """ViT-S/8: features of 384 numbers."""
    return _backbone("dino_vits8", pretrained, kwargs)


def dino_vitb16(pretrained: bool = True, **kwargs: _Any) -> _nn.Module:
    """ViT-B/16: features of 768 numbers."""
    return _backbone("dino_vitb16", pretrained, kwargs)


def dino_vitb8(pretrained: bool = True, **kwargs: _Any) -> _nn.Module:
    """ViT-B/8: features of 768 numbers."""
    return _backbone("dino_vitb8", pretrained, kwargs)


def dino_resnet50(pretrained: bool = True, **kwargs: _Any) -> _nn.Module:
    """ResNet-50: features of 2,048 numbers."""
    return _backbone("dino_resnet50", pretrained, kwargs)


def dino_xcit_small_12_p16(pretrained: bool = True, **kwargs: _Any) -> _nn.Module:
    """XCiT-S12/16: features of 384 numbers."""
    return _backbone("dino_xcit_small_12_p16", pretrained, kwargs)


def dino_xcit_small_12_p8(pretrained: bool = True, **kwargs: _Any) -> _nn.Module:
    """XCiT-S12/8: features of 384 numbers."""
    return _backbone("dino_xcit_small_12_p8", pretrained, kwargs)


def dino_xcit_medium_24_p16(pretrained: bool = True, **kwargs: _Any) -> _nn.Module:
    """XCiT-M24/16: features of 512 numbers."""
    return _backbone("dino_xcit_medium_24_p16", pretrained, kwargs)


def dino_xcit_medium_24_p8(pretrained: bool = True, **kwargs: _Any) -> _nn.Module:
    """XCiT-M24/8: features of 512 numbers."""
    return _backbone("dino_xcit_medium_24_p8", pretrained, kwargs)


def _backbone(name: str, pretrained: bool, options: dict[str, _Any]) -> _nn.Module:
    arch, patch_size, _ = _PUBLISHED[name]
    if arch in _VISION_TRANSFORMERS:
        model: _nn.Module = _VISION_TRANSFORMERS[arch](patch_size=patch_size, **options)
    else:
        model = _build_backbone(arch, **options)
    if pretrained:
        _load_published(model, name)
    return model
