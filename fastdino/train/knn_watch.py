"""How well nearest neighbours name the class while a run goes on, so that people see it rise, or fall in time."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
from rich.console import Console
from rich.markup import escape
from torch import Tensor, nn

from fastdino.config import TrainConfig
from fastdino.data.sources import Source
from fastdino.distributed.parts import whole
from fastdino.distributed.world import World
from fastdino.errors import UserError
from fastdino.evaluate.compare import Known, accuracies, top1
from fastdino.evaluate.cuts import centre_crop
from fastdino.evaluate.feature_cache import FeatureBatch
from fastdino.evaluate.features import Features, batches_of, features_of, put_together
from fastdino.evaluate.loading import Batch, Cutting, load_pictures
from fastdino.train.build import untrained_backbone
from fastdino.train.log import RunLog
from fastdino.train.position import Position
from fastdino.train.sample import Sample, batch_size, sample_of
from fastdino.visualize.verdict import KNN_KEY, UNTRAINED_KEY, fall_of, knn_in_words, words_on_fall

# Besides the first epoch, after which what harms good weights shows.
MEASUREMENTS = 10


class Measured(NamedTuple):
    """Features of the sample's sources, and top-1 accuracy in percent."""

    parts: list[Features]
    top1: float

    @property
    def pictures(self) -> int:
        """How many were given a class."""
        return len(self.parts[-1].labelled().labels)


class KnnWatch:
    """Measures the teacher's backbone by the report's k-NN; all processes have to ask for it and share the work.

    The pictures are read once and kept, cut to what the network sees: 150 kB each at 224 pixels. The teacher is left
    alone: what computes is a copy of it. `stopping` says whether someone waits for the run to stop, when a measurement
    is given up. One that fails is said and left out.

    `held_out` pictures have the classes of `source`, which has more than one. `known` is what the
    report need not measure again: of this process alone, since an earlier one may have had other pictures.
    """

    def __init__(
        self,
        config: TrainConfig,
        source: Source,
        held_out: Source | None,
        world: World,
        console: Console,
        stopping: Callable[[], bool],
    ) -> None:
        self.config, self.world, self.console, self.stopping = config, world, console, stopping
        self.sample: Sample = sample_of(source, held_out)
        self.known = Known()
        self._before: float | None = None
        self._pictures: list[list[Batch]] = []
        self._network: nn.Module | None = None
        # Said once a fall.
        self._fell_from = -1

    def begin(self, log: RunLog, position: Position, teacher: nn.Module) -> None:
        """Measure what is missing at `position`: the untrained network, and what an interrupted process owes."""
        logged, owed = self.world.gather((_untrained(log), _owes(log, position, self.config.epochs)))[0]
        if logged is None and self.known.before is None:
            measured = self._measured(None)
            if measured is not None:
                self.known = Known(before=measured.top1)
                self._say(f"before training: {knn_in_words(measured.top1)}")
        self._before = self.known.before if logged is None else logged
        if owed:
            self.after(position.epoch - 1, log, teacher)

    def after(self, epoch: int, log: RunLog, teacher: nn.Module) -> None:
        """Measure `teacher` as it is after `epoch`, if that is one of `measured_epochs`, and add it to the log."""
        self.known = Known(before=self.known.before)
        measured = self._measured(teacher) if epoch in measured_epochs(self.config.epochs) else None
        if measured is None:
            return
        self.known = Known(measured.parts, self.known.before)
        if self._before is not None and _untrained(log) is None:
            log.add(min((line["epoch"] for line in log.lines), default=epoch), {UNTRAINED_KEY: self._before})
        log.add(epoch, {KNN_KEY: measured.top1})
        compared = "" if self._before is None else f" (before training {self._before:.1f} %)"
        self._say(f"epoch {epoch + 1}/{self.config.epochs}: {knn_in_words(measured.top1)}{compared}")
        fall = fall_of(log.lines, measured.pictures)
        if fall is not None and fall.best_epoch != self._fell_from:
            self._fell_from = fall.best_epoch
            self._say(f"[yellow]note:[/] {' '.join(words_on_fall(fall))}")

    def _measured(self, teacher: nn.Module | None) -> Measured | None:
        """`teacher`, or the untrained network without it; None where that fails, or someone asks to stop."""
        # Building networks draws weights.
        with torch.random.fork_rng(devices=[self.world.device] if self.world.device.type == "cuda" else []):
            told = self.world.gather(self._own_features(teacher))
        if self._network is not None:
            self._network.cpu()
        features = [answer for answer in told if isinstance(answer, list)]
        try:
            for reason in (answer for answer in told if isinstance(answer, str)):
                raise UserError(reason)
            if len(features) < len(told):
                return None
            parts = [
                put_together(source, [batch for batches in of_ranks for batch in batches])
                for source, of_ranks in zip(self.sample.sources, zip(*features, strict=True), strict=True)
            ]
            by_k = accuracies(parts)
        except UserError as error:
            self._say(f"[yellow]note:[/] nearest neighbours were not measured: {escape(str(error))}")
            return None
        return Measured(parts, top1(by_k)) if by_k else None

    def _own_features(self, teacher: nn.Module | None) -> list[list[FeatureBatch]] | str | None:
        """Those of this process's share of each source; why there are none, and None if someone asks to stop."""
        # What is split is put together by all processes, whatever happens in one of them.
        weights = None if teacher is None else whole(teacher.state_dict())
        try:
            network = self._network_with(weights)
            pictures = self._read()
            features: list[list[FeatureBatch]] = [[] for _ in pictures]
            for batches, of_source in zip(pictures, features, strict=True):
                for batch in batches:
                    if self.stopping():
                        return None
                    of_source.append(features_of(network, batch, self.world.device))
        # The others wait for this process, and no measurement is worth a run.
        except Exception as error:
            return str(error).split("\n")[0] or type(error).__name__
        return features

    def _network_with(self, weights: Mapping[str, Tensor] | None) -> nn.Module:
        """The copy that computes, on the device, with `weights` or untrained."""
        if self._network is None or weights is None:
            self._network = untrained_backbone(self.config).eval()
        self._network.to(self.world.device)
        if weights is not None:
            self._network.load_state_dict(weights)
        return self._network

    def _read(self) -> list[list[Batch]]:
        """This process's share of the pictures of each source; read at the first call."""
        if not self._pictures:
            self._pictures = [
                list(
                    load_pictures(
                        source,
                        batches_of(len(source), batch_size(self.config))[self.world.rank :: self.world.size],
                        Cutting(centre_crop, self.config.global_size),
                        num_workers=min(self.config.num_workers, 2),
                    )
                )
                for source in self.sample.sources
            ]
        return self._pictures

    def _say(self, words: str) -> None:
        self.console.print(words, highlight=False, soft_wrap=True)


def measured_epochs(epochs: int) -> set[int]:
    """After which of a run's epochs, counted from 0, it is measured: the first, the last, and some evenly between."""
    if epochs <= MEASUREMENTS:
        return set(range(epochs))
    return {0, *(part * epochs // MEASUREMENTS - 1 for part in range(1, MEASUREMENTS + 1))}


def _untrained(log: RunLog) -> float | None:
    return next((line[UNTRAINED_KEY] for line in log.lines if UNTRAINED_KEY in line), None)


def _owes(log: RunLog, position: Position, epochs: int) -> bool:
    """Whether a process was stopped between saving an epoch and measuring it."""
    if position.samples or position.epoch - 1 not in measured_epochs(epochs):
        return False
    return any(line["epoch"] == position.epoch - 1 and KNN_KEY not in line for line in log.lines)
