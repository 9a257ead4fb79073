"""Hugging Face's names for a vision transformer (transformers' ViTModel)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

# Ours (timm's) and theirs; what follows the name (weight, bias) is the same. Queries, keys and values are one product
# here and three there.
_OUTSIDE = {
    "cls_token": "embeddings.cls_token",
    "pos_embed": "embeddings.position_embeddings",
    "patch_embed.proj": "embeddings.patch_embeddings.projection",
    "norm": "layernorm",
}
_IN_BLOCK = {
    "norm1": "layernorm_before",
    "attn.proj": "attention.output.dense",
    "norm2": "layernorm_after",
    "mlp.fc1": "intermediate.dense",
    "mlp.fc2": "output.dense",
}
_QKV = tuple(f"attention.attention.{name}" for name in ("query", "key", "value"))
_OURS = re.compile(r"blocks\.(\d+)\.(.+)\.(weight|bias)")
_THEIRS = re.compile(r"encoder\.layer\.(\d+)\.(.+)\.(weight|bias)")


def to_huggingface(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A VisionTransformer's weights under the names of a ViTModel without its pooler."""
    renamed: dict[str, Tensor] = {}
    for key, value in state.items():
        if match := _OURS.fullmatch(key):
            number, name, kind = match.groups()
            if name == "attn.qkv":
                parts = {f"{part}.{kind}": third for part, third in zip(_QKV, value.chunk(3), strict=True)}
            else:
                parts = {f"{_IN_BLOCK[name]}.{kind}": value}
            renamed |= {f"encoder.layer.{number}.{part}": tensor for part, tensor in parts.items()}
        else:
            renamed[_renamed(key, _OUTSIDE)] = value
    return renamed


def from_huggingface(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A ViTModel's weights under a VisionTransformer's names; keys that are none of a ViTModel stay as they are.

    The pooler, which DINO has none of and transformers saves untrained, and a classifier are left out.
    """
    state = {key.removeprefix("vit."): value for key, value in state.items()}
    outside = {theirs: ours for ours, theirs in _OUTSIDE.items()}
    in_block = {theirs: ours for ours, theirs in _IN_BLOCK.items()}
    renamed: dict[str, Tensor] = {}
    for key, value in state.items():
        if key.startswith(("pooler.", "classifier.")):
            continue
        match = _THEIRS.fullmatch(key)
        if match is None:
            renamed[_renamed(key, outside)] = value
            continue
        number, name, kind = match.groups()
        thirds = [f"encoder.layer.{number}.{part}.{kind}" for part in _QKV]
        if name in in_block:
            renamed[f"blocks.{number}.{in_block[name]}.{kind}"] = value
        elif key == thirds[0] and all(third in state for third in thirds):
            renamed[f"blocks.{number}.attn.qkv.{kind}"] = torch.cat([state[third] for third in thirds])
        elif key not in thirds or any(third not in state for third in thirds):
            renamed[key] = value
    return renamed


def is_huggingface(state: Mapping[str, Any]) -> bool:
    """Whether these are the names of a ViTModel, alone or inside another model."""
    return any(key.removeprefix("vit.") == _OUTSIDE["pos_embed"] for key in state)


def _renamed(key: str, names: Mapping[str, str]) -> str:
    """`key` with its longest beginning that stands in `names` replaced."""
    stem, dot, kind = key.rpartition(".")
    if key in names:
        return names[key]
    return f"{names[stem]}{dot}{kind}" if stem in names else key
