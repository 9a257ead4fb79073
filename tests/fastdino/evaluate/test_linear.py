from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from fastdino.config import LinearConfig
from fastdino.errors import UserError
from fastdino.evaluate import linear
from fastdino.evaluate.linear import linear_accuracy
from fastdino.evaluate.linear_classifier import LinearClassifier, load_classifier, save_classifier
from fastdino.evaluate.linear_data import LastBlocks, hold_out
from fastdino.models.vision_transformer import VisionTransformer


def clusters(pictures: int, classes: int, seed: int, spread: float) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    centres = torch.randn(classes, 16, generator=torch.Generator().manual_seed(99))
    labels = torch.arange(pictures) % classes
    return centres[labels] + spread * torch.randn(pictures, 16, generator=generator), labels


@pytest.mark.parametrize("spread", [0.2, 1.5])
def test_accuracy_is_that_of_logistic_regression(spread: float) -> None:
    train, test = clusters(300, 6, 0, spread), clusters(600, 6, 1, spread)
    peer = LogisticRegression(max_iter=1000).fit(*(part.numpy() for part in train))
    expected = 100 * peer.score(*(part.numpy() for part in test))
    measured = linear_accuracy(*train, *test, epochs=50)
    # Separable clusters leave no choice; of overlapping ones, the two may judge the pictures at the border
    # differently: two standard errors of a share of 600 pictures, 2 * sqrt(0.1 * 0.9 / 600) = 2.4 %.
    assert abs(measured["top1"] - expected) <= (0 if spread < 1 else 2.4)
    assert spread < 1 or expected < 99
    assert measured["top5"] >= measured["top1"]
    # Classes are of equal size here.
    assert np.mean(list(measured["per_class"].values())) == pytest.approx(measured["top1"])


def test_accuracies_of_a_known_classifier() -> None:
    classifier = LinearClassifier(torch.eye(6), torch.zeros(6))
    features = torch.tensor([[6.0, 5, 4, 3, 2, 1]]).repeat(4, 1)
    measured = classifier.accuracy(features, torch.tensor([0, 4, 5, 7]))
    assert measured == {"top1": 25.0, "top5": 50.0, "per_class": {0: 100.0, 4: 0.0, 5: 0.0, 7: 0.0}}
    few = LinearClassifier(torch.eye(3, 6), torch.zeros(3)).accuracy(features, torch.tensor([0, 0, 2, 3]))
    assert few == {"top1": 50.0, "per_class": {0: 100.0, 2: 0.0, 3: 0.0}}


def test_rates_that_diverge_are_not_taken() -> None:
    train, test = clusters(60, 3, 0, 0.2), clusters(30, 3, 1, 0.2)
    assert linear_accuracy(*train, *test, (float("inf"), 0.1), epochs=20)["lr"] == 0.1
    with pytest.raises(UserError, match="lower --lr"):
        linear_accuracy(*train, *test, (float("inf"), float("inf")), epochs=20)


def test_a_fifth_of_each_class_is_held_out() -> None:
    labels = torch.tensor([0] * 20 + [1] * 2 + [2])
    mask = hold_out(labels, 0)
    assert [int(mask[labels == label].sum()) for label in range(3)] == [4, 1, 0]
    assert torch.equal(mask, hold_out(labels, 0))
    assert not torch.equal(mask, hold_out(labels, 1))


def test_one_picture_per_class_trains() -> None:
    features = torch.eye(4)
    assert linear_accuracy(features, torch.arange(4), features, torch.arange(4), epochs=20)["top1"] == 100


@pytest.mark.parametrize(
    ("labels", "rates", "epochs", "message"),
    [
        ([1, 1], (1.0,), 1, "two classes"),
        ([0, 1], (0.0,), 1, "--lr"),
        ([0, 1], (), 1, "--lr"),
        ([0, 1], (1.0,), 0, "--epochs"),
    ],
)
def test_impossible_requests(labels: list[int], rates: tuple[float, ...], epochs: int, message: str) -> None:
    features, targets = torch.eye(2), torch.tensor(labels)
    with pytest.raises(UserError, match=message):
        linear_accuracy(features, targets, features, targets, rates, epochs=epochs)


def test_tokens_are_in_the_originals_order() -> None:
    model = VisionTransformer(img_size=[16], patch_size=8, embed_dim=32, depth=2, num_heads=2).eval()
    pictures = torch.randn(2, 3, 16, 16)
    with torch.no_grad():
        first, last = model.get_intermediate_layers(pictures, 2)
        assert torch.equal(LastBlocks(model, 2, False)(pictures), torch.cat((first[:, 0], last[:, 0]), dim=1))
        pooled = LastBlocks(model, 1, True)(pictures)
    assert torch.equal(pooled[:, ::2], last[:, 0])
    assert torch.equal(pooled[:, 1::2], last[:, 1:].mean(dim=1))


def paint_classes(root: Path, count: int, names: tuple[str, str, str] = ("blue", "green", "red")) -> None:
    for number, name in enumerate(names):
        (root / name).mkdir(parents=True)
        for index in range(count):
            colour = np.full(3, 30) + 170 * np.eye(3, dtype=int)[2 - number]
            noise = np.random.default_rng(100 * number + index).integers(-20, 20, (40, 50, 3))
            Image.fromarray((colour + noise).astype(np.uint8)).save(root / name / f"{index}.png")


def settings(path: Path, out: Path, **others: Any) -> LinearConfig:
    return LinearConfig(
        data_path=str(path),
        output_dir=str(out),
        **{"arch": "vit_tiny", "patch_size": 56, "num_workers": 0, "epochs": 20, **others},
    )


def test_run_on_train_and_val_and_again_with_the_saved_classifier(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    paint_classes(tmp_path / "train", 4)
    # The extra class comes first in val/ and moves every number there: names must be matched.
    paint_classes(tmp_path / "val", 2, ("blue", "a new one", "red"))
    torch.manual_seed(0)
    result = linear.run(settings(tmp_path, tmp_path / "out", output=str(tmp_path / "new" / "numbers.json")))
    assert result["linear"]["per_class"] == {"blue": 100.0, "red": 100.0, "a new one": 0.0}
    assert result["linear"]["top1"] == pytest.approx(200 / 3)
    assert "top5" not in result["linear"]
    assert (result["train_pictures"], result["val_pictures"], result["split"]) == (12, 6, False)
    assert json.loads((tmp_path / "new" / "numbers.json").read_text()) == result
    assert "a new one" in capsys.readouterr().out
    saved = tmp_path / "out" / "linear.pth"
    torch.manual_seed(0)
    again = linear.run(settings(tmp_path, tmp_path / "no", pretrained_linear=str(saved)))
    assert again["linear"] == {**result["linear"], "lr": None}
    assert again["train_pictures"] == 0
    assert not (tmp_path / "no").exists()
    with pytest.raises(UserError, match="--n_last_blocks"):
        linear.run(settings(tmp_path, tmp_path, pretrained_linear=str(saved), n_last_blocks=1))
    with pytest.raises(UserError, match="from 1 to 12"):
        linear.run(settings(tmp_path, tmp_path, n_last_blocks=13))


def test_run_on_one_folder_of_classes_with_a_convolutional_network(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    paint_classes(tmp_path / "data", 3)
    torch.manual_seed(0)
    result = linear.run(settings(tmp_path / "data", tmp_path, arch="resnet18", patch_size=None))
    assert (result["train_pictures"], result["val_pictures"], result["split"]) == (6, 3, True)
    assert load_classifier(tmp_path / "linear.pth").weight.shape == (3, 512)
    assert "a fifth of each class" in capsys.readouterr().out


def test_sets_that_cannot_be_measured(tmp_path: Path) -> None:
    paint_classes(tmp_path / "single", 1)
    with pytest.raises(UserError, match="no picture to test on"):
        linear.run(settings(tmp_path / "single", tmp_path))
    save_classifier(LinearClassifier(torch.zeros(7, 4), torch.zeros(7)), tmp_path / "seven.pth")
    with pytest.raises(UserError, match="7 classes"):
        linear.run(settings(tmp_path / "single", tmp_path, pretrained_linear=str(tmp_path / "seven.pth")))


@pytest.mark.parametrize("prefix", ["module.linear.", "linear."])
def test_classifiers_of_either_project_are_read(tmp_path: Path, prefix: str) -> None:
    state = {f"{prefix}weight": torch.randn(3, 4), f"{prefix}bias": torch.randn(3)}
    torch.save({"epoch": 100, "state_dict": state}, tmp_path / "linear.pth")
    classifier = load_classifier(tmp_path / "linear.pth")
    assert torch.equal(classifier.weight, state[f"{prefix}weight"])
    assert torch.equal(classifier.bias, state[f"{prefix}bias"])
    torch.save({"state_dict": {"other": torch.zeros(1)}}, tmp_path / "other.pth")
    with pytest.raises(UserError, match="--pretrained_linear"):
        load_classifier(tmp_path / "other.pth")
