"""Which architecture weights belong to, told by their names and shapes."""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from fastdino.models.backbones import VISION_TRANSFORMERS

_DINOV2 = {384: "small", 768: "base", 1024: "large", 1536: "giant"}
# (width, depth) of the sizes that facebookresearch/dino trained.
_XCIT = {(384, 12): "small_12", (512, 24): "medium_24"}


def recognised_arch(state: Mapping[str, Tensor]) -> str | None:
    """The architecture of a published DINO, XCiT or DINOv2 backbone, or of a vit_* of ours; None for any other."""
    if "layer1.0.conv1.weight" in state:
        is_resnet50 = state["layer1.0.conv1.weight"].shape[0] == 64 and _count(state, r"layer3\.(\d+)\.conv3\.") == 6
        return "resnet50" if is_resnet50 else None
    if "cls_token" not in state:
        return None
    width = state["cls_token"].shape[-1]
    depth = _count(state, r"blocks\.(\d+)\.")
    if any(key.startswith("cls_attn_blocks.") for key in state):
        size = _XCIT.get((width, depth))
        # Each of these convolutions halves the resolution.
        patch_size = 2 ** _count(state, r"patch_embed\.proj\.(\d+)\.0\.")
        return f"xcit_{size}_p{patch_size}" if size else None
    if any(key.endswith(".ls1.gamma") for key in state):
        registers = "_reg4" if "register_tokens" in state or "reg_token" in state else ""
        return f"vit_{_DINOV2[width]}_patch14{registers}_dinov2" if width in _DINOV2 else None
    return named_vision_transformer(width, depth)


def named_vision_transformer(width: int, depth: int, heads: int | None = None) -> str | None:
    """Our vit_* of this width, depth and number of heads, which weights alone do not tell."""
    for name, build in VISION_TRANSFORMERS.items():
        with torch.device("meta"):
            model = build(img_size=16)
        if (model.embed_dim, len(model.blocks)) == (width, depth) and heads in (None, model.num_heads):
            return name
    return None


def _count(state: Mapping[str, Tensor], pattern: str) -> int:
    return len({match.group(1) for match in map(re.compile(pattern).match, state) if match})
