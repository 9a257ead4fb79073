"""timm's state_dict, as `timm.create_model(...).load_state_dict(..., strict=True)` takes it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import timm
from torch import nn

from fastdino.errors import UserError
from fastdino.export.formats import Features
from fastdino.models.backbones import canonical_arch
from fastdino.models.pretrained import Backbone
from fastdino.models.vision_transformer import VisionTransformer
from fastdino.models.weights import load_strictly, read_weights, save_safetensors, save_weights


def write(backbone: Backbone, path: Path, fixed_size: bool) -> None:
    """A .safetensors file, or under any other ending a file of torch.save's."""
    timm_name(backbone)
    state = backbone.model.state_dict()
    if path.suffix == ".safetensors":
        save_safetensors(state, path, {})
    else:
        save_weights(state, path)


def load(path: Path, backbone: Backbone) -> Features:
    """timm's own model with the file's weights, every key matching. Raises UserError with the keys that differ."""
    name, options = timm_name(backbone)
    model: nn.Module = timm.create_model(name, num_classes=0, **options)
    load_strictly(model, read_weights(path), str(path), f"timm's {name} is another network")
    return model.eval()


def usage(path: Path, backbone: Backbone) -> str:
    """The lines of Python that load it."""
    name, options = timm_name(backbone)
    arguments = "".join(f", {key}={value}" for key, value in options.items())
    read = f'safetensors.torch.load_file("{path}")' if path.suffix == ".safetensors" else f'torch.load("{path}")'
    return f'model = timm.create_model("{name}", num_classes=0{arguments}).eval()\nmodel.load_state_dict({read})'


def timm_name(backbone: Backbone) -> tuple[str, dict[str, Any]]:
    """The model's name in timm, and what `create_model` has to be told besides.

    Raises UserError for architectures that timm lacks.
    """
    name = canonical_arch(backbone.arch)
    if isinstance(backbone.model, VisionTransformer):
        exact = f"{name}_patch{backbone.patch_size}_224"
        sizes = {"img_size": backbone.image_size} if backbone.image_size != 224 else {}
        if timm.is_model(exact):
            return exact, sizes
        return f"{name}_patch16_224", {"patch_size": backbone.patch_size, **sizes}
    if not timm.is_model(name):
        raise UserError(f"timm has no {backbone.arch}: choose another --format")
    stored = getattr(backbone.model, "pos_embed", None)
    return name, {"img_size": backbone.image_size} if stored is not None and not isinstance(stored, nn.Module) else {}
