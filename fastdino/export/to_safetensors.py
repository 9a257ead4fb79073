"""Weights under our own names, with what it takes to use them in the file's metadata."""

from __future__ import annotations

from pathlib import Path

from fastdino import __version__
from fastdino.data.normalize import IMAGENET_MEAN, IMAGENET_STD
from fastdino.export.formats import Features
from fastdino.models.pretrained import Backbone, load_backbone
from fastdino.models.weights import save_safetensors


def write(backbone: Backbone, path: Path, fixed_size: bool) -> None:
    """Metadata: arch, patch_size, image_size, mean and std of the three channels, fastdino's version."""
    metadata = {
        "arch": backbone.arch,
        "image_size": str(backbone.image_size),
        "mean": " ".join(map(str, IMAGENET_MEAN)),
        "std": " ".join(map(str, IMAGENET_STD)),
        "fastdino_version": __version__,
    }
    if backbone.patch_size is not None:
        metadata["patch_size"] = str(backbone.patch_size)
    save_safetensors(backbone.model.state_dict(), path, metadata)


def load(path: Path, backbone: Backbone) -> Features:
    """The file as any command of ours reads it."""
    return load_backbone(path).model


def usage(path: Path, backbone: Backbone) -> str:
    """The lines of Python that load it."""
    return f'from fastdino.models.pretrained import load_backbone\nmodel = load_backbone("{path}").model'
