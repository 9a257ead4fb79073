from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console
from torch import Tensor, nn
from torchvision import transforms

from fastdino.config import LinearConfig
from fastdino.data.sources import FolderSource
from fastdino.distributed.world import ALONE, World
from fastdino.errors import UserError
from fastdino.evaluate import linear, linear_crops
from fastdino.evaluate.cuts import centre_crop
from fastdino.evaluate.extractor import Extractor
from fastdino.evaluate.linear_crops import RandomCrop, train_on_crops
from fastdino.evaluate.linear_data import LinearData, Part, TrainingPictures
from fastdino.evaluate.linear_grid import train_grid
from fastdino.evaluate.loading import Cutting
from tests.fastdino.distributed.processes import in_ranks


class Moments(nn.Module):
    """Mean and deviation of each colour."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat((x.mean(dim=(2, 3)), x.std(dim=(2, 3))), dim=1)


def same_every_epoch(seed: int, epoch: int, size: int) -> Cutting:
    return Cutting(centre_crop, size)


def extractor_of(world: World, batch_size: int) -> Extractor:
    return Extractor(world, Console(quiet=True), torch.device("cpu"), batch_size, 0, None)


def data_of(folder: Path, extract: Extractor) -> LinearData:
    source = FolderSource(folder)
    found = extract.features(Moments(), source, 16, "")
    pictures = TrainingPictures(Moments(), source, found.indices, 16)
    part = Part(found.features, found.labels)
    return LinearData(pictures, part, part, 2, source.classes, False, {}, [])


def test_training_is_the_originals(picture_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(linear_crops, "RandomCrop", same_every_epoch)
    extract = extractor_of(ALONE, 5)
    data = data_of(picture_folder, extract)
    classifier, accuracies = train_on_crops(extract, data, rate=1.0, epochs=4, val_freq=3, seed=3)
    # Where each epoch sees the same crops, training on features that were computed once does the same.
    expected = train_grid(data.train.features, data.train.labels, 2, (1.0,), epochs=4, batch_size=5, seed=3)
    # 12 steps over sums of 5 rows in another order: some tens of float32 roundings (6e-8) of values near 1.
    torch.testing.assert_close(classifier.weight, expected.weight[0].T, rtol=0, atol=5e-6)
    torch.testing.assert_close(classifier.bias, expected.bias[0], rtol=0, atol=5e-6)
    assert list(accuracies) == [0, 3]


def train_in_rank(world: World, folder: Path, batch_size: int) -> list[Any]:
    extract = extractor_of(world, batch_size)
    classifier, accuracies = train_on_crops(extract, data_of(folder, extract), rate=1.0, epochs=2, val_freq=1, seed=0)
    return [classifier.weight.tolist(), classifier.bias.tolist(), accuracies]


def test_processes_share_each_step(picture_folder: Path) -> None:
    alone = train_in_rank(ALONE, picture_folder, 4)
    for shared in in_ranks(2, train_in_rank, picture_folder, 2):
        # The same pictures make each step; as above.
        np.testing.assert_allclose(shared[0], alone[0], rtol=0, atol=5e-6)
        np.testing.assert_allclose(shared[1], alone[1], rtol=0, atol=5e-6)
        assert shared[2] == alone[2]


def test_crops_are_torchvisions_and_depend_on_nothing_else() -> None:
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8))
    stream = BytesIO()
    picture.save(stream, "PNG")
    png = stream.getvalue()
    state = torch.get_rng_state()
    crop = RandomCrop(1, 2, 16)(png, 7)
    assert torch.equal(torch.get_rng_state(), state)
    assert np.array_equal(crop, RandomCrop(1, 2, 16)(png, 7))
    others = [RandomCrop(2, 2, 16)(png, 7), RandomCrop(1, 3, 16)(png, 7), RandomCrop(1, 2, 16)(png, 8)]
    assert not any(np.array_equal(crop, other) for other in others)
    original = transforms.Compose([transforms.RandomResizedCrop(16), transforms.RandomHorizontalFlip()])
    torch.manual_seed(int(np.random.SeedSequence((1, 2, 7)).generate_state(1)[0]))
    assert np.array_equal(crop, np.asarray(original(picture)).transpose(2, 0, 1))


def settings(path: Path, out: Path, **others: Any) -> LinearConfig:
    return LinearConfig(
        data_path=str(path),
        output_dir=str(out),
        **{
            "arch": "vit_tiny",
            "patch_size": 56,
            "n_last_blocks": 1,
            "num_workers": 0,
            "epochs": 3,
            "protocol": "original",
            "batch_size_per_gpu": 4,
            **others,
        },
    )


def test_run(picture_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.manual_seed(0)
    result = linear.run(settings(picture_folder, tmp_path, val_freq=2, lr=(0.5,)))
    numbers = result["linear"]
    assert numbers["lr"] == 0.5
    assert list(numbers["by_epoch"]) == [0, 2]
    assert numbers["top1"] == numbers["by_epoch"][2] == 100
    assert numbers["best"] == max(numbers["by_epoch"].values())
    assert (result["train_pictures"], result["val_pictures"], result["split"]) == (10, 2, True)
    assert (tmp_path / "linear.pth").exists()
    assert "Best of the epochs measured: Top1: 100.0" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("others", "message"),
    [
        ({"lr": (0.1, 1.0)}, "takes one --lr, not 2"),
        ({"val_freq": 0}, "--val_freq"),
        ({"epochs": 0}, "--epochs"),
        ({"lr": (-1.0,)}, "--lr is -1.0"),
    ],
)
def test_settings_are_looked_at_first(tmp_path: Path, others: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        linear.run(settings(tmp_path / "nowhere", tmp_path, **others))
