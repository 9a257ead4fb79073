"""Backbones of torchvision and timm, without their classifiers."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any

import timm
import torchvision
from torch import nn

from fastdino.errors import UserError


def build(name: str, image_size: int, drop_path_rate: float, in_chans: int) -> nn.Module:
    """torchvision's model of this name, else timm's. Raises UserError if its classifier cannot be removed."""
    if name in _torchvision_names():
        return _torchvision_backbone(name)
    return _timm_backbone(name, image_size, drop_path_rate, in_chans)


def canonical_name(name: str, others: Iterable[str]) -> str:
    """The name under which `build` knows `name`. Raises UserError, suggesting one of these or `others`."""
    if name in _torchvision_names() or timm.is_model(name):
        return name
    # facebookresearch/xcit's hub leaves the training resolution out of its names.
    if timm.is_model(f"{name}_224"):
        return f"{name}_224"
    near = difflib.get_close_matches(name, [*others, *_torchvision_names(), *timm.list_models()], n=3, cutoff=0.5)
    suggestion = f"did you mean {' or '.join(near)}?" if near else "try vit_small or resnet50"
    raise UserError(f"there is no architecture called {name!r}: {suggestion}")


def _torchvision_names() -> list[str]:
    names: list[str] = torchvision.models.list_models(module=torchvision.models)
    return names


def _torchvision_backbone(name: str) -> nn.Module:
    options: dict[str, Any] = {"weights": None}
    # These two return auxiliary logits beside the features while training.
    if name in ("googlenet", "inception_v3"):
        options |= {"aux_logits": False, "init_weights": True}
    backbone = torchvision.models.get_model(name, **options)
    # The classifier is the last Linear inside these; what comes before it (pooling, norms) belongs to the features.
    for attribute in ("fc", "classifier", "head", "heads"):
        classifier = getattr(backbone, attribute, None)
        if isinstance(classifier, nn.Linear):
            setattr(backbone, attribute, nn.Identity())
            return backbone
        if isinstance(classifier, nn.Sequential) and isinstance(classifier[-1], nn.Linear):
            classifier[-1] = nn.Identity()
            return backbone
    raise UserError(f"the classifier of torchvision's {name} cannot be removed: choose another architecture")


def _timm_backbone(name: str, image_size: int, drop_path_rate: float, in_chans: int) -> nn.Module:
    options: dict[str, Any] = {"pretrained": False, "num_classes": 0, "in_chans": in_chans}
    # Position embeddings of a fixed size would refuse the local crops.
    flexible: dict[str, Any] = {"img_size": image_size, "dynamic_img_size": True}
    stochastic_depth: dict[str, Any] = {"drop_path_rate": drop_path_rate}
    for extra in (stochastic_depth | flexible, stochastic_depth, {}):
        try:
            return timm.create_model(name, **options, **extra)
        except TypeError as error:
            # timm passes options through to the constructor, which refuses those that it does not know.
            if "unexpected keyword argument" not in str(error):
                raise
    raise UserError(f"timm's {name} cannot be built without its classifier: choose another architecture")
