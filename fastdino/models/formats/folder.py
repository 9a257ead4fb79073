"""Folders as Hugging Face keeps them: a file of weights beside config.json, written by transformers or by timm."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from fastdino.errors import UserError
from fastdino.models.backbones import VISION_TRANSFORMERS
from fastdino.models.formats.recognise import named_vision_transformer, recognised_arch
from fastdino.models.weights import read_weights

WEIGHT_FILES = ("model.safetensors", "pytorch_model.bin")


def read_folder(folder: Path) -> dict[str, Any]:
    """A folder's weights by name, and `args` with what config.json tells.

    Raises UserError if the folder has no weights, no readable config.json, or an architecture that cannot be built.
    """
    weights = next((folder / name for name in WEIGHT_FILES if (folder / name).is_file()), None)
    if weights is None:
        raise UserError(f"{folder} holds none of {', '.join(WEIGHT_FILES)}: give a file of weights, or another folder")
    try:
        config = dict(json.loads((folder / "config.json").read_text()))
        state = read_weights(weights)
        args = _timm_args(config, state) if "architecture" in config else _transformers_args(config)
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise UserError(
            f"{folder / 'config.json'} does not describe a vision transformer ({type(error).__name__}: {error}): give "
            "the file of weights itself, with --arch"
        ) from error
    return {**state, "args": args}


def _timm_args(config: dict[str, Any], state: dict[str, Any]) -> dict[str, Any]:
    # Weights of a vit_* are better off in our own, which draws attention maps.
    return {} if recognised_arch(state) else {"arch": str(config["architecture"])}


def _transformers_args(config: dict[str, Any]) -> dict[str, Any]:
    width, depth, heads = (int(config[key]) for key in ("hidden_size", "num_hidden_layers", "num_attention_heads"))
    activation = config.get("hidden_act", "gelu")
    arch = named_vision_transformer(width, depth, heads)
    if config["model_type"] != "vit" or activation != "gelu" or arch is None:
        raise UserError(
            f"config.json describes a {config['model_type']} of width {width} with {depth} layers, {heads} heads and "
            f"{activation}: of transformers' models, ViT in the sizes of {', '.join(VISION_TRANSFORMERS)} can be loaded"
        )
    return {"arch": arch, "patch_size": int(config["patch_size"])}
