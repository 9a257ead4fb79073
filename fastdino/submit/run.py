"""The command `fastdino submit`."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from rich.console import Console

from fastdino.config import SubmitConfig, training_of
from fastdino.errors import UserError
from fastdino.train.validate import validated

# As in the original. A job may be stopped and queued again so many times because its time is up.
MOST_TIMEOUTS = 30
GIGABYTES_PER_GPU = 40
# Enough to end a step and save.
SECONDS_TO_STOP = 120


def run(config: SubmitConfig) -> Any:
    """Submit the training and say how to follow it. Returns submitit's job.

    The job's files lie in `output_dir`/submitit; %j in `output_dir` stands for the job's number.

    Raises UserError for settings that cannot work, without submitit or Slurm, and when Slurm refuses the job.
    """
    submitit = _library()
    if config.cluster == "slurm" and shutil.which("sbatch") is None:
        raise UserError(
            "there is no Slurm on this machine (no sbatch): submit where there is, or start here with fastdino train "
            "--gpus N"
        )
    for name in ("ngpus", "nodes", "timeout"):
        if getattr(config, name) < 1:
            raise UserError(f"--{name} must be above 0, not {getattr(config, name)}")
    if config.cluster == "local" and (config.nodes > 1 or "%j" in config.output_dir):
        raise UserError("--cluster local is this machine alone: give --nodes 1 and an --output_dir without %j")
    if config.gpus > 1:
        raise UserError("--gpus is for fastdino train: say with --ngpus and --nodes how many processes Slurm starts")
    training, _ = validated(training_of(config))
    # Triton's and torch's modules are needed where it trains, not where it is submitted.
    from fastdino.submit.task import Training

    folder = Path(config.output_dir) / "submitit"
    executor = submitit.AutoExecutor(folder=folder, cluster=config.cluster, slurm_max_num_timeout=MOST_TIMEOUTS)
    executor.update_parameters(**_resources(config))
    try:
        job = executor.submit(Training(training))
    except (submitit.core.utils.FailedJobError, submitit.core.utils.FailedSubmissionError) as error:
        reason = (str(error).strip().splitlines() or ["no reason given"])[-1]
        raise UserError(f"Slurm refused the job ({reason}): change the flags, or ask who runs the cluster") from error
    _tell(config, job)
    return job


def _library() -> Any:
    try:
        import submitit
    except ImportError as error:
        raise UserError("fastdino submit needs submitit: pip install 'fastdino[slurm]'") from error
    return submitit


def _resources(config: SubmitConfig) -> dict[str, Any]:
    """In submitit's words; one process a GPU, and the cores for its threads."""
    resources: dict[str, Any] = {
        "name": "fastdino",
        "nodes": config.nodes,
        "gpus_per_node": config.ngpus,
        "tasks_per_node": config.ngpus,
        "cpus_per_task": max(1, config.num_workers),
        "mem_gb": GIGABYTES_PER_GPU * config.ngpus,
        "timeout_min": config.timeout,
        "stderr_to_stdout": True,
        "slurm_signal_delay_s": SECONDS_TO_STOP,
    }
    if config.partition:
        resources["slurm_partition"] = config.partition
    if config.use_volta32:
        resources["slurm_constraint"] = "volta32gb"
    if config.comment:
        resources["slurm_comment"] = config.comment
    return resources


def _tell(config: SubmitConfig, job: Any) -> None:
    follow = "" if config.cluster == "local" else f"; squeue --job {job.job_id}; to end it: scancel {job.job_id}"
    console = Console()
    for line in (
        f"Submitted job {job.job_id}: {config.nodes} x {config.ngpus} processes.",
        f"Checkpoints and log.txt: {config.output_dir.replace('%j', str(job.job_id))}",
        f"The job's own files: {job.paths.folder}",
        f"Follow it: tail -F {job.paths.stdout}{follow}",
    ):
        console.print(line, highlight=False, markup=False, soft_wrap=True)
