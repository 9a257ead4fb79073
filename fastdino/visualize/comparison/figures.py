"""The key figures of runs, side by side."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence

from fastdino.train.results import training_seconds
from fastdino.visualize.charts import percent, short
from fastdino.visualize.comparison.differences import UNKNOWN, Values, in_words
from fastdino.visualize.comparison.reading import Knn, Run
from fastdino.visualize.verdict import KNN_KEY, number


def key_figures(runs: Sequence[Run]) -> list[Values]:
    """What everyone asks for first, as words; figures that no run has are left out."""
    rows = [Values(name, [words(run) or UNKNOWN for run in runs]) for name, words in FIGURES.items()]
    return [row for row in rows if set(row.cells) != {UNKNOWN}]


def _of_knn(words: Callable[[Knn], str]) -> Callable[[Run], str]:
    return lambda run: words(run.knn) if run.knn is not None else ""


def _points(value: float) -> str:
    return f"{value:.1f} %" if math.isfinite(value) else ""


def _best(run: Run) -> str:
    """The highest accuracy on the way, which a checkpoint may have been kept of."""
    measured = [(value, int(line["epoch"])) for line in run.log if math.isfinite(value := number(line, KNN_KEY))]
    if not measured:
        return ""
    best, epoch = max(measured, key=lambda one: one[0])
    return f"{best:.1f} % (epoch {epoch})"


def _last(key: str) -> Callable[[Run], str]:
    def words(run: Run) -> str:
        return short(number(run.log[-1], key)) if key in run.log[-1] else ""

    return words


def _median(key: str, write: Callable[[float], str]) -> Callable[[Run], str]:
    def words(run: Run) -> str:
        values = [value for line in run.log if math.isfinite(value := number(line, key))]
        return write(statistics.median(values)) if values else ""

    return words


def _epochs(run: Run) -> str:
    done = len(run.log)
    return f"{done} of {run.planned}" if run.planned is not None and run.planned > done else str(done)


def _duration(run: Run) -> str:
    seconds = training_seconds(run.log)
    if seconds is None:
        return ""
    minutes = round(seconds / 60)
    if minutes < 1:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


FIGURES: dict[str, Callable[[Run], str]] = {
    "k-NN accuracy": _of_knn(lambda knn: _points(knn.top1)),
    "before training": _of_knn(lambda knn: _points(knn.untrained)),
    "on plain pixels": _of_knn(lambda knn: _points(knn.pixels)),
    "by guessing": _of_knn(lambda knn: _points(knn.chance)),
    "pictures measured": _of_knn(lambda knn: f"{knn.pictures:,}" if knn.known else ""),
    "neighbours (k)": _of_knn(lambda knn: str(knn.k) if knn.k is not None else ""),
    "best k-NN on the way": _best,
    "epochs": _epochs,
    "last loss": _last("train_loss"),
    "last teacher entropy": _last("train_teacher_entropy"),
    "last KL": _last("train_kl"),
    "last feature spread": _last("train_feature_std"),
    "time to train": _duration,
    "pictures a second (median)": _median("images_per_second", short),
    "waiting for data (median)": _median("data_wait", percent),
    "backbone": lambda run: in_words(run.config["arch"]) if "arch" in run.config else "",
}
