from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from fastdino.config import ExportConfig
from fastdino.errors import UserError
from fastdino.export import push
from fastdino.export.run import run
from fastdino.models.pretrained import Backbone, load_backbone


@pytest.fixture
def weights(named: Backbone, tmp_path: Path) -> Path:
    """A run's folder with its checkpoint and its own account."""
    folder = tmp_path / "run"
    folder.mkdir()
    torch.save(named.model.state_dict(), folder / "checkpoint.pth")
    (folder / "config.json").write_text(json.dumps({"arch": "vit_tiny", "data_path": "a|b", "epochs": 2}))
    lines = [{"epoch": 0, "train_loss": 9.0}, {"epoch": 1, "train_loss": 7.25, "pictures": 40}]
    (folder / "log.txt").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (folder / "skipped.txt").write_text("a.jpg\tempty\nb.jpg\tempty\n")
    return folder / "checkpoint.pth"


def test_the_card_tells_what_the_run_has_left(
    weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "new" / "model.safetensors"
    run(ExportConfig(pretrained_weights=str(weights), format="safetensors", output=str(output), image_size=32))
    assert load_backbone(output).image_size == 32
    assert f"{output} gives the model's features" in capsys.readouterr().out
    card = output.with_name("model.safetensors.md").read_text()
    for line in (
        "| size of pictures | 32 x 32 pixels, RGB |",
        "| loss | 7.25 |",
        "| pictures | 40 |",
        "| epochs | 2 |",
        "| unreadable pictures | 2 |",
        r"| data_path | a\|b |",
        'load_backbone("model.safetensors")',
    ):
        assert line in card


def test_without_a_run_the_card_has_the_model_alone(named: Backbone, tmp_path: Path) -> None:
    torch.save(named.model.state_dict(), tmp_path / "w.pth")
    run(ExportConfig(pretrained_weights=str(tmp_path / "w.pth"), format="dino", output=str(tmp_path / "x.pth")))
    card = (tmp_path / "x.pth.md").read_text()
    assert "| parameters | 5,489,856 |" in card
    assert "##" not in card


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (ExportConfig(), "give --pretrained_weights, and --output"),
        (
            ExportConfig(pretrained_weights="x", output="y", format="timm", push_to_hub="a/b"),
            "--push_to_hub takes --format huggingface",
        ),
    ],
)
def test_what_is_missing(config: ExportConfig, message: str) -> None:
    with pytest.raises(UserError, match=message):
        run(config)


def test_uploading_without_a_network_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Offline:
        def create_repo(self, *_: object, **__: object) -> None:
            raise ConnectionError("no route to host\nand a page of text")

    monkeypatch.setattr(push, "HfApi", Offline)
    with pytest.raises(UserError, match=r"cannot be uploaded to a/b \(no route to host\): log in"):
        push.push(tmp_path, "a/b")
