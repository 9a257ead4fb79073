"""A trained backbone: ours, or any that facebookresearch/dino, /dinov2, timm or Hugging Face publish."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import safe_open
from torch import Tensor, nn

from fastdino.errors import UserError
from fastdino.models.backbones import build_backbone, embedding_width
from fastdino.models.formats.folder import read_folder
from fastdino.models.formats.huggingface import from_huggingface, is_huggingface
from fastdino.models.formats.original import from_original
from fastdino.models.formats.published import HUB_PREFIX, PUBLISHED, fetch, is_name
from fastdino.models.formats.recognise import recognised_arch
from fastdino.models.vision_transformer import VisionTransformer
from fastdino.models.weights import load_strictly, read_weights, strip_prefix


@dataclass(frozen=True)
class Backbone:
    """A backbone ready for evaluation and what is known about it.

    `model` maps normalised pictures (B, 3, H, W) to features (B, embed_dim); `image_size` is the side in pixels of the
    global crops that it was trained on; `patch_size` is None for architectures that fix it in their name.
    """

    model: nn.Module
    arch: str
    patch_size: int | None
    image_size: int
    embed_dim: int


def load_backbone(
    weights: str | Path | None,
    *,
    arch: str | None = None,
    patch_size: int | None = None,
    checkpoint_key: str = "teacher",
) -> Backbone:
    """Build the architecture that `weights` were trained with and load them, every key matching.

    `weights` is a file (PyTorch or safetensors), a folder as Hugging Face keeps them, a name in PUBLISHED, or
    `hf_hub:` and a repository's name. What is not given is read from the checkpoint's own settings, else from the
    weights' names and shapes. Without `weights` the backbone is randomly initialised and `arch` is required.

    Raises UserError for a missing or unreadable file, an unknown key, weights of another architecture, or an
    architecture that cannot be told.
    """
    if weights is None:
        if arch is None:
            raise UserError("give --pretrained_weights, or --arch for a randomly initialised backbone")
        return _describe(build_backbone(arch, patch_size=patch_size or 16), arch, 224)
    content = read_checkpoint(weights)
    state = backbone_state(content, checkpoint_key, str(weights))
    settings = _settings(content)
    arch = arch or settings.get("arch") or recognised_arch(state)
    if arch is None:
        raise UserError(f"{weights} does not say which architecture it is: give --arch")
    if patch_size is None:
        patch_size = int(settings.get("patch_size") or 16)
        if "patch_embed.proj.weight" in state:
            patch_size = state["patch_embed.proj.weight"].shape[-1]
    image_size = int(settings.get("global_size", 224))
    if "pos_embed" in state:
        # A square grid, with one more for the class token or without.
        image_size = patch_size * math.isqrt(state["pos_embed"].shape[1])
    model = build_backbone(arch, patch_size=patch_size, image_size=image_size)
    state = from_original(state, model)
    load_strictly(model, state, str(weights), "give the --arch and --patch_size that it was trained with")
    return _describe(model, arch, image_size)


def load_published(model: nn.Module, name: str) -> None:
    """Load what PUBLISHED has under `name` into a model of its architecture.

    Raises UserError where it cannot be downloaded, or does not fit.
    """
    state = from_original(backbone_state(fetch(name), "teacher", name), model)
    load_strictly(model, state, name, "leave out the arguments that change the network's shapes")


def read_checkpoint(weights: str | Path) -> dict[str, Any]:
    """What a file, a folder or a name holds. Raises UserError where there is nothing to be had."""
    if is_name(weights):
        return fetch(str(weights))
    if Path(weights).is_dir():
        return read_folder(Path(weights))
    if not Path(weights).exists():
        raise UserError(
            f"there are no weights at {weights}: give a .pth or .safetensors file, a folder from Hugging Face, "
            f"{HUB_PREFIX}OWNER/NAME or one of {', '.join(PUBLISHED)}"
        )
    content = read_weights(weights)
    return {**content, "args": _metadata(Path(weights))} if Path(weights).suffix == ".safetensors" else content


def backbone_state(content: Mapping[str, Any], checkpoint_key: str, source: str) -> dict[str, Tensor]:
    """The backbone's weights out of a full checkpoint (`checkpoint_key` chooses the network) or a plain state_dict."""
    state = content.get(checkpoint_key, content)
    items = state.items() if isinstance(state, Mapping) else ()
    tensors = {key: value for key, value in items if isinstance(value, Tensor)}
    if not tensors:
        raise UserError(
            f"{source} has no weights under {checkpoint_key!r}: "
            f"give --checkpoint_key, one of {', '.join(map(str, content))}"
        )
    tensors = strip_prefix(tensors, "module.")
    if is_huggingface(tensors):
        return from_huggingface(tensors)
    if any(key.startswith("backbone.") for key in tensors):
        return {key.removeprefix("backbone."): value for key, value in tensors.items() if key.startswith("backbone.")}
    # A backbone saved by itself may still carry the classifier it was trained with (head.norm is none).
    classifiers = ("head.weight", "head.bias", "head.fc.", "fc.")
    return {key: value for key, value in tensors.items() if not key.startswith(classifiers)}


def _metadata(path: Path) -> dict[str, Any]:
    """What `fastdino export --format safetensors` writes beside the weights."""
    with safe_open(path, "pt") as file:
        metadata = file.metadata() or {}
    names = {"arch": "arch", "patch_size": "patch_size", "image_size": "global_size"}
    return {name: metadata[key] for key, name in names.items() if key in metadata}


def _settings(content: Mapping[str, Any]) -> dict[str, Any]:
    args = content.get("args", {})
    return dict(args) if isinstance(args, Mapping) else dict(vars(args))


def _describe(model: nn.Module, arch: str, image_size: int) -> Backbone:
    model.eval().requires_grad_(False)
    patch_size = model.patch_size if isinstance(model, VisionTransformer) else None
    return Backbone(model, arch, patch_size, image_size, embedding_width(model, [image_size], arch))
