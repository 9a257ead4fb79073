"""A run in progress: building, going on, saving and going back."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image
from rich.console import Console
from torch import nn

from fastdino.config import TrainConfig
from fastdino.cores import usable_cores
from fastdino.data.loader import MultiCropLoader
from fastdino.data.sources import Source
from fastdino.distributed.agreement import require_equal_start, require_equal_weights
from fastdino.distributed.world import ALONE, World
from fastdino.errors import TrainingFailed, UserError
from fastdino.files import write_atomically
from fastdino.models.pretrained import load_backbone
from fastdino.train.announce import announce, note_changed_settings
from fastdino.train.build import Schedules, build_schedules, build_trainee
from fastdino.train.checkpoint import load_newest
from fastdino.train.choices import choices_in_words
from fastdino.train.guards import Signals, Tolerated
from fastdino.train.log import RunLog
from fastdino.train.loop import Loop
from fastdino.train.position import Position, seed_of_attempt
from fastdino.train.progress import TrainingProgress
from fastdino.train.recovery import Checkpoints, go_back
from fastdino.train.saving import NAME, remove_unfinished
from fastdino.train.trouble import AFTER_DIVERGENCE, FOLDER, MOST_ROLLBACKS, Diverged, require_finite_weights

if TYPE_CHECKING:
    from fastdino.train.knn_watch import KnnWatch
    from fastdino.train.report import RunReport


class Trainer:
    """A run in progress: what `train` builds, steps through and closes."""

    def __init__(
        self,
        config: TrainConfig,
        console: Console,
        signals: Signals,
        world: World = ALONE,
        held_out: Source | None = None,
    ) -> None:
        self.config, self.console, self.signals, self.world = config, console, signals, world
        self.output_dir = Path(config.output_dir)
        self.checkpoint = self.output_dir / NAME
        self.device = world.device
        self.skipped: dict[str, str] = {}
        self.choices = choices_in_words(config, self.device)
        self.tolerated = Tolerated(console)
        self.loader = self._loader(config.data_path, 0)
        steps_per_epoch = len(self.loader) // config.accumulation_steps
        if steps_per_epoch == 0:
            raise UserError(
                f"there are fewer pictures than one optimiser step takes ({config.batch_size * world.size}): "
                f"lower --batch_size_per_gpu or --accumulation_steps"
            )
        self.held_out = held_out
        self.watch = self._watch()
        if world.is_main:
            remove_unfinished(self.output_dir)
        self.trainee = build_trainee(config, self.device, world)
        self.schedules: Schedules = build_schedules(config, steps_per_epoch, world.size)
        self.checkpoints = Checkpoints(config, self.trainee, self.tolerated)
        found = load_newest(self.output_dir, self.trainee, console)
        self.position = self._fitted(found or Position())
        place = self.position.epoch, self.position.samples, self.position.attempt
        require_equal_start(world, place, str(self.output_dir))
        require_equal_weights(world, self.trainee.student.parameters())
        if world.is_main:
            if found is not None:
                note_changed_settings(console, config, self.output_dir / "config.json")
            write_atomically(self.output_dir / "config.json", json.dumps(dataclasses.asdict(config), indent=2) + "\n")
        self._rollbacks: list[int] = []
        self._begin(self.position)

    def go(self) -> None:
        """Train the epochs that are left."""
        going_on = f", going on after {self._place()}" if self.loop.step else ""
        announce(self.console, self.config, self.trainee, self.schedules, self.loader, self.choices, going_on)
        while True:
            try:
                self._train()
            except Diverged as divergence:
                self._go_back(divergence)
            else:
                break
        self.checkpoints.settle()
        if NAME in self.tolerated.failing:
            # The disk may have room by now.
            self.checkpoints.save(self.position)
            self.checkpoints.settle()
        self.tolerated.require_none()

    def close(self) -> None:
        """Stop the loader's workers, wait for the checkpoint that is being written, and flush the logs."""
        self.loader.close()
        self.checkpoints.settle()
        self.log.close()

    def write_report(self, photographs: Sequence[tuple[str, Image.Image]] = ()) -> RunReport:
        """Write report.html from the logs, the pictures and the final teacher; see write_run_report."""
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
            held_out=self.held_out,
            photographs=photographs,
            known=self.watch.known if self.watch else None,
        )

    def _whole_teacher(self) -> nn.Module:
        if self.config.fsdp:
            return load_backbone(self.checkpoint).model.to(self.device)
        return self.trainee.teacher.backbone

    def _train(self) -> None:
        total = self.config.epochs * self.schedules.steps_per_epoch
        with (
            self.signals.polite(),
            TrainingProgress(self.console, self.config.epochs, total, self.loop.step) as progress,
        ):
            if self.watch is not None:
                self.watch.begin(self.log, self.position, self.trainee.teacher.backbone)
            while self.position.epoch < self.config.epochs:
                line = self.loop.epoch(progress)
                # Weights that no loss has seen yet would be saved.
                require_finite_weights(self.trainee.student, self.world)
                # The log first: its lines from the checkpoint's epoch on are replaced when a run goes on.
                self.log.epoch(line)
                self.position.next_epoch()
                self.loop.begin_epoch()
                self._save_epoch(line["epoch"])
                progress.epoch_done(line)
                self._list_skipped()
                if self.watch is not None:
                    self.watch.after(line["epoch"], self.log, self.trainee.teacher.backbone)
                self._heed(stop_only=True)

    def _begin(self, position: Position) -> None:
        """Everything that goes on from `position`, the networks apart."""
        self.position = position
        if position.attempt:
            self.loader.close()
            self.loader = self._loader(self.loader.source, position.attempt)
        first = position.epoch * self.schedules.steps_per_epoch + len(position.readings)
        self.log = RunLog(self.output_dir, position.epoch, first, self.tolerated, self.world.is_main)
        self.loop = Loop(
            self.config,
            self.trainee,
            self.schedules,
            self.loader,
            self.log,
            position,
            self.tolerated,
            self.console,
            self._heed,
        )

    def _heed(self, stop_only: bool = False) -> None:
        """Save if it is time or someone asks for it; stop if someone asks for that."""
        if not self.loop.reads_after(self.loop.step - 1) and not stop_only:
            return
        due = not stop_only and self.checkpoints.due(self.loop.step)
        save, stop = self.world.largest([int(due or self.signals.save), self.signals.stop])
        # What ends an epoch has been saved already.
        if (save or stop) and not stop_only:
            self.signals.save = False
            self.loop.look()
            self.checkpoints.save(self.position)
        if stop:
            self.checkpoints.settle()
            raise KeyboardInterrupt(stop)

    def _save_epoch(self, epoch: int) -> None:
        keeps = self.config.saveckp_freq and epoch % self.config.saveckp_freq == 0
        self.checkpoints.save(self.position, also=self.output_dir / f"checkpoint{epoch:04}.pth" if keeps else None)

    def _go_back(self, divergence: Diverged) -> None:
        """To the last good checkpoint, and on from it with another order of the pictures.

        Raises TrainingFailed if that has been tried and has led nowhere.
        """
        attempt = self.position.attempt + 1
        self.checkpoints.settle()
        # The others would find the file before the one that is being written.
        self.world.barrier()
        self.log.close()
        position = self._fitted(go_back(self.config, self.trainee, self.console))
        reached = position.epoch * self.schedules.steps_per_epoch + len(position.readings)
        self._rollbacks = [*(step for step in self._rollbacks if step == reached), reached]
        if len(self._rollbacks) > MOST_ROLLBACKS:
            raise TrainingFailed(
                f"{divergence}, and so it went with {MOST_ROLLBACKS} other orders of the pictures "
                f"({self.output_dir / FOLDER} has the steps): {AFTER_DIVERGENCE}"
            )
        position.attempt = attempt
        self._begin(position)
        self.console.print(
            f"[yellow]note:[/] {divergence}: back to {self._place()}, and on with another order of the pictures",
            highlight=False,
            soft_wrap=True,
        )

    def _place(self) -> str:
        steps = len(self.position.readings)
        return f"epoch {self.position.epoch}" + (f" and {steps} steps" if steps else "")

    def _fitted(self, position: Position) -> Position:
        """`position` in steps of this run, which may be of another number of pictures than those that led there."""
        pictures = self.config.batch_size * self.world.size
        steps = min(position.samples // pictures, self.schedules.steps_per_epoch)
        if steps > len(position.readings) or steps == self.schedules.steps_per_epoch:
            return Position(position.epoch, attempt=position.attempt)
        return dataclasses.replace(position, samples=steps * pictures, readings=position.readings[:steps])

    def _watch(self) -> KnnWatch | None:
        """None where there are no classes to name."""
        source = self.loader.source
        if self.held_out is not None and self.held_out.classes != source.classes:
            raise UserError("the held-out pictures have other class folders than those that train: use the same names")
        if len(source.classes) < 2:
            return None
        # With it comes torchvision, which training has no use for.
        from fastdino.train.knn_watch import KnnWatch

        return KnnWatch(self.config, source, self.held_out, self.world, self.console, lambda: bool(self.signals.stop))

    def _loader(self, pictures: str | Source, attempt: int) -> MultiCropLoader:
        config = self.config
        return MultiCropLoader(
            pictures,
            config.batch_size_per_gpu,
            seed=seed_of_attempt(config.seed, attempt),
            num_threads=min(config.num_workers, max(1, usable_cores() // self.world.local_size)),
            global_crops_scale=config.global_crops_scale,
            local_crops_scale=config.local_crops_scale,
            local_crops_number=config.local_crops_number,
            global_size=config.global_size,
            local_size=config.local_size,
            color_jitter=config.color_jitter,
            output="uint8",
            rank=self.world.rank,
            world_size=self.world.size,
        )

    def _list_skipped(self) -> None:
        for of_rank in self.world.gather(self.loader.skipped):
            self.skipped |= of_rank
        if self.skipped and self.world.is_main:
            lines = "".join(f"{name}\t{reason}\n" for name, reason in sorted(self.skipped.items()))
            with self.tolerated.writing("skipped.txt"):
                write_atomically(self.output_dir / "skipped.txt", lines)
