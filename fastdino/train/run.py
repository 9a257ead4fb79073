"""A training run from its settings to its results."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

from PIL import Image
from rich.console import Console

from fastdino.config import TrainConfig
from fastdino.data.sources import Source
from fastdino.distributed.launch import start_ranks
from fastdino.distributed.world import joined, place_from_environment
from fastdino.errors import UserError
from fastdino.train.guards import Signals, explained_failures
from fastdino.train.trainer import Trainer
from fastdino.train.validate import validated


@dataclasses.dataclass(frozen=True)
class TrainResult:
    """What a run leaves behind.

    `log` has one dict an epoch, as in log.txt; `knn` the accuracies in the report, None where there are no classes;
    `verdict` its sentences on whether it worked; `skipped` the unreadable pictures' names and reasons.
    """

    output_dir: Path
    checkpoint: Path
    report: Path
    log: list[dict[str, Any]]
    knn: dict[str, Any] | None
    verdict: list[str]
    skipped: dict[str, str]
    seconds: float


def train(
    config: TrainConfig,
    *,
    held_out: Source | None = None,
    photographs: Sequence[tuple[str, Image.Image]] = (),
    signals: Signals | None = None,
) -> TrainResult:
    """Train a student and its teacher on the pictures in `config.data_path`, going on from `config.output_dir`.

    One of several processes that a launcher such as torchrun has started trains its share; the first of them writes.
    The result is measured on `held_out` pictures, without them on a sample of those that trained. The report shows
    where the network looks in `photographs` (captions and pictures), without them in some of those that were measured.
    `signals` are those that it listens to, where they are others than SIGINT, SIGTERM and SIGUSR1.

    Raises UserError for settings or pictures that cannot work, TrainingFailed when the loss stops being a number, and
    KeyboardInterrupt on SIGINT and SIGTERM; whatever happens, the files in `output_dir` are whole.
    """
    started = time.monotonic()
    config, notes = validated(config)
    output_dir = Path(config.output_dir)
    place = place_from_environment(config.local_rank)
    if config.gpus > 1 and place.size == 1:
        raise UserError(
            f"--gpus {config.gpus} is for the command `fastdino train`: for Python, torchrun starts a process a GPU"
        )
    console = Console(quiet=not place.is_main)
    for note in notes:
        console.print(f"[yellow]note:[/] {note}", highlight=False)
    signals = signals or Signals()
    with signals.handled(), explained_failures(output_dir):
        output_dir.mkdir(parents=True, exist_ok=True)
        with joined(place, config.dist_url, timedelta(seconds=config.dist_timeout)) as world:
            run = Trainer(config, console, signals, world, held_out)
            try:
                run.go()
            finally:
                run.close()
        # The others are done: none of them waits for the report.
        report = run.write_report(photographs) if world.is_main else None
    return TrainResult(
        output_dir,
        run.checkpoint,
        output_dir / "report.html",
        run.log.lines,
        report.knn if report is not None else None,
        report.verdict if report is not None else [],
        run.skipped,
        time.monotonic() - started,
    )


def run_command(config: TrainConfig, signals: Signals | None = None) -> None:
    """The command `fastdino train`: train, then say whether it worked and where to look."""
    if config.gpus > 1 and place_from_environment().size == 1:
        start_ranks(config)
        return
    result = train(config, signals=signals)
    if not place_from_environment().is_main:
        return
    console = Console()
    for sentence in (*result.verdict, f"Pictures and curves: {result.report}"):
        console.print(sentence, highlight=False, markup=False, soft_wrap=True)
    if result.skipped:
        listing = result.output_dir / "skipped.txt"
        console.print(f"{len(result.skipped)} pictures could not be read: {listing}", highlight=False, soft_wrap=True)
