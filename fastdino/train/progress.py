"""The bar that a person watches, or a line an epoch where there is no terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn


class TrainingProgress:
    """One bar over all steps of a run, with loss, images/s and the share of time spent waiting for data."""

    def __init__(self, console: Console, epochs: int, total_steps: int, done_steps: int) -> None:
        self.console = console
        self.epochs = epochs
        self._bar = Progress(
            TextColumn("epoch {task.fields[epoch]}/{task.fields[epochs]}"),
            BarColumn(bar_width=None),
            TextColumn("{task.percentage:>3.0f} %"),
            TextColumn("{task.fields[status]}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=console,
            disable=not console.is_terminal,
        )
        self._task = self._bar.add_task("", total=total_steps, completed=done_steps, epoch=0, epochs=epochs, status="")

    def __enter__(self) -> TrainingProgress:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def advance(self, epoch: int) -> None:
        """One optimiser step of `epoch` (counted from 0) is done."""
        self._bar.update(self._task, advance=1, epoch=epoch + 1)

    def show(self, loss: float, images_per_second: float, data_wait: float) -> None:
        """New figures beside the bar."""
        status = f"loss {loss:.3f}  {images_per_second:.1f} img/s  data wait {data_wait:.0%}"
        self._bar.update(self._task, status=status)

    def epoch_done(self, line: Mapping[str, Any]) -> None:
        """A line for logs that are read as text."""
        if not self.console.is_terminal:
            self.console.print(
                f"epoch {line['epoch'] + 1}/{self.epochs}  loss {line['train_loss']:.4f}  "
                f"teacher entropy {line['train_teacher_entropy']:.3f}  KL {line['train_kl']:.4f}  "
                f"{line['images_per_second']:.1f} img/s  data wait {line['data_wait']:.0%}",
                soft_wrap=True,
                highlight=False,
            )
