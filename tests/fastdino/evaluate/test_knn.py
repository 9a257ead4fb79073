from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from fastdino.config import KnnConfig
from fastdino.errors import UserError
from fastdino.evaluate import knn
from fastdino.evaluate.knn import fitting_neighbours, knn_accuracy, knn_scores, target_ranks


def spelled_out(
    train: Tensor, train_labels: Tensor, test: Tensor, test_labels: Tensor, k: int, temperature: float
) -> tuple[float, float]:
    """The original's formula, one picture and one neighbour at a time."""
    train, test = torch.nn.functional.normalize(train, dim=1), torch.nn.functional.normalize(test, dim=1)
    classes = int(max(train_labels.max(), test_labels.max())) + 1
    top1 = top5 = 0
    for features, label in zip(test, test_labels.tolist(), strict=True):
        similarities = (train @ features).tolist()
        votes = np.zeros(classes)
        for index in sorted(range(len(train)), key=lambda i: -similarities[i])[:k]:
            votes[int(train_labels[index])] += np.exp(similarities[index] / temperature)
        ranking = np.argsort(-votes, kind="stable").tolist()
        top1 += ranking[0] == label
        top5 += label in ranking[: min(5, k)]
    return top1 * 100.0 / len(test), top5 * 100.0 / len(test)


def clusters(pictures: int, classes: int, seed: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    centres = torch.randn(classes, 16, generator=torch.Generator().manual_seed(99))
    labels = torch.randint(classes, (pictures,), generator=generator)
    return centres[labels] + 1.5 * torch.randn(pictures, 16, generator=generator), labels


@pytest.mark.parametrize("classes", [2, 12, 40])
@pytest.mark.parametrize("temperature", [0.02, 0.07, 1.0])
def test_counts_are_those_of_the_formula(classes: int, temperature: float) -> None:
    train, val = clusters(150, classes, 0), clusters(61, classes, 1)
    accuracies = knn_accuracy(*train, *val, (1, 3, 10, 150), temperature=temperature)
    assert accuracies == {k: spelled_out(*train, *val, k, temperature) for k in (1, 3, 10, 150)}
    if classes == 12:
        # The clusters overlap: neither everything nor nothing may be right, or equality would say little.
        assert 20 < accuracies[10][0] < accuracies[10][1] < 100


def test_leave_one_out_is_n_separate_measurements() -> None:
    features, labels = clusters(50, 6, 2)
    right = [
        spelled_out(features[others], labels[others], features[[row]], labels[[row]], 7, 0.07)[0]
        for row in range(50)
        for others in [[other for other in range(50) if other != row]]
    ]
    assert knn_accuracy(features, labels, nb_knn=(7,))[7][0] == sum(right) / 50


def test_small_pieces_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    train, val = clusters(80, 9, 3), clusters(30, 9, 4)
    whole = knn_accuracy(*train, *val, (5, 20))
    monkeypatch.setattr(knn, "PIECE_BYTES", 8 * 9 * 7)
    assert knn_accuracy(*train, *val, (5, 20)) == whole


def test_votes_are_exponentials_of_the_similarities() -> None:
    similarities = torch.tensor([[0.9, 0.8, 0.5]], dtype=torch.float64)
    votes = knn_scores(similarities, torch.tensor([[2, 0, 2]]), 4, 0.1)
    expected = torch.tensor([[np.exp(8), 0, np.exp(9) + np.exp(5), 0]]) / np.exp(9)
    assert torch.allclose(votes, expected, rtol=1e-12)


def test_tiny_temperatures_do_not_overflow() -> None:
    train, val = clusters(60, 5, 5), clusters(30, 5, 6)
    assert knn_accuracy(*train, *val, (9,), temperature=1e-5)[9][0] == knn_accuracy(*train, *val, (1,))[1][0]


def test_equal_votes_go_to_the_lower_class() -> None:
    votes = torch.tensor([[1.0, 3.0, 3.0, 0.0, 0.0]]).repeat(5, 1)
    assert target_ranks(votes, torch.arange(5)).tolist() == [2, 0, 1, 3, 4]


def test_one_class_is_always_right_and_an_unknown_one_never() -> None:
    features = torch.randn(6, 4)
    assert knn_accuracy(features, torch.zeros(6, dtype=torch.int64), nb_knn=(2,)) == {2: (100.0, 100.0)}
    unknown = torch.full((3,), 5)
    known = torch.arange(6) % 5
    assert knn_accuracy(features, known, features[:3], unknown, (6,)) == {6: (0.0, 0.0)}


def test_one_picture_per_class_needs_the_same_picture() -> None:
    features = torch.eye(4)
    labels = torch.arange(4)
    assert knn_accuracy(features, labels, features, labels, (1,)) == {1: (100.0, 100.0)}
    assert knn_accuracy(features, labels, nb_knn=(1,)) == {1: (0.0, 0.0)}


def test_features_may_have_any_length() -> None:
    train, val = clusters(60, 5, 7), clusters(30, 5, 8)
    assert knn_accuracy(train[0] * 2.0**9, train[1], val[0] / 2.0**5, val[1], (3,)) == knn_accuracy(*train, *val, (3,))


def test_neighbours_that_do_not_fit() -> None:
    assert fitting_neighbours((200, 10, 20, 20), 25) == [10, 20]
    assert fitting_neighbours((10, 20), 4) == [4]
    features, labels = clusters(5, 2, 9)
    assert list(knn_accuracy(features, labels)) == [4]


@pytest.mark.parametrize(
    ("nb_knn", "temperature", "pictures", "message"),
    [
        ((0,), 0.07, 5, "--nb_knn"),
        ((), 0.07, 5, "--nb_knn"),
        ((3,), 0.0, 5, "--temperature"),
        ((3,), 0.07, 1, "at least two"),
    ],
)
def test_impossible_requests(nb_knn: tuple[int, ...], temperature: float, pictures: int, message: str) -> None:
    features = torch.randn(pictures, 3)
    with pytest.raises(UserError, match=message):
        knn_accuracy(features, torch.zeros(pictures, dtype=torch.int64), nb_knn=nb_knn, temperature=temperature)


def paint(path: Path, colour: tuple[int, int, int], seed: int) -> None:
    noise = np.random.default_rng(seed).integers(-20, 20, (40, 50, 3))
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.clip(np.array(colour) + noise, 0, 255).astype(np.uint8)).save(path)


COLOURS = {"red": (200, 30, 30), "green": (30, 200, 30), "blue": (30, 30, 200)}


def paint_classes(root: Path, count: int, names: dict[str, str] | None = None) -> None:
    for number, (colour, rgb) in enumerate(COLOURS.items()):
        for index in range(count):
            paint(root / (names or {}).get(colour, colour) / f"{index}.png", rgb, 100 * number + index)


def settings(path: Path, **others: Any) -> KnnConfig:
    # Random convolutions tell plain colours apart, and no weights are needed.
    return KnnConfig(data_path=str(path), arch="vit_tiny", patch_size=56, num_workers=0, nb_knn=(1, 2), **others)


def test_run_on_train_and_val(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    paint_classes(tmp_path / "train", 3)
    # The extra class comes first in val/ and moves every number there: names must be matched.
    paint_classes(tmp_path / "val", 2, {"green": "a new one"})
    output = tmp_path / "new" / "knn.json"
    result = knn.run(settings(tmp_path, output=str(output)))
    assert result["knn"] == {k: (pytest.approx(200 / 3), pytest.approx(200 / 3)) for k in (1, 2)}
    assert (result["train_pictures"], result["val_pictures"], result["leave_one_out"]) == (9, 6, False)
    printed = capsys.readouterr().out
    assert "a new one" in printed
    assert f"1-NN classifier result: Top1: {result['knn'][1][0]}, Top5: {result['knn'][1][1]}" in printed
    assert json.loads(output.read_text())["knn"]["1"] == list(result["knn"][1])


def test_run_leave_one_out_skips_the_unreadable_and_the_unlabelled(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    paint_classes(tmp_path, 3)
    paint(tmp_path / "stray.png", (0, 0, 0), 0)
    (tmp_path / "red" / "broken.jpg").write_bytes(b"no picture")
    result = knn.run(settings(tmp_path))
    assert result["knn"] == {1: (100.0, 100.0), 2: (100.0, 100.0)}
    assert (result["train_pictures"], result["leave_one_out"], result["skipped"]) == (9, True, 1)
    printed = capsys.readouterr().out
    assert "leave-one-out" in printed
    assert "red/broken.jpg" in printed
    assert "1 pictures in" in printed


@pytest.mark.parametrize("with_val", [True, False])
def test_saved_features_give_the_same_numbers(tmp_path: Path, with_val: bool) -> None:
    data, saved = tmp_path / "data", tmp_path / "saved"
    for part in ("train", "val") if with_val else ("",):
        paint_classes(data / part, 3)
    measured = knn.run(settings(data, dump_features=str(saved)))
    assert (saved / "testfeat.pth").exists() == with_val
    loaded = knn.run(settings(tmp_path / "nothing", load_features=str(saved)))
    assert loaded["knn"] == measured["knn"]
    lengths = torch.load(saved / "trainfeat.pth", weights_only=True).norm(dim=1)
    assert torch.allclose(lengths, torch.ones(9))


def test_sets_that_cannot_be_measured(tmp_path: Path) -> None:
    paint(tmp_path / "flat" / "a.png", (1, 2, 3), 0)
    with pytest.raises(UserError, match="no class folders"):
        knn.run(settings(tmp_path / "flat"))
    paint_classes(tmp_path / "half" / "train", 1)
    with pytest.raises(UserError, match="no val/"):
        knn.run(settings(tmp_path / "half"))
    paint_classes(tmp_path / "whole", 1)
    for name, value in (("batch_size_per_gpu", 0), ("num_workers", -1)):
        with pytest.raises(UserError, match=f"--{name} is {value}"):
            knn.run(KnnConfig(data_path=str(tmp_path / "whole"), arch="vit_tiny", **{name: value}))
    with pytest.raises(UserError, match="no trainfeat"):
        knn.run(settings(tmp_path, load_features=str(tmp_path)))
    (tmp_path / "damaged").mkdir()
    for name in ("trainfeat.pth", "trainlabels.pth"):
        (tmp_path / "damaged" / name).write_bytes(b"PK not a tensor")
    with pytest.raises(UserError, match="dump the features again"):
        knn.run(settings(tmp_path, load_features=str(tmp_path / "damaged")))


def test_output_that_cannot_be_written(tmp_path: Path) -> None:
    paint_classes(tmp_path / "data", 2)
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="--output"):
        knn.run(settings(tmp_path / "data", output=str(tmp_path / "file" / "knn.json")))
