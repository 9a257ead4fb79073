from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from urllib.error import URLError

import huggingface_hub
import pytest
import torch
from safetensors.torch import save_file

from fastdino import vit_small
from fastdino.errors import UserError
from fastdino.models.backbones import build_backbone
from fastdino.models.pretrained import load_backbone


def test_a_published_name(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked: list[str] = []

    def download(url: str, **_: Any) -> dict[str, torch.Tensor]:
        asked.append(url)
        return vit_small(patch_size=8, img_size=32).state_dict()

    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", download)
    backbone = load_backbone("dino_vits8")
    assert asked == ["https://dl.fbaipublicfiles.com/dino/dino_deitsmall8_pretrain/dino_deitsmall8_pretrain.pth"]
    assert (backbone.arch, backbone.patch_size) == ("vit_small", 8)


def test_without_a_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise URLError("no route to host")

    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", refuse)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", refuse)
    for name in ("dino_vits16", "hf_hub:facebook/dino-vits16"):
        with pytest.raises(UserError, match=f"{name} cannot be downloaded .*no route to host.* give the path"):
            load_backbone(name)


def test_a_file_comes_before_a_name(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    Path("dino_vits16").mkdir()
    with pytest.raises(UserError, match=r"dino_vits16 holds none of model\.safetensors"):
        load_backbone("dino_vits16")


def test_what_is_neither_lists_the_names() -> None:
    with pytest.raises(UserError, match=r"no weights at dino_vit16: .*hf_hub:OWNER/NAME or one of dino_vits16"):
        load_backbone("dino_vit16")


def test_a_folder_of_timm(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"architecture": "convnext_atto"}))
    save_file(build_backbone("convnext_atto").state_dict(), tmp_path / "model.safetensors")
    assert load_backbone(tmp_path).arch == "convnext_atto"


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"model_type": "vit", "hidden_size": 100}, "does not describe a vision transformer"),
        ({"model_type": "bert", "hidden_size": 192, "num_hidden_layers": 12, "num_attention_heads": 3}, "a bert of"),
    ],
)
def test_a_folder_of_something_else(config: dict[str, Any], message: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(config))
    torch.save({"a": torch.zeros(1)}, tmp_path / "pytorch_model.bin")
    with pytest.raises(UserError, match=message):
        load_backbone(tmp_path)
