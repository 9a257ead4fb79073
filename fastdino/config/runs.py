"""The settings of the commands around a training."""

from __future__ import annotations

import dataclasses

from fastdino.config.fields import OTHER, option, positionals, switch
from fastdino.config.training import TrainConfig


@dataclasses.dataclass(frozen=True)
class DemoConfig:
    """A whole run on pictures that come with the packages, in minutes on a CPU."""

    output_dir: str = option("fastdino_demo", "Folder for the pictures and results.", group=OTHER)
    seed: int = option(0, "Seed of the pictures and the training.", group=OTHER)
    num_workers: int = option(2, "Most threads that prepare crops.", group=OTHER)


@dataclasses.dataclass(frozen=True)
class DoctorConfig:
    """This machine described, and every kernel examined on its GPU."""

    json: bool = switch("Print everything as JSON, for machines.", group=OTHER)


@dataclasses.dataclass(frozen=True)
class CompareConfig:
    """Which of some runs is better, and how they differ."""

    runs: tuple[str, ...] = positionals(
        "RUN", "Folders of two runs or more, as --output_dir of `fastdino train` named them.", group=OTHER
    )
    output: str = option("comparison.html", "Page to write.", group=OTHER)


PLAN = "plan"


@dataclasses.dataclass(frozen=True)
class PlanConfig(TrainConfig):
    """A run's memory predicted, with the flags of `fastdino train`."""

    memory: float | None = option(
        None,
        "Memory of the device in GiB; without it the GPU's own, or what this machine has available.",
        group=PLAN,
    )
    json: bool = switch("Print everything as JSON, for machines.", group=PLAN)


SLURM = "Slurm"


@dataclasses.dataclass(frozen=True)
class SubmitConfig(TrainConfig):
    """A training as a job of Slurm, with the flags of `fastdino train` and of the original's run_with_submitit.py."""

    ngpus: int = option(8, "GPUs on each node, and processes, one a GPU.", group=SLURM)
    nodes: int = option(2, "Nodes.", group=SLURM)
    timeout: int = option(2800, "Minutes after which the job is stopped, queued again and goes on.", group=SLURM)
    partition: str = option("", "Partition; without it the cluster's own choice.", group=SLURM)
    use_volta32: bool = switch("Ask for nodes that the cluster calls volta32gb.", group=SLURM)
    comment: str = option("", "Comment for the scheduler, such as a reason for priority.", group=SLURM)
    cluster: str = option(
        "slurm",
        "Where to: local tries the job out on this machine, in the background. (fastdino)",
        group=SLURM,
        choices=("slurm", "local"),
    )
