from __future__ import annotations

from pathlib import Path

import pytest
import torch

from fastdino import DINOHead, MultiCropWrapper, vit_tiny
from fastdino.errors import UserError
from fastdino.models.backbones import build_backbone
from fastdino.models.pretrained import load_backbone


@pytest.fixture(scope="module")
def network() -> MultiCropWrapper:
    return MultiCropWrapper(vit_tiny(patch_size=8, img_size=32), DINOHead(192, 16))


def test_backbone_alone_is_recognised_by_its_shapes(network: MultiCropWrapper, tmp_path: Path) -> None:
    torch.save(network.backbone.state_dict(), tmp_path / "backbone.pth")
    backbone = load_backbone(tmp_path / "backbone.pth")
    assert (backbone.arch, backbone.patch_size, backbone.image_size, backbone.embed_dim) == (
        "vit_tiny",
        8,
        32,
        192,
    )
    assert torch.equal(backbone.model.pos_embed, network.backbone.pos_embed)
    assert not backbone.model.training
    assert not any(p.requires_grad for p in backbone.model.parameters())


@pytest.mark.parametrize(("key", "prefix"), [("teacher", ""), ("student", "module.")])
def test_full_checkpoint(network: MultiCropWrapper, tmp_path: Path, key: str, prefix: str) -> None:
    state = {f"{prefix}{name}": value for name, value in network.state_dict().items()}
    torch.save({key: state, "epoch": 1, "args": {"arch": "vit_tiny", "patch_size": 8}}, tmp_path / "c.pth")
    backbone = load_backbone(tmp_path / "c.pth", checkpoint_key=key)
    assert torch.equal(backbone.model.cls_token, network.backbone.cls_token)


def test_convnet_needs_its_name(tmp_path: Path) -> None:
    torch.save(build_backbone("resnet18").state_dict(), tmp_path / "r.pth")
    with pytest.raises(UserError, match="give --arch"):
        load_backbone(tmp_path / "r.pth")
    assert load_backbone(tmp_path / "r.pth", arch="resnet18").embed_dim == 512


def test_wrong_architecture_lists_keys(network: MultiCropWrapper, tmp_path: Path) -> None:
    torch.save(network.backbone.state_dict(), tmp_path / "b.pth")
    with pytest.raises(UserError, match=r"missing: .*give the --arch"):
        load_backbone(tmp_path / "b.pth", arch="resnet18")


def test_wrong_key_lists_what_there_is(tmp_path: Path) -> None:
    torch.save({"model": {"a": 1}, "epoch": 3}, tmp_path / "c.pth")
    with pytest.raises(UserError, match="one of model, epoch"):
        load_backbone(tmp_path / "c.pth", arch="vit_tiny")


@pytest.mark.parametrize("key", ["epoch", "args"])
def test_a_key_that_holds_no_network(network: MultiCropWrapper, tmp_path: Path, key: str) -> None:
    torch.save({"teacher": network.state_dict(), "epoch": 1, "args": {"arch": "vit_tiny"}}, tmp_path / "c.pth")
    with pytest.raises(UserError, match="no weights under"):
        load_backbone(tmp_path / "c.pth", checkpoint_key=key)


def test_norms_in_a_head_belong_to_the_features(tmp_path: Path) -> None:
    torch.save(build_backbone("convnext_atto").state_dict(), tmp_path / "c.pth")
    assert load_backbone(tmp_path / "c.pth", arch="convnext_atto").embed_dim == 320


def test_random_initialisation_needs_an_architecture() -> None:
    assert load_backbone(None, arch="vit_tiny", patch_size=8).embed_dim == 192
    with pytest.raises(UserError, match="--pretrained_weights, or --arch"):
        load_backbone(None)
