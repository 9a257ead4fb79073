"""A folder as transformers' ViTModel and AutoImageProcessor load it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, cast

from torch import Tensor
from transformers import ViTModel
from transformers.utils import logging

from fastdino.data.normalize import IMAGENET_MEAN, IMAGENET_STD
from fastdino.errors import UserError
from fastdino.evaluate.cuts import RESIZE_RATIO
from fastdino.export.formats import Features
from fastdino.files import write_atomically
from fastdino.models.block import Block
from fastdino.models.formats.huggingface import to_huggingface
from fastdino.models.pretrained import Backbone
from fastdino.models.vision_transformer import VisionTransformer
from fastdino.models.weights import save_safetensors


def write(backbone: Backbone, path: Path, fixed_size: bool) -> None:
    """config.json, model.safetensors and preprocessor_config.json. Raises UserError for what is no vit_* of ours."""
    model = backbone.model
    if not isinstance(model, VisionTransformer):
        raise UserError(f"transformers' ViTModel cannot be a {backbone.arch}: choose another --format")
    path.mkdir()
    save_safetensors(to_huggingface(model.state_dict()), path / "model.safetensors", {})
    for name, content in (
        ("config.json", _model_config(model, backbone.image_size)),
        ("preprocessor_config.json", _processor_config(backbone.image_size)),
    ):
        write_atomically(path / name, json.dumps(content, indent=2) + "\n")


def load(path: Path, backbone: Backbone) -> Features:
    """transformers' model with the folder's weights. Raises UserError with the keys that differ."""
    logging.disable_progress_bar()
    # A pair, which its annotation does not know of.
    loaded: Any = ViTModel.from_pretrained(path, add_pooling_layer=False, output_loading_info=True)
    model, info = loaded
    different = [str(key) for kind in ("missing_keys", "unexpected_keys", "mismatched_keys") for key in info[kind]]
    if different:
        raise UserError(f"transformers takes other keys than {path} has: {', '.join(sorted(different))}")

    def features(pictures: Tensor) -> Tensor:
        return cast(Tensor, model(pictures).last_hidden_state[:, 0])

    return features


def usage(path: Path, backbone: Backbone) -> str:
    """The lines of Python that load it."""
    return (
        f'processor = AutoImageProcessor.from_pretrained("{path}")\n'
        f'model = ViTModel.from_pretrained("{path}", add_pooling_layer=False)\n'
        'features = model(**processor(picture, return_tensors="pt")).last_hidden_state[:, 0]'
    )


def _model_config(model: VisionTransformer, image_size: int) -> dict[str, Any]:
    block = cast(Block, model.blocks[0])
    return {
        "architectures": ["ViTModel"],
        "model_type": "vit",
        "hidden_size": model.embed_dim,
        "num_hidden_layers": len(model.blocks),
        "num_attention_heads": model.num_heads,
        "intermediate_size": block.mlp.fc1.out_features,
        "hidden_act": "gelu",
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
        "layer_norm_eps": 1e-6,
        "qkv_bias": block.attn.qkv.bias is not None,
        "num_channels": model.patch_embed.proj.in_channels,
        "image_size": image_size,
        "patch_size": model.patch_size,
    }


def _processor_config(image_size: int) -> dict[str, Any]:
    """The middle of the picture, as every evaluation here looks at it."""
    return {
        "image_processor_type": "BitImageProcessor",
        "do_convert_rgb": True,
        "do_resize": True,
        "size": {"shortest_edge": round(image_size * RESIZE_RATIO)},
        "resample": 3,
        "do_center_crop": True,
        "crop_size": {"height": image_size, "width": image_size},
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(IMAGENET_MEAN),
        "image_std": list(IMAGENET_STD),
    }
