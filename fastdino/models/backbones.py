"""Backbones by name: our vision transformers, then torchvision's models, then timm's, without their classifiers."""

from __future__ import annotations

from collections.abc import Callable

import torch
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
    # Only for those who ask: they take a while and 40 MB to import.
    from fastdino.models import libraries

    return libraries.build(name, image_size, drop_path_rate, in_chans)


def canonical_arch(arch: str) -> str:
    """The name under which `arch` is built. Raises UserError for an unknown one."""
    name = arch.replace("deit_", "vit_") if arch in ("deit_tiny", "deit_small") else arch
    if name in OWN_ARCHITECTURES:
        return name
    from fastdino.models import libraries

    return libraries.canonical_name(name, OWN_ARCHITECTURES)


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
