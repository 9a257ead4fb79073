"""Facebook's names for XCiT and DINOv2 backbones, which timm builds under names of its own."""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor, nn

# DINOv2 trains its blocks in groups, and its own checkpoints number both: blocks.group.block.
_GROUPED = re.compile(r"blocks\.\d+\.(\d+\..+)")


def from_original(state: Mapping[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """Weights of facebookresearch/xcit or /dinov2 under the names of timm's `model`; all others as they are.

    DINOv2's mask token, which no picture meets, is left out. timm's models with registers have no position for the
    class token: it is added to the token.
    """
    state = dict(state)
    if not _is_timms(model):
        return state
    from timm.models import vision_transformer, xcit

    if isinstance(model, xcit.Xcit):
        return xcit.checkpoint_filter_fn(state, model)
    if isinstance(model, vision_transformer.VisionTransformer) and "mask_token" in state:
        state = {_GROUPED.sub(r"blocks.\1", key): value for key, value in state.items()}
        return vision_transformer.checkpoint_filter_fn(state, model)
    return state


def to_original(state: Mapping[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """Weights of timm's XCiT under the names of facebookresearch/xcit; all others as they are."""
    state = dict(state)
    if not _is_timms(model) or not any(key.startswith("cls_attn_blocks.") for key in state):
        return state
    for key in [key for key in state if key.startswith("cls_attn_blocks.") and ".attn.q." in key]:
        state[key.replace(".q.", ".qkv.")] = torch.cat([state.pop(key.replace(".q.", f".{part}.")) for part in "qkv"])
    return {key.replace("pos_embed.", "pos_embeder."): value for key, value in state.items()}


def _is_timms(model: nn.Module) -> bool:
    # Asked without importing timm, which takes longer than most networks of ours to build.
    return type(model).__module__.startswith("timm.")
