from __future__ import annotations

import math
import re
from typing import Any

import pytest

from fastdino.config import TrainConfig
from fastdino.visualize.verdict import Fall, Health, fall_of, health, health_sentences, still_falling

OUT_DIM = 4096
UNIFORM = math.log(OUT_DIM)


def log(epochs: int = 30, **changes: Any) -> list[dict[str, Any]]:
    """A run that learns and settles; `changes` replace values of the last epoch."""
    lines = [
        {
            "epoch": epoch,
            "train_loss": UNIFORM * (0.4 + 0.6 * math.exp(-epoch)),
            "train_teacher_entropy": UNIFORM * (0.35 + 0.6 * math.exp(-epoch)),
            "train_kl": UNIFORM * 0.05,
            "train_feature_std": 0.5,
            "images_per_second": 100.0,
            "data_wait": 0.02,
        }
        for epoch in range(epochs)
    ]
    lines[-1] |= changes
    return lines


def knn(top1: float, random_init: float | None = None, pixels: float | None = None) -> dict[str, Any]:
    return {"knn_top1": top1, "knn_top1_random_init": random_init, "knn_top1_pixels": pixels}


def says(judgement: Health, tone: str, *words: str) -> None:
    assert judgement.tone == tone
    for word in words:
        assert word in judgement.sentences[0]


def test_a_good_run_is_called_one() -> None:
    judgement = health(log(), OUT_DIM, knn(80, 60, 30))
    says(judgement, "good", "It worked", "80.0 %", "60.0 %", "30.0 %")
    assert len(judgement.sentences) == 1
    says(health(log(), OUT_DIM), "good", "healthy")
    assert health_sentences(log(), OUT_DIM) == health(log(), OUT_DIM).sentences


@pytest.mark.parametrize("entropy", [UNIFORM * 0.999, None])
def test_uniform_collapse(entropy: float | None) -> None:
    lines = log(train_loss=UNIFORM * 1.005, train_teacher_entropy=entropy, train_kl=0.001)
    says(health(lines, OUT_DIM), "bad", "Nothing was learnt", "ln(4096) = 8.318")


def test_a_student_that_does_not_follow_is_not_a_collapse() -> None:
    lines = log(train_loss=UNIFORM * 0.995, train_teacher_entropy=UNIFORM / 2, train_kl=UNIFORM / 2)
    says(health(lines, OUT_DIM), "bad", "student has not begun")


def test_one_hot_collapse() -> None:
    says(
        health(log(train_loss=0.02, train_teacher_entropy=0.01, train_kl=0.01), OUT_DIM),
        "bad",
        "single answer",
    )
    sharp = log(train_loss=0.5, train_teacher_entropy=0.01, train_kl=0.49)
    assert health(sharp, OUT_DIM).tone == "good"


def test_collapsed_and_shrinking_features() -> None:
    says(health(log(train_feature_std=0.001), OUT_DIM), "bad", "features collapsed")
    shrunk = health(log(train_feature_std=0.1), OUT_DIM, knn(80, 60))
    says(shrunk, "watch", "It worked")
    assert "drawn together" in shrunk.sentences[1]


@pytest.mark.parametrize("value", [math.nan, math.inf, None])
def test_divergence_is_dated_even_if_later_epochs_look_fine(value: float | None) -> None:
    lines = log()
    lines[7]["train_loss"] = value
    says(health(lines, OUT_DIM), "bad", "stopped being a number in epoch 7")


def test_a_collapse_with_knn_tells_both() -> None:
    sentences = health(log(train_feature_std=0.001), OUT_DIM, knn(40, 60)).sentences
    assert "features collapsed" in sentences[0]
    assert any("40.0 %" in sentence for sentence in sentences[1:])


@pytest.mark.parametrize(
    ("numbers", "tone", "words"),
    [
        (knn(63, 60, 30), "watch", "learnt a little"),
        (knn(60.2, 60, 30), "watch", "No gain yet"),
        (knn(50, 60, 30), "bad", "worse"),
        (knn(70, 60, 85), "watch", "plain pixels still do better"),
        (knn(70, None, 40), "good", "It worked"),
        (knn(70), "good", "Nearest neighbours name the right class for 70.0 %"),
    ],
)
def test_knn_against_what_was_measured(numbers: dict[str, Any], tone: str, words: str) -> None:
    says(health(log(), OUT_DIM, numbers), tone, words)


def measured(*values: float | None) -> list[dict[str, Any]]:
    """A run of which these accuracies were measured, None for an epoch that was not."""
    lines = log(len(values))
    return [line if value is None else line | {"knn_top1": value} for line, value in zip(lines, values, strict=True)]


def test_a_fall_is_dated_and_no_other_remedy_given() -> None:
    falling = [line | {"train_loss": 8 - 0.1 * line["epoch"]} for line in measured(60, None, 80, *[None] * 12, 30)]
    judgement = health(falling, OUT_DIM, knn(30, 20) | {"pictures": 500})
    says(judgement, "watch", "better before: after epoch 2 ", "80.0 %", "after epoch 15 for 30.0 %")
    assert "checkpoint" in judgement.sentences[1]
    assert "30.0 %" in judgement.sentences[2]
    assert not any("more" in sentence.lower() for sentence in judgement.sentences)
    assert health(falling, OUT_DIM, knn(30, 70)).tone == "bad"
    collapsed = [*falling[:-1], falling[-1] | {"train_feature_std": 0.001}]
    assert "after epoch 2 " in health(collapsed, OUT_DIM, knn(30, 70)).sentences[2]


def test_chance_is_no_fall() -> None:
    assert fall_of(measured(70, 80, 74)) == Fall(1, 80, 2, 74)
    # Two standard deviations of the difference: about 20 points of 40 pictures, 5.3 points of 500.
    assert fall_of(measured(70, 80, 62), 40) is None
    assert fall_of(measured(70, 80, 58), 40) is not None
    assert fall_of(measured(70, 80, 74), 500) is not None
    assert fall_of(measured(70, 80, 75.5)) is None
    assert fall_of(measured(50, 60, 70)) is None
    assert fall_of(log()) is None


def test_slow_data_and_falling_loss_are_hints_not_alarms() -> None:
    lines = [line | {"data_wait": 0.4, "train_loss": 8 - 0.1 * line["epoch"]} for line in log()]
    judgement = health(lines, OUT_DIM, knn(80, 60))
    says(judgement, "good", "It worked")
    assert "still falling" in judgement.sentences[1]
    assert "40%" in judgement.sentences[2]


def test_short_and_empty_logs() -> None:
    says(health([], OUT_DIM), "watch", "No epoch")
    says(health(log(1, train_loss=7.0), OUT_DIM), "watch", "One epoch")


def test_still_falling() -> None:
    assert still_falling([10 - 0.1 * epoch for epoch in range(40)])
    assert not still_falling([2 + 8 * math.exp(-epoch) for epoch in range(40)])
    assert not still_falling([5.0] * 40)
    assert not still_falling([5.0, 4.0])


def test_every_flag_that_is_recommended_exists() -> None:
    failures: list[dict[str, Any]] = [
        {"train_loss": math.nan},
        {"train_loss": UNIFORM, "train_teacher_entropy": UNIFORM},
        {"train_loss": UNIFORM, "train_teacher_entropy": 1.0},
        {"train_loss": 0.02, "train_teacher_entropy": 0.01, "train_kl": 0.01},
        {"train_feature_std": 0.001},
        {"train_feature_std": 0.1},
    ]
    sentences = [sentence for change in failures for sentence in health_sentences(log(**change), OUT_DIM)]
    for numbers in (knn(50, 60), knn(60, 60), knn(70, 60, 85)):
        sentences += health_sentences([line | {"data_wait": 0.9} for line in log()], OUT_DIM, numbers)
    sentences += health_sentences(measured(80, 10), OUT_DIM)
    flags = set(re.findall(r"--(\w+)", " ".join(sentences)))
    assert len(flags) > 8
    assert flags <= set(TrainConfig.__dataclass_fields__)
