"""Backbones by name: our vision transformers, then torchvision's models, then timm's, without their classifiers."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from typing import Any

import timm
import torch
import torchvision
from torch import nn

from fastdino.errors import UserError
from fastdino.models import vision_transformer
from fastdino.models.small_resnet import SmallResNet

VISION_TRANSFORMERS: dict[str, Callable[..., vision_transformer.VisionTransformer]] = {
    "vit_tiny": vision_transformer.vit_tiny,
    "vit_small": vision_transformer.vit_small,
    "vit_base": vision_transformer.vit_base,
    "vit_large": vision_transformer.vit_large,
}


SMALL_RESNET = "resnet_small"
OWN_ARCHITECTURES = (*VISION_TRANSFORMERS, SMALL_RESNET)


def build_backbone(
    arch: str, *, patch_size: int = 16, image_size: int = 224, drop_path_rate: float = 0.0, in_chans: int = 3
) -> nn.Module:
    """A randomly initialised backbone: pictures (B, in_chans, H, W) -> features (B, D).

    Args:
        arch: `vit_*` (`deit_tiny` and `deit_small` are the original's older names) or `resnet_small` of fastdino, a
            torchvision classification model, `xcit_*` as in facebookresearch/xcit, or any timm model.
        patch_size: used by our vision transformers alone; others have it in their name.
        image_size: side of the global crops, for which position embeddings are stored.

    Raises UserError for an unknown name (suggesting near ones) or a model whose classifier cannot be removed.
    """
    name = canonical_arch(arch)
    if name in VISION_TRANSFORMERS:
        return VISION_TRANSFORMERS[name](
            patch_size=patch_size, img_size=image_size, drop_path_rate=drop_path_rate, in_chans=in_chans
        )
    if name == SMALL_RESNET:
        return SmallResNet(in_chans)
    if name in torchvision.models.list_models(module=torchvision.models):
        return _torchvision_backbone(name)
    return _timm_backbone(name, image_size, drop_path_rate, in_chans)


def canonical_arch(arch: str) -> str:
    """The name under which `arch` is built. Raises UserError for an unknown one."""
    name = arch.replace("deit_", "vit_") if arch in ("deit_tiny", "deit_small") else arch
    torchvision_names = torchvision.models.list_models(module=torchvision.models)
    if name in OWN_ARCHITECTURES or name in torchvision_names or timm.is_model(name):
        return name
    # facebookresearch/xcit's hub leaves the training resolution out of its names.
    if timm.is_model(f"{name}_224"):
        return f"{name}_224"
    known = [*OWN_ARCHITECTURES, *torchvision_names, *timm.list_models()]
    near = difflib.get_close_matches(arch, known, n=3, cutoff=0.5)
    suggestion = f"did you mean {' or '.join(near)}?" if near else "try vit_small or resnet50"
    raise UserError(f"there is no architecture called {arch!r}: {suggestion}")


def embedding_width(backbone: nn.Module, sizes: list[int], arch: str, in_chans: int = 3) -> int:
    """Width D of the features, found by passing a blank picture of each side in `sizes` through the backbone.

    Raises UserError if the architecture cannot take one of the sizes or does not return one vector per picture.
    """
    was_training = backbone.training
    backbone.eval()
    width = 0
    for size in sizes:
        try:
            with torch.no_grad():
                output = backbone(torch.zeros(1, in_chans, size, size))
        except (RuntimeError, AssertionError, ValueError) as error:
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise UserError(
                f"{arch} cannot take crops of {size} pixels ({reason}): choose other crop sizes, "
                f"--local_crops_number 0, or another architecture"
            ) from error
        output = output[0] if isinstance(output, tuple) else output
        if output.ndim != 2:
            raise UserError(f"{arch} does not return one feature vector per picture: choose another architecture")
        width = output.shape[1]
    backbone.train(was_training)
    return width


def has_batchnorms(module: nn.Module) -> bool:
    """Whether any submodule is a BatchNorm."""
    kinds = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)
    return any(isinstance(child, kinds) for child in module.modules())


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
