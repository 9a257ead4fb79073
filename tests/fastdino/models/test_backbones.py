from __future__ import annotations

import pytest
import torch

from fastdino.errors import UserError
from fastdino.models.backbones import build_backbone, canonical_arch, embedding_width


@pytest.mark.parametrize(
    ("arch", "width"),
    [
        ("vit_tiny", 192),
        ("deit_tiny", 192),
        ("resnet18", 512),
        ("resnet_small", 128),
        ("mobilenet_v3_small", 1024),
        ("convnext_atto", 320),
        ("resnet10t", 512),
        ("vit_tiny_patch16_224", 192),
        ("xcit_nano_12_p16", 128),
    ],
)
def test_features_without_classifier_at_both_resolutions(arch: str, width: int) -> None:
    backbone = build_backbone(arch, patch_size=16, image_size=64, drop_path_rate=0.1)
    assert embedding_width(backbone, [64, 32], arch) == width
    assert backbone.training


def test_googlenet_has_no_auxiliary_outputs() -> None:
    backbone = build_backbone("googlenet").train()
    assert backbone(torch.randn(2, 3, 64, 64)).shape == (2, 1024)


@pytest.mark.parametrize(("arch", "near"), [("vit_smal", "vit_small"), ("resnet51", "resnet50")])
def test_unknown_names_get_suggestions(arch: str, near: str) -> None:
    with pytest.raises(UserError, match=f"no architecture called '{arch}'.*{near}"):
        canonical_arch(arch)


def test_name_without_neighbours() -> None:
    with pytest.raises(UserError, match="try vit_small"):
        canonical_arch("qqqqqqqqqqqq")


def test_model_of_one_resolution_is_refused() -> None:
    with pytest.raises(UserError, match=r"vit_b_16 cannot take crops of 96 pixels .*--local_crops_number 0"):
        embedding_width(build_backbone("vit_b_16"), [96], "vit_b_16")


def test_model_without_linear_classifier_is_refused() -> None:
    with pytest.raises(UserError, match="squeezenet1_0 cannot be removed"):
        build_backbone("squeezenet1_0")
