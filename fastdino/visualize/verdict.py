"""Did it work? A run's numbers in plain words, with what to try where they look bad."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

Tone = Literal["good", "watch", "bad"]

# Below these many nats teacher and student give the same answer to every picture, whatever it shows.
ONE_HOT_NATS = 0.05
# `train_feature_std` is near 1 for features that point everywhere and 0 for features that all point one way;
# untrained networks begin between 0.15 (resnet18) and 0.8 (vit_tiny).
COLLAPSED_STD = 0.01
SHRUNK_STD = 0.25
# Points of k-NN accuracy that a few hundred pictures can tell from chance, and that a newcomer would call
# learning.
SAME_KNN = 1.0
CLEAR_KNN = 5.0
SLOW_DATA = 0.25
# Keys of log.txt in percent: after an epoch, and before the first one.
KNN_KEY = "knn_top1"
UNTRAINED_KEY = "knn_top1_random_init"


class Fall(NamedTuple):
    """k-NN accuracy in percent when it was best and when it was measured last, and after which epochs that was."""

    best_epoch: int
    best: float
    last_epoch: int
    last: float


@dataclass(frozen=True)
class Health:
    """`tone` for a colour, the most important sentence first."""

    tone: Tone
    sentences: list[str]


def health_sentences(log: Sequence[Mapping[str, Any]], out_dim: int, knn: Mapping[str, Any] | None = None) -> list[str]:
    """The honest word on a run: whether it learnt, and what to try if not. See `health`."""
    return health(log, out_dim, knn).sentences


def health(log: Sequence[Mapping[str, Any]], out_dim: int, knn: Mapping[str, Any] | None = None) -> Health:
    """Judge a run by the lines of its log.txt and, where measured, by k-NN.

    `knn` has accuracies in percent: `knn_top1`, and for comparison `knn_top1_random_init` and
    `knn_top1_pixels`.
    """
    if not log:
        return Health("watch", ["No epoch has been finished yet, so there is nothing to judge."])
    failure = _failure(log, out_dim)
    fall = fall_of(log, (knn or {}).get("pictures"))
    fallen = [] if fall is None else words_on_fall(fall)
    if failure:
        return Health("bad", [*failure, *fallen[:1], *_comparison(knn)[1]])
    tone, sentences = _comparison(knn)
    if fallen:
        # Not what else to try: it went well until then.
        return Health("bad" if tone == "bad" else "watch", [*fallen, *sentences[:1], *_warnings(log)])
    if not sentences:
        tone, sentences = "good" if len(log) > 1 else "watch", _unmeasured(log, out_dim)
    warnings = _warnings(log)
    if warnings and tone == "good":
        tone = "watch"
    return Health(tone, [*sentences, *warnings, *_hints(log)])


def _failure(log: Sequence[Mapping[str, Any]], out_dim: int) -> list[str]:
    """What went wrong and what to try; empty if nothing did."""
    for line in log:
        if not math.isfinite(number(line, "train_loss", 0.0)):
            return [
                f"The loss stopped being a number in epoch {line.get('epoch', '?')}: training diverged, and "
                "checkpoints from there on are worthless.",
                "Try half the learning rate (--lr), a longer --warmup_epochs, --clip_grad 0.3, or "
                "--precision bf16 instead of fp16.",
            ]
    last, uniform = log[-1], math.log(out_dim)
    loss, entropy, kl, spread = (
        number(last, key) for key in ("train_loss", "train_teacher_entropy", "train_kl", "train_feature_std")
    )
    at_uniform = abs(loss - uniform) < 0.01 * uniform
    if at_uniform and not entropy < 0.99 * uniform:
        return [
            f"Nothing was learnt: the loss ({loss:.3f}) sits at ln({out_dim}) = {uniform:.3f}, the score of "
            "a network that gives every picture the same uniform answer.",
            "Early in a run this is normal. If it stays, try a lower --warmup_teacher_temp and "
            "--teacher_temp (0.03), a higher --freeze_last_layer (2 or 3), or a smaller --out_dim.",
        ]
    if at_uniform:
        return [
            f"The student has not begun to follow its teacher: the loss ({loss:.3f}) still sits at "
            f"ln({out_dim}) = {uniform:.3f}.",
            "Train for more epochs; if it stays there, try a higher --lr or a shorter --warmup_epochs.",
        ]
    if entropy < ONE_HOT_NATS and kl < ONE_HOT_NATS:
        return [
            "The network collapsed: teacher and student give every picture the same single answer (entropy "
            f"{entropy:.3f} and KL {kl:.3f}, both near 0), so the low loss means nothing.",
            "Try a higher --teacher_temp (0.06) reached over some --warmup_teacher_temp_epochs, a higher "
            "--momentum_teacher, or a lower --lr.",
        ]
    if spread < COLLAPSED_STD:
        return [
            f"The features collapsed: they are the same for every picture (spread {spread:.4f}, where "
            "useful features have 0.1 to 1).",
            "Try a lower --lr, a longer --warmup_epochs, or a higher --momentum_teacher.",
        ]
    return []


def _comparison(knn: Mapping[str, Any] | None) -> tuple[Tone, list[str]]:
    """The k-NN accuracy against the baselines that were measured; no sentence where it was not."""
    top1, random_init, pixels = (
        number(knn or {}, key) for key in ("knn_top1", "knn_top1_random_init", "knn_top1_pixels")
    )
    if math.isnan(top1):
        return "watch", []
    numbers = knn_in_words(top1)
    others = {"an untrained network": random_init, "plain pixels": pixels}
    known = [f"{value:.1f} % with {name}" for name, value in others.items() if not math.isnan(value)]
    if not known:
        return "good", [f"{numbers[0].upper()}{numbers[1:]}."]
    numbers += f", against {' and '.join(known)}"
    gain = top1 - (pixels if math.isnan(random_init) else random_init)
    if gain <= -SAME_KNN:
        return "bad", [
            f"Training made the features worse: {numbers}.",
            "Try more epochs, milder --color_jitter or larger --local_crops_scale, if colour or context is "
            "what tells the pictures apart.",
        ]
    if gain < SAME_KNN:
        return "watch", [f"No gain yet: {numbers}.", "Train for more epochs, or on more pictures."]
    if pixels > top1 + SAME_KNN:
        return "watch", [
            f"It learnt something, but plain pixels still do better: {numbers}.",
            "Train for more epochs, or use --global_crops_scale and --color_jitter that leave the pictures "
            "more as they are.",
        ]
    if gain < CLEAR_KNN:
        return "watch", [
            f"It learnt a little: {numbers}.",
            "More epochs or more pictures should widen the gap.",
        ]
    return "good", [f"It worked: {numbers}."]


def knn_in_words(top1: float) -> str:
    """An accuracy in percent."""
    return f"nearest neighbours name the right class for {top1:.1f} % of the pictures"


def fall_of(log: Sequence[Mapping[str, Any]], pictures: int | None = None) -> Fall | None:
    """Where the last measured k-NN accuracy is clearly below the best: by more than chance makes of so many pictures,
    which are the same each time.
    """
    measured = [(value, int(line["epoch"])) for line in log if math.isfinite(value := number(line, KNN_KEY))]
    if not measured:
        return None
    (best, best_epoch), (last, last_epoch) = max(measured, key=lambda one: one[0]), measured[-1]
    chance = by_chance(best, last, pictures, pictures) if pictures else 0.0
    return Fall(best_epoch, best, last_epoch, last) if best - last > max(CLEAR_KNN, chance) else None


def by_chance(first: float, second: float, pictures: int, others: int) -> float:
    """Points that chance alone may put between two accuracies in percent, one of `pictures` and one of `others`.

    Two standard deviations of the difference between two binomial shares; asked of the same pictures it is smaller.
    """
    share = (first * pictures + second * others) / (100 * (pictures + others))
    return 200 * math.sqrt(share * (1 - share) * (1 / pictures + 1 / others))


def words_on_fall(fall: Fall) -> list[str]:
    """What happened, and what to do."""
    return [
        f"It was better before: after epoch {fall.best_epoch} (counted from 0, as in log.txt) nearest neighbours named "
        f"the right class for {fall.best:.1f} % of the pictures, after epoch {fall.last_epoch} for {fall.last:.1f} %.",
        "Use a checkpoint from then, if one was kept (--saveckp_freq), and for the next run try a lower --lr, a longer "
        "--warmup_epochs, a higher --momentum_teacher, or fewer --epochs.",
    ]


def _unmeasured(log: Sequence[Mapping[str, Any]], out_dim: int) -> list[str]:
    first, last = number(log[0], "train_loss"), number(log[-1], "train_loss")
    uniform = f"nothing learnt would be {math.log(out_dim):.3f}"
    if len(log) == 1:
        return [f"One epoch is finished, with loss {last:.3f} ({uniform}); a trend takes a few more."]
    return [
        f"The run looks healthy: the loss went from {first:.3f} to {last:.3f} ({uniform}), and no sign of collapse.",
        "How good the features are only a measurement tells: run fastdino knn on pictures in class folders.",
    ]


def _warnings(log: Sequence[Mapping[str, Any]]) -> list[str]:
    spreads = [value for line in log if math.isfinite(value := number(line, "train_feature_std"))]
    if spreads and spreads[-1] < SHRUNK_STD * max(spreads):
        return [
            f"The features have drawn together, from a spread of {max(spreads):.3f} to {spreads[-1]:.3f}: "
            "if that goes on, they collapse. An earlier checkpoint may be better; try a lower --lr or a "
            "higher --momentum_teacher."
        ]
    return []


def _hints(log: Sequence[Mapping[str, Any]]) -> list[str]:
    hints = []
    if still_falling([number(line, "train_loss") for line in log]):
        hints.append("The loss was still falling at the end: more --epochs will probably help.")
    waits = [value for line in log if math.isfinite(value := number(line, "data_wait"))]
    if waits and statistics.median(waits) > SLOW_DATA:
        hints.append(
            f"{statistics.median(waits):.0%} of the time went into waiting for pictures: raise "
            "--num_workers up to the number of cores, or store the pictures smaller."
        )
    return hints


def still_falling(losses: Sequence[float]) -> bool:
    """Whether the last fifth of a curve fell by more than 2 % of the whole fall, and steadily."""
    if len(losses) < 10:
        return False
    fifth = max(2, len(losses) // 5)
    before, after = statistics.fmean(losses[-2 * fifth : -fifth]), statistics.fmean(losses[-fifth:])
    return before - after > 0.02 * (max(losses) - min(losses)) and losses[-1] < before


def number(line: Mapping[str, Any], key: str, default: float = math.nan) -> float:
    """`line[key]` as a float; `default` where it is missing, NaN where it is null or no number."""
    value = line.get(key, default)
    return float(value) if isinstance(value, (int, float)) else math.nan
