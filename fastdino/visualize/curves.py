"""The charts of a run, from the lines of its log.txt."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from fastdino.visualize.charts import Chart, Reference, Series
from fastdino.visualize.verdict import KNN_KEY, UNTRAINED_KEY, number

Log = Sequence[Mapping[str, Any]]


def by_epoch(log: Log) -> list[Mapping[str, Any]]:
    """Lines in the order of their epochs; of an epoch that was trained twice, the later line."""
    lines = {int(number(line, "epoch")): line for line in log if math.isfinite(number(line, "epoch"))}
    return [lines[epoch] for epoch in sorted(lines)]


def training_charts(log: Log, out_dim: int | None) -> list[Chart]:
    """What was measured while training, the most telling first; `out_dim` adds the line of a network that
    learnt nothing.
    """
    epochs = [int(number(line, "epoch")) for line in log]

    def series(key: str, name: str) -> Series:
        return Series(name, [number(line, key) for line in log])

    loss_note = "How far the student is from its teacher: it should fall, but need not keep falling."
    loss_line = entropy_line = None
    if out_dim and out_dim > 1:
        uniform = math.log(out_dim)
        loss_note = (
            f"How far the student is from its teacher. It should leave the dashed line, ln({out_dim}) = "
            f"{uniform:.3f}, but need not keep falling."
        )
        loss_line = Reference(uniform, "nothing learnt / collapsed")
        entropy_line = Reference(uniform, "the teacher has no opinion")
    return [
        _knn_chart(log),
        Chart(
            "Loss",
            loss_note,
            epochs,
            [series("train_loss", "loss")],
            loss_line,
        ),
        Chart(
            "Teacher's certainty",
            "Loss = entropy (how undecided the teacher is) + KL (how far the student is behind). Neither may end at 0.",
            epochs,
            [series("train_teacher_entropy", "entropy"), series("train_kl", "KL")],
            entropy_line,
            zero=True,
        ),
        Chart(
            "Spread of the features",
            "1 when pictures point in all directions of the feature space, 0 when they all look the same "
            "to the network.",
            epochs,
            [series("train_feature_std", "spread")],
            zero=True,
        ),
        Chart(
            "Learning rate",
            "Step size: it rises while training warms up and then sinks to almost nothing.",
            epochs,
            [series("train_lr", "learning rate")],
            zero=True,
            peak=True,
        ),
        Chart(
            "Weight decay",
            "How strongly weights are pulled towards 0; it grows as training settles.",
            epochs,
            [series("train_wd", "weight decay")],
            zero=True,
        ),
        Chart(
            "Speed",
            "Pictures per second, all their crops included.",
            epochs,
            [series("images_per_second", "pictures/s")],
            zero=True,
        ),
        Chart(
            "Waiting for data",
            "Share of the time in which training stood still because no pictures were ready.",
            epochs,
            [series("data_wait", "waiting")],
            zero=True,
            percent=True,
        ),
    ]


def _knn_chart(log: Log) -> Chart:
    """Of the epochs after which it was measured: its line joins them."""
    measured = [line for line in log if math.isfinite(number(line, KNN_KEY))]
    before = next((value for line in log if math.isfinite(value := number(line, UNTRAINED_KEY))), None)
    return Chart(
        "Nearest neighbours over time",
        "Share of pictures whose class their nearest neighbours name, measured after some epochs. It should rise; if "
        "it falls, an earlier checkpoint is better.",
        [int(number(line, "epoch")) for line in measured],
        [Series("right", [number(line, KNN_KEY) / 100 for line in measured])],
        None if before is None else Reference(before / 100, "untrained network"),
        zero=True,
        percent=True,
        peak=True,
    )
