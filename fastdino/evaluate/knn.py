"""k-NN classification: the quickest honest measure of features, with nothing to train (paper, section
4.1).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fastdino.config import KnnConfig
from fastdino.errors import UserError
from fastdino.evaluate.extractor import extractor
from fastdino.evaluate.features import report_skipped
from fastdino.evaluate.knn_data import KnnData, load_features, measure_features, save_features
from fastdino.evaluate.neighbours import PIECE_BYTES, nearest
from fastdino.evaluate.output import write_numbers, writing_to

Accuracies = dict[int, tuple[float, float]]


def knn_scores(similarities: Tensor, labels: Tensor, classes: int, temperature: float) -> Tensor:
    """Votes (m, classes), float64: every neighbour gives its class exp(similarity / temperature).

    `similarities` (m, k) and `labels` int64 (m, k) are those of the neighbours, the nearest first. Each row
    is divided by its nearest neighbour's vote, which changes no ranking and keeps small temperatures finite.
    """
    weights = ((similarities - similarities[:, :1]).double() / temperature).exp()
    return weights.new_zeros(len(weights), classes).scatter_add_(1, labels, weights)


def target_ranks(votes: Tensor, targets: Tensor) -> Tensor:
    """Position (m,) of `targets` (m,) among the classes sorted by `votes` (m, classes), 0 for the first.

    Classes with equal votes, those without any among them, are in the order of their numbers: the original
    leaves that to its sorting routine, which differs between machines.
    """
    own = votes.gather(1, targets[:, None])
    earlier = torch.arange(votes.shape[1], device=votes.device) < targets[:, None]
    return ((votes > own) | ((votes == own) & earlier)).sum(dim=1)


def knn_accuracy(
    train_features: Tensor,
    train_labels: Tensor,
    test_features: Tensor | None = None,
    test_labels: Tensor | None = None,
    nb_knn: Sequence[int] = (10, 20, 100, 200),
    *,
    temperature: float = 0.07,
) -> Accuracies:
    """Top-1 and top-5 accuracy in percent of weighted k-NN, by number of neighbours, as in the original's
    eval_knn.py.

    Features are (n, D) and (m, D), of any length; labels int64 (n,) and (m,), numbered alike from 0. Without
    a test set every train picture is classified by all the others (leave-one-out). Of `nb_knn`, numbers above
    that of the pictures to vote are left out, and that number is used if none is left.

    A right answer is among the first min(5, k) classes of the ranking for top-5. Computed on the tensors'
    device. Raises UserError for a temperature or k that is not positive, fewer pictures than it takes and
    features with NaN.
    """
    if temperature <= 0:
        raise UserError(f"--temperature is {temperature}: give a number above 0, such as 0.07")
    targets = train_labels if test_labels is None else test_labels
    ks = fitting_neighbours(nb_knn, len(train_labels) - (test_features is None))
    if len(targets) == 0:
        raise UserError("there is no picture to classify: k-NN takes readable pictures in class folders")
    classes = int(torch.cat((train_labels, targets)).max()) + 1
    # The votes are float64; a piece of them is cut to the same number of bytes as the similarities.
    step = max(1, PIECE_BYTES // (8 * classes))
    right = {k: torch.zeros(2, dtype=torch.int64, device=targets.device) for k in ks}
    for rows, similarities, indices in nearest(train_features, test_features, max(ks)):
        pieces = zip(
            similarities.split(step),
            train_labels[indices].split(step),
            targets[rows].split(step),
            strict=True,
        )
        for piece, labels, wanted in pieces:
            for k in ks:
                ranks = target_ranks(knn_scores(piece[:, :k], labels[:, :k], classes, temperature), wanted)
                right[k] += torch.stack(((ranks < 1).sum(), (ranks < min(5, k)).sum()))
    return {k: (top1 * 100.0 / len(targets), top5 * 100.0 / len(targets)) for k, (top1, top5) in _numbers(right)}


def fitting_neighbours(nb_knn: Sequence[int], pictures: int) -> list[int]:
    """The values of `nb_knn` that are at most `pictures`, ascending; `pictures` itself if there is none."""
    if pictures < 1:
        raise UserError("there is no picture to compare with: k-NN takes at least two readable pictures with a class")
    if not nb_knn or min(nb_knn) < 1:
        raise UserError(f"--nb_knn is {' '.join(map(str, nb_knn)) or 'empty'}: give numbers of neighbours from 1 on")
    return sorted({k for k in nb_knn if k <= pictures}) or [pictures]


def run(config: KnnConfig) -> dict[str, Any]:
    """The command `fastdino knn`: measure a checkpoint on a folder, print and return the numbers.

    Returns `knn` {k: (top1, top5)} in percent, `train_pictures`, `val_pictures`, `classes`, `leave_one_out`
    and `skipped`; `output` gets the same as JSON. Raises UserError for everything that the user can mend.
    """
    with extractor(config) as extract:
        data = load_features(Path(config.load_features)) if config.load_features else measure_features(config, extract)
    console = extract.console
    if config.dump_features and extract.world.is_main:
        with writing_to(config.dump_features, "--dump_features") as folder:
            save_features(data, folder)
    for note in _notes(config, data):
        console.print(note, markup=False, soft_wrap=True)
    report_skipped(console, data.skipped)
    device = "cuda" if config.use_cuda and torch.cuda.is_available() else "cpu"
    accuracies = knn_accuracy(
        data.train_features.to(device),
        data.train_labels.to(device),
        None if data.val_features is None else data.val_features.to(device),
        None if data.val_labels is None else data.val_labels.to(device),
        config.nb_knn,
        temperature=config.temperature,
    )
    for k, (top1, top5) in accuracies.items():
        console.print(f"{k}-NN classifier result: Top1: {top1}, Top5: {top5}", markup=False, soft_wrap=True)
    result = {"knn": accuracies, **data.counts()}
    if extract.world.is_main:
        write_numbers(result, config.output)
    return result


def _notes(config: KnnConfig, data: KnnData) -> list[str]:
    voters = len(data.train_labels) - (data.val_labels is None)
    kept = fitting_neighbours(config.nb_knn, voters)
    left_out = [str(k) for k in config.nb_knn if k not in kept]
    notes = list(data.notes)
    if data.val_labels is None:
        notes.append("There is no train/ and val/: every picture is classified by all the others (leave-one-out)")
    if left_out:
        used = ", ".join(map(str, kept))
        notes.append(f"{', '.join(left_out)} neighbours are more than the {voters} pictures to vote: using {used}")
    return notes


def _numbers(right: dict[int, Tensor]) -> list[tuple[int, tuple[int, int]]]:
    return [(k, (int(counts[0]), int(counts[1]))) for k, counts in right.items()]
