"""Which run is better, and how sure that is, in plain words."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from fastdino.visualize.comparison.differences import effective
from fastdino.visualize.comparison.reading import Knn, Run
from fastdino.visualize.comparison.remarks import joined, remarks
from fastdino.visualize.verdict import SAME_KNN, by_chance, number

# What the size of a loss depends on, besides how well the student does.
LOSS_SETTINGS = (
    "out_dim",
    "warmup_teacher_temp",
    "teacher_temp",
    "warmup_teacher_temp_epochs",
    "local_crops_number",
    "global_crops_scale",
    "local_crops_scale",
    "color_jitter",
    "global_size",
    "local_size",
)
MEASURE = (
    "Measure them alike: fastdino knn --data_path FOLDER_OF_CLASS_FOLDERS --pretrained_weights RUN/checkpoint.pth for "
    "each."
)


@dataclass(frozen=True)
class Judgement:
    """`tone` is "good" for a clear answer; the most important sentence comes first."""

    tone: Literal["good", "watch"]
    sentences: list[str]


@dataclass(frozen=True)
class Measured:
    """A run with its k-NN accuracy."""

    run: Run
    knn: Knn


def judge(runs: Sequence[Run]) -> Judgement:
    """The runs' k-NN accuracies compared where they can be; where not, why not and what to do."""
    measured = [Measured(run, run.knn) for run in runs if run.knn is not None]
    ranked = max(_alike(measured), key=len, default=[])
    if len(ranked) > 1:
        clear, sentences = _ranking(ranked, len(runs))
        left_out = [one for one in measured if one not in ranked]
        if left_out:
            sentences.append(f"{_not_alike(ranked[0], left_out[0])} {MEASURE}")
        unmeasured = [run.letter for run in runs if run.knn is None]
        if unmeasured:
            sentences.append(f"{joined(unmeasured)}: not measured, so left out of this answer.")
    else:
        clear, sentences = False, _unranked(runs, measured)
    best = max(ranked, key=lambda one: one.knn.top1).run if clear else None
    sure = best is not None and all(one.knn.known for one in ranked)
    failed = best is not None and best.judgement is not None and best.judgement.tone == "bad"
    return Judgement(
        "good" if sure and not failed else "watch",
        [*sentences, *remarks(runs, [one.run for one in ranked], effective(runs), clear=clear)],
    )


def _ranking(ranked: Sequence[Measured], runs: int) -> tuple[bool, list[str]]:
    """Whether one is better than all others by more than chance, and the words for it."""
    best, *others = sorted(ranked, key=lambda one: -one.knn.top1)

    def chance(one: Measured) -> float:
        return by_chance(best.knn.top1, one.knn.top1, best.knn.pictures, one.knn.pictures)

    tied = [one for one in others if best.knn.top1 - one.knn.top1 <= chance(one)]
    worse = [one for one in others if one not in tied]
    if tied:
        equal = [best, *tied]
        pictures = min(one.knn.pictures for one in equal)
        figures = joined([f"{one.knn.top1:.1f} % in {one.run.title}" for one in equal])
        room = f"with {pictures} pictures up to {max(map(chance, tied)):.1f} points may be chance"
        if len({one.knn.top1 for one in equal}) == 1:
            room = "that is the same"
        sentences = [
            f"No clear winner: the share of pictures whose class nearest neighbours name is {figures}; {room}."
        ]
        if worse:
            behind = joined([f"{one.run.title} with {one.knn.top1:.1f} %" for one in worse])
            sentences.append(f"Clearly behind {best.run.letter}: {behind}.")
        sentences.append(
            "To tell them apart, measure more pictures with fastdino knn, or repeat them with another --seed."
        )
    else:
        against = joined([f"{one.knn.top1:.1f} % for {one.run.title}" for one in worse])
        sentences = [
            f"{best.run.title} is {'better' if runs == 2 else 'best'}: nearest neighbours name the right class for "
            f"{best.knn.top1:.1f} % of its pictures against {against}."
        ]
    unknown = [one.run.letter for one in ranked if not one.knn.known]
    if unknown:
        sentences.append(
            f"What {joined(unknown)} {'was' if len(unknown) == 1 else 'were'} measured on is not known: taken for the "
            "same pictures, as many as the report measures."
        )
    return not tied, sentences


def _alike(measured: Sequence[Measured]) -> list[list[Measured]]:
    """Groups that were measured in the same way, as far as is known."""
    groups: list[list[Measured]] = []
    for one in measured:
        group = next((group for group in groups if all(_same(one.knn, other.knn) for other in group)), None)
        if group is None:
            groups.append([one])
        else:
            group.append(one)
    return groups


def _same(first: Knn, second: Knn) -> bool:
    return not _other_pictures(first, second) and not _other_k(first, second)


def _other_k(first: Knn, second: Knn) -> bool:
    return first.k is not None and second.k is not None and first.k != second.k


def _other_pictures(first: Knn, second: Knn) -> bool:
    if first.measured_on and second.measured_on and first.measured_on != second.measured_on:
        return True
    # Bare pixels give the same answers whatever was trained, so they tell pictures of the same names apart.
    return (first.known and second.known and first.pictures != second.pictures) or abs(
        first.pixels - second.pixels
    ) > SAME_KNN


def _not_alike(first: Measured, second: Measured) -> str:
    """Why two measurements cannot be compared."""
    figures = joined([f"{one.run.title} {one.knn.top1:.1f} %" for one in (first, second)])
    if _other_pictures(first.knn, second.knn):
        return f"{figures} cannot be compared: they were measured on other pictures."
    return f"{figures} cannot be compared: one is by {first.knn.k} nearest neighbours, the other by {second.knn.k}."


def _unranked(runs: Sequence[Run], measured: Sequence[Measured]) -> list[str]:
    """Why no run can be called better, and what the numbers do say."""
    if len(measured) > 1:
        first, second = measured[:2]
        gains = [
            f"{one.run.letter} {one.knn.top1 - one.knn.untrained:+.1f} points"
            for one in measured
            if math.isfinite(one.knn.untrained)
        ]
        over = [f"Over their own untrained networks they gained: {', '.join(gains)}."] if len(gains) > 1 else []
        return [f"Which is better cannot be said. {_not_alike(first, second)}", *over, MEASURE]
    failed = [run for run in runs if run.judgement is not None and run.judgement.tone == "bad"]
    if failed and len(failed) < len(runs):
        others = joined([run.title for run in runs if run not in failed])
        return [f"{joined([run.title for run in failed])} went wrong, and nothing of the kind is seen of {others}."]
    if measured:
        one = measured[0]
        return [
            f"Which is better cannot be said: only {one.run.title} was measured, and nearest neighbours name the right "
            f"class for {one.knn.top1:.1f} % of its pictures.",
            MEASURE,
        ]
    return [*_losses(runs), MEASURE]


def _losses(runs: Sequence[Run]) -> list[str]:
    lead = "Which is better cannot be said: there are only losses, and "
    unknown = [run.letter for run in runs if not run.config]
    if unknown:
        return [
            f"{lead}whether they can be compared is not known: the settings of {joined(unknown)} are missing. A lower "
            "loss need not mean better features."
        ]
    if not any(math.isfinite(number(run.log[-1], "train_loss")) for run in runs):
        return ["Which is better cannot be said: no run ends with a loss that is a number."]
    other = [row.name for row in effective(runs) if row.name in LOSS_SETTINGS]
    if other:
        return [f"{lead}losses with other {joined(other)} cannot be compared."]
    ends = sorted((number(run.log[-1], "train_loss"), run.title) for run in runs)
    figures = ", ".join(f"{loss:.3f} for {title}" for loss, title in ends)
    return [f"{lead}a lower loss need not mean better features: at the end {figures}."]
