"""Linear classification on frozen features (paper, section 4.1), computed once or, as in the original, every epoch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from fastdino.config import LinearConfig
from fastdino.errors import UserError
from fastdino.evaluate.extractor import Extractor, extractor
from fastdino.evaluate.features import report_skipped
from fastdino.evaluate.linear_classifier import PIECE, LinearClassifier, load_classifier, save_classifier
from fastdino.evaluate.linear_crops import train_on_crops
from fastdino.evaluate.linear_data import LinearData, hold_out, measure_tokens
from fastdino.evaluate.linear_grid import train_grid
from fastdino.evaluate.output import write_numbers, writing_to

# The original's learning rate, for its protocol without --lr.
ORIGINAL_RATE = 0.001
DIVERGED = "the classifier diverged with every learning rate: give lower --lr"


def linear_accuracy(
    train_features: Tensor,
    train_labels: Tensor,
    test_features: Tensor,
    test_labels: Tensor,
    learning_rates: Sequence[float] = LinearConfig.lr,
    *,
    epochs: int = 100,
    batch_size: int = 128,
    seed: int = 0,
) -> dict[str, Any]:
    """Train on features (n, D), labels (n,) int64, and measure once on (m, D), (m,): `LinearClassifier.accuracy`'s
    numbers and the learning rate chosen, `lr`. Raises UserError as `train_classifier` does.
    """
    classifier, rate = train_classifier(
        train_features, train_labels, learning_rates, epochs=epochs, batch_size=batch_size, seed=seed
    )
    return {**classifier.accuracy(test_features, test_labels), "lr": rate}


def train_classifier(
    features: Tensor,
    labels: Tensor,
    learning_rates: Sequence[float],
    *,
    classes: int | None = None,
    epochs: int = 100,
    batch_size: int = 128,
    seed: int = 0,
) -> tuple[LinearClassifier, float]:
    """The classifier of features (n, D), labels (n,) int64, trained with the best of the learning rates, and that rate.

    The best one is right most often on a fifth of each class held out, with the lower cross-entropy where several are;
    then all pictures train. Without a class of two pictures the training pictures themselves decide. Raises UserError
    for fewer than two classes, settings that are not positive, features with NaN, and when all rates diverge.
    """
    _check_settings(learning_rates, epochs, batch_size)
    _check_features(features, labels)
    classes = classes or int(labels.max()) + 1
    rate = learning_rates[0]
    if len(learning_rates) > 1:
        held_out = hold_out(labels, seed)
        tested = held_out if held_out.any() else ~held_out
        grid = train_grid(
            features[~held_out],
            labels[~held_out],
            classes,
            learning_rates,
            epochs=epochs,
            batch_size=batch_size,
            seed=seed,
        )
        right = torch.zeros(len(learning_rates))
        loss = torch.zeros(len(learning_rates))
        for piece, wanted in zip(features[tested].split(PIECE), labels[tested].split(PIECE), strict=True):
            logits = grid.logits(piece)
            right += (logits.argmax(dim=-1) == wanted[:, None]).sum(dim=0).cpu()
            chosen = logits.log_softmax(dim=-1).gather(2, wanted[:, None, None].expand(-1, len(right), 1))
            loss -= chosen.sum(dim=(0, 2)).cpu()
        finite = [index for index in range(len(right)) if loss[index].isfinite()]
        if not finite:
            raise UserError(DIVERGED)
        rate = learning_rates[max(finite, key=lambda index: (float(right[index]), -float(loss[index])))]
    grid = train_grid(features, labels, classes, (rate,), epochs=epochs, batch_size=batch_size, seed=seed)
    classifier = LinearClassifier(grid.weight[0].T.contiguous(), grid.bias[0])
    if not (classifier.weight.isfinite().all() and classifier.bias.isfinite().all()):
        raise UserError(DIVERGED)
    return classifier, rate


def run(config: LinearConfig) -> dict[str, Any]:
    """The command `fastdino linear`: train and measure a linear classifier, print and return the numbers.

    Returns `linear` as `linear_accuracy` does, with class names in `per_class`, and `train_pictures`, `val_pictures`,
    `classes`, `split` (whether the test part was split off) and `skipped`; by the original's protocol `linear` has
    `by_epoch`, top-1 of the epochs measured, and `best`, the highest. `output` gets the same as JSON. Raises UserError
    for everything that the user can mend.
    """
    classifier = load_classifier(config.pretrained_linear) if config.pretrained_linear else None
    if classifier is None:
        _check_config(config)
    with extractor(config) as extract:
        data = measure_tokens(config, extract, trained_classes=None if classifier is None else len(classifier.bias))
        console, device = extract.console, extract.device
        for note in data.notes:
            console.print(note, markup=False, soft_wrap=True)
        report_skipped(console, data.skipped)
        trained: dict[str, Any] = {"lr": None}
        if classifier is None:
            classifier, trained = _train(config, extract, data)
            if extract.world.is_main:
                with writing_to(config.output_dir, "--output_dir") as folder:
                    folder.mkdir(parents=True, exist_ok=True)
                    save_classifier(classifier, folder / "linear.pth")
    if classifier.weight.shape[1] != data.test.features.shape[1]:
        raise UserError(
            f"{config.pretrained_linear} takes {classifier.weight.shape[1]} features and the backbone gives "
            f"{data.test.features.shape[1]}: give the --n_last_blocks and --avgpool_patchtokens of its training"
        )
    classifier = LinearClassifier(classifier.weight.to(device), classifier.bias.to(device))
    measured = classifier.accuracy(data.test.features.to(device), data.test.labels.to(device))
    measured["per_class"] = {data.class_names[label]: value for label, value in measured["per_class"].items()}
    top5 = f", Top5: {measured['top5']}" if "top5" in measured else ""
    chosen = "" if trained["lr"] is None else f" (learning rate {trained['lr']:g})"
    console.print(f"Linear classifier result: Top1: {measured['top1']}{top5}{chosen}", markup=False, soft_wrap=True)
    if "best" in trained:
        console.print(f"Best of the epochs measured: Top1: {trained['best']}", markup=False, soft_wrap=True)
    result = {"linear": {**measured, **trained}, **data.counts()}
    if extract.world.is_main:
        write_numbers(result, config.output)
    return result


def _train(config: LinearConfig, extract: Extractor, data: LinearData) -> tuple[LinearClassifier, dict[str, Any]]:
    """The classifier, and what is known of its training."""
    if config.protocol == "original":
        _check_features(data.train.features, data.train.labels)
        (rate,) = (ORIGINAL_RATE,) if config.lr == LinearConfig.lr else config.lr
        classifier, by_epoch = train_on_crops(
            extract, data, rate=rate, epochs=config.epochs, val_freq=config.val_freq, seed=config.seed
        )
        return classifier, {"lr": rate, "by_epoch": by_epoch, "best": max(by_epoch.values())}
    classifier, rate = train_classifier(
        data.train.features.to(extract.device),
        data.train.labels.to(extract.device),
        config.lr,
        classes=data.train_classes,
        epochs=config.epochs,
        batch_size=config.batch_size_per_gpu,
        seed=config.seed,
    )
    return classifier, {"lr": rate}


def _check_config(config: LinearConfig) -> None:
    _check_settings(config.lr, config.epochs, config.batch_size_per_gpu)
    if config.protocol == "original" and config.lr != LinearConfig.lr and len(config.lr) > 1:
        raise UserError(
            f"--protocol original takes one --lr, not {len(config.lr)}: it has no pictures held out to choose by"
        )
    if config.val_freq < 1:
        raise UserError(f"--val_freq is {config.val_freq}: give a number of epochs from 1 on")


def _check_settings(learning_rates: Sequence[float], epochs: int, batch_size: int) -> None:
    if not learning_rates or min(learning_rates) <= 0:
        raise UserError(f"--lr is {' '.join(map(str, learning_rates)) or 'empty'}: give learning rates above 0")
    if epochs < 1 or batch_size < 1:
        raise UserError("--epochs and --batch_size_per_gpu must be at least 1")


def _check_features(features: Tensor, labels: Tensor) -> None:
    if len(labels.unique()) < 2:
        raise UserError("a linear classifier tells classes apart: give training pictures of at least two classes")
    if not features.isfinite().all():
        raise UserError("the features hold NaN or infinity: the backbone has diverged, give another checkpoint")
