"""A training run from its settings to its results."""

from __future__ import annotations

import dataclasses
import json
import math
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from torch import Tensor, nn

from fastdino import native
from fastdino.config import TrainConfig
from fastdino.cores import usable_cores
from fastdino.data.loader import MultiCropLoader
from fastdino.data.normalize import normalize
from fastdino.data.sources import Source
from fastdino.errors import TrainingFailed, UserError
from fastdino.files import write_atomically
from fastdino.train.build import Schedules, build_schedules, build_trainee
from fastdino.train.checkpoint import load_checkpoint, save_checkpoint
from fastdino.train.choices import attention_in_words, choices_in_words, why_narrow
from fastdino.train.guards import explained_failures, stop_on_sigterm
from fastdino.train.log import RunLog
from fastdino.train.progress import TrainingProgress
from fastdino.train.report import RunReport, write_run_report
from fastdino.train.step import StepMetrics, train_step
from fastdino.train.validate import validated

# Reading a figure from a GPU waits for it; this often is enough for a person.
STEPS_BETWEEN_READINGS = 10
AFTER_DIVERGENCE = "the last checkpoint is from before that; lower --lr, set --clip_grad 0.3, or try --precision fp32"


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

    The report measures the result on `held_out` pictures, without them on a sample of those that trained.

    Raises UserError for settings or pictures that cannot work, TrainingFailed when the loss stops being a number, and
    KeyboardInterrupt on SIGINT and SIGTERM; whatever happens, the files in `output_dir` are whole.
    """
    started = time.monotonic()
    config, notes = validated(config)
    output_dir = Path(config.output_dir)
    console = Console()
    for note in notes:
        console.print(f"[yellow]note:[/] {note}", highlight=False)
    with stop_on_sigterm(), explained_failures(output_dir):
        output_dir.mkdir(parents=True, exist_ok=True)
        run = Run(config, console)
        try:
            run.go()
        finally:
            run.close()
        report = run.write_report(held_out)
    return TrainResult(
        output_dir,
        run.checkpoint,
        report.path,
        run.log.lines,
        report.knn,
        report.verdict,
        dict(run.loader.skipped),
        time.monotonic() - started,
    )


def run_command(config: TrainConfig) -> None:
    """The command `fastdino train`: train, then say whether it worked and where to look."""
    result = train(config)
    console = Console()
    for sentence in (*result.verdict, f"Pictures and curves: {result.report}"):
        console.print(sentence, highlight=False, markup=False, soft_wrap=True)
    if result.skipped:
        listing = result.output_dir / "skipped.txt"
        console.print(f"{len(result.skipped)} pictures could not be read: {listing}", highlight=False, soft_wrap=True)


class Run:
    """A run in progress: what `train` builds, steps through and closes."""

    def __init__(self, config: TrainConfig, console: Console) -> None:
        self.config = config
        self.console = console
        self.output_dir = Path(config.output_dir)
        self.checkpoint = self.output_dir / "checkpoint.pth"
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.choices = choices_in_words(config, self.device)
        self.loader = MultiCropLoader(
            config.data_path,
            config.batch_size_per_gpu,
            seed=config.seed,
            num_threads=min(config.num_workers, usable_cores()),
            global_crops_scale=config.global_crops_scale,
            local_crops_scale=config.local_crops_scale,
            local_crops_number=config.local_crops_number,
            global_size=config.global_size,
            local_size=config.local_size,
            color_jitter=config.color_jitter,
            output="uint8",
        )
        steps_per_epoch = len(self.loader) // config.accumulation_steps
        if steps_per_epoch == 0:
            raise UserError(
                f"there are fewer pictures than one optimiser step takes ({config.batch_size}): "
                f"lower --batch_size_per_gpu or --accumulation_steps"
            )
        # What a killed process was writing when it died.
        for unfinished in self.output_dir.glob(".checkpoint*.pth.*.tmp"):
            unfinished.unlink(missing_ok=True)
        self.trainee = build_trainee(config, self.device)
        self.schedules: Schedules = build_schedules(config, steps_per_epoch)
        self.start_epoch = load_checkpoint(self.checkpoint, self.trainee) if self.checkpoint.exists() else 0
        if self.start_epoch:
            self._note_changed_settings()
        write_atomically(self.output_dir / "config.json", json.dumps(dataclasses.asdict(config), indent=2) + "\n")
        self.log = RunLog(self.output_dir, self.start_epoch, self.start_epoch * steps_per_epoch)

    def go(self) -> None:
        """Train the epochs that are left."""
        self._announce()
        steps = self.schedules.steps_per_epoch
        with TrainingProgress(
            self.console, self.config.epochs, self.config.epochs * steps, self.start_epoch * steps
        ) as progress:
            for epoch in range(self.start_epoch, self.config.epochs):
                line = self._epoch(epoch, progress)
                # The log first: its lines from the checkpoint's epoch on are replaced when a run goes on.
                self.log.epoch(line)
                self._save(epoch)
                progress.epoch_done(line)
                if self.loader.skipped:
                    self._list_skipped()

    def close(self) -> None:
        """Stop the loader's workers and flush the logs."""
        self.loader.close()
        self.log.close()

    def write_report(self, held_out: Source | None) -> RunReport:
        """Write report.html from the logs, the pictures and the final teacher."""
        return write_run_report(
            self.config,
            self.loader.source,
            self.loader.recipe,
            self.trainee.teacher.backbone,
            self.log.lines,
            self.device,
            self.console,
            held_out=held_out,
        )

    def _epoch(self, epoch: int, progress: TrainingProgress) -> dict[str, Any]:
        self.loader.set_epoch(epoch)
        started, waited = time.monotonic(), self.loader.wait_seconds
        first_step = epoch * self.schedules.steps_per_epoch
        readings: list[StepMetrics] = []
        for offset, batches in enumerate(self._steps()):
            step = first_step + offset
            seed_step(self.config.seed, step)
            values = self.schedules.at(step)
            readings.append(
                train_step(self.trainee, batches, values, self.config.clip_grad, self.config.freeze_last_layer)
            )
            progress.advance(epoch)
            if self.device.type == "cpu" or step % STEPS_BETWEEN_READINGS == 0:
                loss = finite(readings[-1].loss, step)
                elapsed = time.monotonic() - started
                wait_share = (self.loader.wait_seconds - waited) / elapsed
                progress.show(loss, (offset + 1) * self.config.batch_size / elapsed, wait_share)
                self.log.step(step, {"loss": loss, "lr": values.lr})
        figures = torch.stack([torch.stack(reading) for reading in readings]).cpu()
        # After the reading above, which waits for a GPU to finish the epoch.
        elapsed = time.monotonic() - started
        for offset, reading in enumerate(figures):
            finite(reading[0], first_step + offset)
        # The last step's update shows in no loss of this epoch, and would be saved.
        require_finite_weights(self.trainee.student)
        loss, entropy, spread = figures.mean(dim=0).tolist()
        epoch_steps = slice(first_step, first_step + len(readings))
        return {
            "train_loss": loss,
            "train_lr": float(self.schedules.lr[epoch_steps].mean()),
            "train_wd": float(self.schedules.weight_decay[epoch_steps].mean()),
            "epoch": epoch,
            "train_teacher_entropy": entropy,
            "train_kl": loss - entropy,
            "train_feature_std": spread,
            "images_per_second": len(readings) * self.config.batch_size / elapsed,
            "data_wait": (self.loader.wait_seconds - waited) / elapsed,
        }

    def _steps(self) -> Iterator[list[list[Tensor]]]:
        """The micro-batches of each optimiser step, normalised on the training device."""
        batches = iter(self.loader)
        for _ in range(self.schedules.steps_per_epoch):
            yield [
                [self._normalized(crop) for crop in crops]
                for crops, _ in islice(batches, self.config.accumulation_steps)
            ]

    def _normalized(self, crop: Tensor) -> Tensor:
        if self.device.type != "cpu":
            # Only from pinned memory does the copy run beside the GPU's work.
            crop = crop.pin_memory().to(self.device, non_blocking=True)
        return normalize(crop, self.trainee.precision.input_dtype, self.config.implementation)

    def _save(self, epoch: int) -> None:
        args = dataclasses.asdict(self.config)
        # The kept one first: after checkpoint.pth a run that goes on would not come back to this epoch.
        if self.config.saveckp_freq and epoch % self.config.saveckp_freq == 0:
            save_checkpoint(self.output_dir / f"checkpoint{epoch:04}.pth", self.trainee, epoch + 1, args)
        save_checkpoint(self.checkpoint, self.trainee, epoch + 1, args)

    def _list_skipped(self) -> None:
        lines = "".join(f"{name}\t{reason}\n" for name, reason in sorted(self.loader.skipped.items()))
        write_atomically(self.output_dir / "skipped.txt", lines)

    def _note_changed_settings(self) -> None:
        """Going on with other settings is allowed, but never by accident."""
        path = self.output_dir / "config.json"
        try:
            before = dict(json.loads(path.read_text()))
        except (OSError, ValueError, TypeError):
            # Without readable settings of ours there is nothing to compare with.
            return
        now = json.loads(json.dumps(dataclasses.asdict(self.config)))
        changes = [
            f"--{name} was {before[name]} and is {value}"
            for name, value in now.items()
            if name in before and before[name] != value and name != "output_dir"
        ]
        if changes:
            self.console.print(
                f"[yellow]note:[/] this run went on with other settings: {'; '.join(changes)}", soft_wrap=True
            )

    def _announce(self) -> None:
        config = self.config
        narrow = why_narrow(config, self.trainee.precision.name, self.device)
        if narrow:
            self.console.print(f"[yellow]note:[/] {narrow}", highlight=False, soft_wrap=True)
        if not native.available():
            self.console.print(f"[yellow]note:[/] {native.why_not()}", highlight=False, soft_wrap=True)
        parameters = sum(p.numel() for p in self.trainee.student.backbone.parameters()) / 1e6
        device = (
            torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else f"CPU ({usable_cores()} cores)"
        )
        going_on = f", going on after epoch {self.start_epoch}" if self.start_epoch else ""
        self.console.print(
            f"{config.arch} ({parameters:.1f} M parameters) on {len(self.loader.source):,} pictures, {device}, "
            f"{self.trainee.precision.name}, {self.schedules.steps_per_epoch} steps of {config.batch_size} pictures "
            f"an epoch{going_on}; crops by {self.loader.implementation}, {self.choices}"
            f"{attention_in_words(self.trainee.student.backbone, self.trainee.precision)}",
            highlight=False,
            soft_wrap=True,
        )


def seed_step(seed: int, step: int) -> None:
    """Make a step's own randomness (stochastic depth) a function of the seed and the step, whatever came before."""
    torch.manual_seed(int(np.random.SeedSequence((seed, step)).generate_state(1, np.uint64)[0]))


def finite(loss: Tensor, step: int) -> float:
    """The loss as a number. Raises TrainingFailed if it is not one."""
    value = loss.item()
    if math.isfinite(value):
        return value
    raise TrainingFailed(f"the loss became {value} at step {step}: {AFTER_DIVERGENCE}")


@torch.no_grad()
def require_finite_weights(network: nn.Module) -> None:
    """Raises TrainingFailed if any weight is NaN or infinite."""
    if not torch.stack([parameter.isfinite().all() for parameter in network.parameters()]).all():
        raise TrainingFailed(f"the weights stopped being numbers: {AFTER_DIVERGENCE}")
