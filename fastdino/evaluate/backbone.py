"""The backbone that a command's flags name."""

from __future__ import annotations

import torch

from fastdino.config import WeightsConfig
from fastdino.errors import UserError
from fastdino.models.pretrained import Backbone, load_backbone
from fastdino.models.vision_transformer import VisionTransformer


def backbone_of(config: WeightsConfig) -> Backbone:
    """Without weights an untrained one, the same in every process and run. Raises UserError as `load_backbone` does."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return load_backbone(
            config.pretrained_weights or None,
            arch=config.arch,
            patch_size=config.patch_size,
            checkpoint_key=config.checkpoint_key,
        )


def patches_of(backbone: Backbone, what: str) -> VisionTransformer:
    """Its model. Raises UserError for an architecture without features of patches, which `what` takes."""
    if isinstance(backbone.model, VisionTransformer):
        return backbone.model
    raise UserError(f"{what} takes features of patches, which {backbone.arch} lacks: give weights of a vit_*")
