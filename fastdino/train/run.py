"""A training run from its settings to its results."""

from __future__ import annotations

import dataclasses
import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from torch import nn

from fastdino.config import TrainConfig
from fastdino.cores import usable_cores
from fastdino.data.loader import MultiCropLoader
from fastdino.data.sources import Source
from fastdino.distributed.agreement import require_equal_start, require_equal_weights
from fastdino.distributed.launch import start_ranks
from fastdino.distributed.world import ALONE, World, joined, place_from_environment
from fastdino.errors import UserError
from fastdino.files import write_atomically
from fastdino.models.pretrained import load_backbone
from fastdino.models.weights import save_weights
from fastdino.train.announce import announce, note_changed_settings
from fastdino.train.build import Schedules, build_schedules, build_trainee
from fastdino.train.checkpoint import checkpoint_content, load_checkpoint
from fastdino.train.choices import choices_in_words
from fastdino.train.guards import explained_failures, stop_on_sigterm
from fastdino.train.log import RunLog
from fastdino.train.loop import Loop
from fastdino.train.progress import TrainingProgress
from fastdino.train.validate import validated

if TYPE_CHECKING:
    from fastdino.train.report import RunReport


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


def train(config: TrainConfig, *, held_out: Source | None = None) -> TrainResult:
    """Train a student and its teacher on the pictures in `config.data_path`, going on from `config.output_dir`.

    One of several processes that a launcher such as torchrun has started trains its share; the first of them writes.
    The report measures the result on `held_out` pictures, without them on a sample of those that trained.

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
    with stop_on_sigterm(), explained_failures(output_dir):
        output_dir.mkdir(parents=True, exist_ok=True)
        with joined(place, config.dist_url) as world:
            run = Run(config, console, world)
            try:
                run.go()
            finally:
                run.close()
        # The others are done: none of them waits for the report.
        report = run.write_report(held_out) if world.is_main else None
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


def run_command(config: TrainConfig) -> None:
    """The command `fastdino train`: train, then say whether it worked and where to look."""
    if config.gpus > 1 and place_from_environment().size == 1:
        start_ranks(config)
        return
    result = train(config)
    if not place_from_environment().is_main:
        return
    console = Console()
    for sentence in (*result.verdict, f"Pictures and curves: {result.report}"):
        console.print(sentence, highlight=False, markup=False, soft_wrap=True)
    if result.skipped:
        listing = result.output_dir / "skipped.txt"
        console.print(f"{len(result.skipped)} pictures could not be read: {listing}", highlight=False, soft_wrap=True)


class Run:
    """A run in progress: what `train` builds, steps through and closes."""

    def __init__(self, config: TrainConfig, console: Console, world: World = ALONE) -> None:
        self.config = config
        self.console = console
        self.world = world
        self.output_dir = Path(config.output_dir)
        self.checkpoint = self.output_dir / "checkpoint.pth"
        self.device = world.device
        self.skipped: dict[str, str] = {}
        self.choices = choices_in_words(config, self.device)
        self.loader = MultiCropLoader(
            config.data_path,
            config.batch_size_per_gpu,
            seed=config.seed,
            num_threads=min(config.num_workers, max(1, usable_cores() // world.local_size)),
            global_crops_scale=config.global_crops_scale,
            local_crops_scale=config.local_crops_scale,
            local_crops_number=config.local_crops_number,
            global_size=config.global_size,
            local_size=config.local_size,
            color_jitter=config.color_jitter,
            output="uint8",
            rank=world.rank,
            world_size=world.size,
        )
        steps_per_epoch = len(self.loader) // config.accumulation_steps
        if steps_per_epoch == 0:
            raise UserError(
                f"there are fewer pictures than one optimiser step takes ({config.batch_size * world.size}): "
                f"lower --batch_size_per_gpu or --accumulation_steps"
            )
        # What a killed process was writing when it died.
        for unfinished in self.output_dir.glob(".checkpoint*.pth.*.tmp") if world.is_main else ():
            unfinished.unlink(missing_ok=True)
        self.trainee = build_trainee(config, self.device, world)
        self.schedules: Schedules = build_schedules(config, steps_per_epoch, world.size)
        self.start_epoch = load_checkpoint(self.checkpoint, self.trainee) if self.checkpoint.exists() else 0
        require_equal_start(world, self.start_epoch, str(self.output_dir))
        require_equal_weights(world, self.trainee.student.parameters())
        if self.start_epoch and world.is_main:
            note_changed_settings(console, config, self.output_dir / "config.json")
        if world.is_main:
            write_atomically(self.output_dir / "config.json", json.dumps(dataclasses.asdict(config), indent=2) + "\n")
        self.log = RunLog(self.output_dir, self.start_epoch, self.start_epoch * steps_per_epoch, world.is_main)
        self.loop = Loop(config, self.trainee, self.schedules, self.loader, self.log)

    def go(self) -> None:
        """Train the epochs that are left."""
        going_on = f", going on after epoch {self.start_epoch}" if self.start_epoch else ""
        announce(self.console, self.config, self.trainee, self.schedules, self.loader, self.choices, going_on)
        steps = self.schedules.steps_per_epoch
        with TrainingProgress(
            self.console, self.config.epochs, self.config.epochs * steps, self.start_epoch * steps
        ) as progress:
            for epoch in range(self.start_epoch, self.config.epochs):
                line = self.loop.epoch(epoch, progress)
                # The log first: its lines from the checkpoint's epoch on are replaced when a run goes on.
                self.log.epoch(line)
                self._save(epoch)
                progress.epoch_done(line)
                self._list_skipped()

    def close(self) -> None:
        """Stop the loader's workers and flush the logs."""
        self.loader.close()
        self.log.close()

    def write_report(self, held_out: Source | None) -> RunReport:
        """Write report.html from the logs, the pictures and the final teacher."""
        # With it comes torchvision, which training has no use for.
        from fastdino.train.report import write_run_report

        return write_run_report(
            self.config,
            self.loader.source,
            self.loader.recipe,
            self._whole_teacher(),
            self.log.lines,
            self.device,
            self.console,
            held_out=held_out,
        )

    def _whole_teacher(self) -> nn.Module:
        if self.config.fsdp:
            return load_backbone(self.checkpoint).model.to(self.device)
        return self.trainee.teacher.backbone

    def _save(self, epoch: int) -> None:
        require_equal_weights(self.world, self.trainee.student.parameters())
        if not (self.world.is_main or self.config.fsdp):
            return
        content = checkpoint_content(self.trainee, epoch + 1, dataclasses.asdict(self.config))
        if not self.world.is_main:
            return
        # The kept one first: after checkpoint.pth a run that goes on would not come back to this epoch.
        if self.config.saveckp_freq and epoch % self.config.saveckp_freq == 0:
            save_weights(content, self.output_dir / f"checkpoint{epoch:04}.pth")
        save_weights(content, self.checkpoint)

    def _list_skipped(self) -> None:
        for of_rank in self.world.gather(self.loader.skipped):
            self.skipped |= of_rank
        if self.skipped and self.world.is_main:
            lines = "".join(f"{name}\t{reason}\n" for name, reason in sorted(self.skipped.items()))
            write_atomically(self.output_dir / "skipped.txt", lines)
