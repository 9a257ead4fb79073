from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from torch import Tensor, nn

from fastdino.models.backbones import build_backbone
from fastdino.models.formats.original import from_original, to_original
from fastdino.models.formats.recognise import recognised_arch
from fastdino.models.pretrained import load_backbone

XCIT = ("xcit_small_12_p16", "xcit_small_12_p8", "xcit_medium_24_p16", "xcit_medium_24_p8")
DINOV2 = [f"vit_{size}_patch14{reg}_dinov2" for size in ("small", "base", "large", "giant") for reg in ("", "_reg4")]


def facebook_dinov2(model: nn.Module) -> dict[str, Tensor]:
    """Weights of timm's DINOv2 under the names of facebookresearch/dinov2's."""
    state = dict(model.state_dict())
    state["mask_token"] = torch.randn(1, state["cls_token"].shape[-1])
    if "reg_token" in state:
        state["register_tokens"] = state.pop("reg_token")
        # Any split of the sum serves.
        position = torch.randn_like(state["cls_token"])
        state["cls_token"] = state["cls_token"] - position
        state["pos_embed"] = torch.cat((position, state["pos_embed"]), dim=1)
    if (
        "blocks.0.mlp.fc1.weight" in state
        and state["blocks.0.mlp.fc1.weight"].shape[0] != 4 * state["norm.bias"].numel()
    ):
        state = {key.replace("mlp.fc1", "mlp.w12").replace("mlp.fc2", "mlp.w3"): v for key, v in state.items()}
    return state


def randomised(model: nn.Module) -> nn.Module:
    """With every weight away from the zeros and ones that hide what is confused."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if tensor.is_floating_point():
                noise = torch.randn(tensor.shape, generator=generator) * 0.05
                tensor.add_(noise.abs() if "var" in name else noise)
    return model.eval()


@torch.no_grad()
def test_xcit_under_facebooks_names() -> None:
    shape: dict[str, Any] = {"embed_dim": 32, "depth": 2, "num_heads": 2, "num_classes": 0}
    model = randomised(timm.create_model("xcit_small_12_p16_224", **shape))
    loaded = timm.create_model("xcit_small_12_p16_224", **shape).eval()
    loaded.load_state_dict(from_original(to_original(model.state_dict(), model), loaded))
    pictures = torch.randn(2, 3, 64, 64)
    assert torch.equal(loaded(pictures), model(pictures))


@pytest.mark.parametrize("arch", XCIT)
def test_every_published_xcit_is_recognised(arch: str) -> None:
    with torch.device("meta"):
        model = build_backbone(arch)
        state = to_original(model.state_dict(), model)
    assert recognised_arch(state) == arch
    assert {key: value.shape for key, value in from_original(state, model).items()} == {
        key: value.shape for key, value in model.state_dict().items()
    }


@torch.no_grad()
@pytest.mark.parametrize("arch", ["vit_giant_patch14_dinov2", "vit_giant_patch14_reg4_dinov2"])
def test_dinov2_with_gated_layers(arch: str) -> None:
    shape: dict[str, Any] = {"embed_dim": 32, "depth": 2, "num_heads": 1, "img_size": 28, "num_classes": 0}
    model = randomised(timm.create_model(arch, **shape))
    loaded = timm.create_model(arch, **shape).eval()
    loaded.load_state_dict(from_original(facebook_dinov2(model), loaded))
    pictures = torch.randn(2, 3, 28, 28)
    # The class token is split into two float32 numbers and added again.
    torch.testing.assert_close(loaded(pictures), model(pictures), rtol=0, atol=1e-5)


@torch.no_grad()
def test_dinov2_from_a_file(tmp_path: Path) -> None:
    arch = "vit_small_patch14_reg4_dinov2"
    model = randomised(timm.create_model(arch, num_classes=0, img_size=28))
    torch.save(facebook_dinov2(model), tmp_path / "d.pth")
    backbone = load_backbone(tmp_path / "d.pth")
    assert (backbone.arch, backbone.image_size) == (arch, 28)
    pictures = torch.randn(2, 3, 28, 28)
    torch.testing.assert_close(backbone.model(pictures), model(pictures), rtol=0, atol=1e-5)


@pytest.mark.parametrize("arch", DINOV2)
def test_every_published_dinov2_is_recognised(arch: str) -> None:
    with torch.device("meta"):
        model = timm.create_model(arch, num_classes=0, depth=1)
        state = facebook_dinov2(model)
    assert recognised_arch(state) == arch
    assert {key: value.shape for key, value in from_original(state, model).items()} == {
        key: value.shape for key, value in model.state_dict().items()
    }


def test_dinov2_with_grouped_blocks() -> None:
    shape: dict[str, Any] = {"embed_dim": 32, "depth": 3, "num_heads": 1, "img_size": 28, "num_classes": 0}
    model = randomised(timm.create_model("vit_giant_patch14_dinov2", **shape))
    state = {key.replace("blocks.2.", "blocks.1.2."): value for key, value in facebook_dinov2(model).items()}
    state = {key.replace("blocks.0.", "blocks.0.0."): value for key, value in state.items()}
    state = {key.replace("blocks.1.n", "blocks.0.1.n"): value for key, value in state.items()}
    mapped = from_original(state, model)
    assert torch.equal(mapped["blocks.2.mlp.fc1.weight"], model.state_dict()["blocks.2.mlp.fc1.weight"])
    assert "blocks.0.0.norm1.weight" not in mapped


def test_resnet50_is_recognised() -> None:
    with torch.device("meta"):
        assert recognised_arch(build_backbone("resnet50").state_dict()) == "resnet50"
        assert recognised_arch(build_backbone("resnet101").state_dict()) is None
        assert recognised_arch(build_backbone("wide_resnet50_2").state_dict()) is None
