"""A checkpoint as facebookresearch/dino's evaluations read it: `teacher`, with `backbone.` before each name."""

from __future__ import annotations

from pathlib import Path

from fastdino.export.formats import Features
from fastdino.models.formats.original import to_original
from fastdino.models.pretrained import Backbone, load_backbone
from fastdino.models.weights import save_weights


def write(backbone: Backbone, path: Path, fixed_size: bool) -> None:
    """`args`, in which fastdino finds the architecture, is a plain dictionary: torch.load's safe default reads it."""
    state = to_original(backbone.model.state_dict(), backbone.model)
    args = {"arch": backbone.arch, "patch_size": backbone.patch_size, "global_size": backbone.image_size}
    content = {"teacher": {f"backbone.{key}": value for key, value in state.items()}, "args": args}
    save_weights(content, path)


def load(path: Path, backbone: Backbone) -> Features:
    """The file as any command of ours reads it."""
    return load_backbone(path).model


def usage(path: Path, backbone: Backbone) -> str:
    """The line of facebookresearch/dino that loads it."""
    size = backbone.patch_size or 16
    return f'utils.load_pretrained_weights(model, "{path}", "teacher", "{backbone.arch}", {size})'
