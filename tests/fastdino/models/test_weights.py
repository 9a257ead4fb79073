from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from fastdino.errors import UserError
from fastdino.models.weights import load_strictly, read_weights


class Evil:
    def __reduce__(self) -> tuple:
        return (Path.touch, (Path("evil-was-here"),))


def test_reads_the_originals_format(golden_checkpoint: Path) -> None:
    content = read_weights(golden_checkpoint)
    assert content.keys() == {"student", "teacher", "optimizer", "epoch", "args", "dino_loss"}
    assert content["args"].arch == "vit_tiny"


def test_reads_safetensors(tmp_path: Path) -> None:
    save_file({"a": torch.arange(3.0)}, tmp_path / "w.safetensors")
    assert torch.equal(read_weights(tmp_path / "w.safetensors")["a"], torch.arange(3.0))


def test_foreign_objects_are_refused_and_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"a": Evil()}, tmp_path / "evil.pth")
    with pytest.raises(UserError, match="could run code"):
        read_weights(tmp_path / "evil.pth")
    assert not (tmp_path / "evil-was-here").exists()


@pytest.mark.parametrize("name", ["w.pth", "w.safetensors"])
def test_damaged_files_are_named(tmp_path: Path, name: str) -> None:
    whole = tmp_path / f"whole-{name}"
    if name.endswith("pth"):
        torch.save({"a": torch.arange(1000.0)}, whole)
    else:
        save_file({"a": torch.arange(1000.0)}, whole)
    data = whole.read_bytes()
    for size in [0, 1, 7, *range(50, len(data), 311)]:
        (tmp_path / name).write_bytes(data[:size])
        with pytest.raises(UserError, match=name):
            read_weights(tmp_path / name)


def test_missing_and_meaningless_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no file of weights at .*none\.pth"):
        read_weights(tmp_path / "none.pth")
    torch.save([1, 2], tmp_path / "list.pth")
    with pytest.raises(UserError, match="holds a list"):
        read_weights(tmp_path / "list.pth")
    (tmp_path / "text.pth").write_text("hello")
    with pytest.raises(UserError, match="cannot be read as weights"):
        read_weights(tmp_path / "text.pth")


def test_differences_are_listed_and_nothing_is_loaded() -> None:
    module = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 3))
    before = {key: value.clone() for key, value in module.state_dict().items()}
    state = {
        "0.weight": torch.zeros(2, 2),
        "1.weight": torch.zeros(4, 2),
        "1.bias": torch.zeros(3),
        "extra": torch.zeros(1),
    }
    with pytest.raises(UserError) as error:
        load_strictly(module, state, "file.pth", "try another")
    message = str(error.value)
    assert "missing: 0.bias" in message
    assert "not in the model: extra" in message
    assert "1.weight (4, 2) where the model has (3, 2)" in message
    assert message.endswith("try another")
    assert all(torch.equal(value, before[key]) for key, value in module.state_dict().items())


def test_long_lists_of_keys_are_shortened() -> None:
    with pytest.raises(UserError, match="and 12 more"):
        load_strictly(nn.Sequential(*(nn.Linear(1, 1) for _ in range(10))), {}, "file.pth", "x")
