from __future__ import annotations

from pathlib import Path

import pytest
import timm
import torch
from safetensors import safe_open

from fastdino.config import EXPORT_FORMATS
from fastdino.errors import CheckFailed, UserError
from fastdino.export import to_timm
from fastdino.export.formats import FORMATS
from fastdino.export.run import export
from fastdino.models.pretrained import Backbone, load_backbone

PICTURES = torch.randn(3, 3, 64, 64, generator=torch.Generator().manual_seed(1))


def test_the_command_offers_every_format() -> None:
    assert tuple(FORMATS) == EXPORT_FORMATS


@torch.no_grad()
@pytest.mark.parametrize("name", ["x.pth", "x.safetensors"])
def test_timm_loads_strictly(named: Backbone, tmp_path: Path, name: str) -> None:
    export(named, "timm", tmp_path / name)
    model = timm.create_model("vit_tiny_patch16_224", num_classes=0, img_size=64).eval()
    state = {**load_state(tmp_path / name)}
    model.load_state_dict(state, strict=True)
    torch.testing.assert_close(model(PICTURES), named.model(PICTURES), rtol=0, atol=1e-5)


def load_state(path: Path) -> dict[str, torch.Tensor]:
    if path.suffix != ".safetensors":
        return torch.load(path)
    with safe_open(path, "pt") as file:
        return {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118  no dictionary


def test_safetensors_say_what_they_are(named: Backbone, tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    export(named, "safetensors", path)
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
    assert (metadata["arch"], metadata["patch_size"], metadata["image_size"]) == ("vit_tiny", "16", "64")
    assert metadata["mean"] == "0.485 0.456 0.406"
    assert load_backbone(path).arch == "vit_tiny"


def test_convnets_keep_their_name_in_safetensors(convnet: Backbone, tmp_path: Path) -> None:
    export(convnet, "safetensors", tmp_path / "x.safetensors")
    assert load_backbone(tmp_path / "x.safetensors").arch == "resnet18"


def test_dino_has_the_originals_keys(named: Backbone, tmp_path: Path) -> None:
    export(named, "dino", tmp_path / "x.pth")
    content = torch.load(tmp_path / "x.pth")
    assert {key.removeprefix("backbone.") for key in content["teacher"]} == set(named.model.state_dict())
    assert all(key.startswith("backbone.") for key in content["teacher"])
    assert content["args"] == {"arch": "vit_tiny", "patch_size": 16, "global_size": 64}


@pytest.mark.parametrize("format", ["timm", "dino", "torchscript"])
def test_convnets(convnet: Backbone, format: str, tmp_path: Path) -> None:
    assert export(convnet, format, tmp_path / "x.pth") <= 1e-5


def test_torch_export_asks_for_its_ending(small: Backbone, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"files ending in \.pt2"):
        export(small, "torch-export", tmp_path / "x.pt")
    assert list(tmp_path.iterdir()) == []


def test_a_difference_leaves_nothing_behind(named: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "x.pth").write_text("before")
    monkeypatch.setattr(to_timm, "load", lambda *_: lambda pictures: named.model(pictures) * 1.0001)
    with pytest.raises(CheckFailed, match=r"nothing was written: .* differ by 1\.0e-04 .* 1 pictures of 64 x 64"):
        export(named, "timm", tmp_path / "x.pth")
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("x.pth", "before")]


def test_partial_files_list_their_keys(named: Backbone, tmp_path: Path) -> None:
    state = named.model.state_dict()
    del state["blocks.3.mlp.fc1.bias"]
    torch.save(state, tmp_path / "x.pth")
    with pytest.raises(UserError, match=r"missing: blocks\.3\.mlp\.fc1\.bias"):
        to_timm.load(tmp_path / "x.pth", named)


def test_a_folder_is_not_written_over_by_a_file(named: Backbone, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="exists and is no file"):
        export(named, "timm", tmp_path)
