"""What each process of a submitted job does."""

from __future__ import annotations

import dataclasses
import os
import signal
import sys

from submitit import JobEnvironment
from submitit.helpers import DelayedSubmission, TorchDistributedEnvironment

from fastdino.config import TrainConfig
from fastdino.errors import TrainingFailed, UserError
from fastdino.train.guards import Signals
from fastdino.train.run import run_command


class Training:
    """A process's part of a training, pickled when it is submitted and called when it is started.

    Before the time is up and on a preemption submitit's signal comes: the processes end the step, save, and the first
    has the job queued again. SIGTERM, which `scancel` sends as well as a preemption, saves; Slurm itself ends the job
    and, if it is a preemption, queues it again.
    """

    def __init__(self, config: TrainConfig) -> None:
        self.config = config

    def __call__(self) -> None:
        job = JobEnvironment()
        _announce_place(job)
        output_dir = self.config.output_dir.replace("%j", str(job.job_id))
        requeue = job._usr_sig()  # the one that users can change, in submitit's own variable
        try:
            run_command(
                dataclasses.replace(self.config, output_dir=output_dir),
                Signals(stopping=(requeue,), saving=(signal.SIGTERM, signal.SIGUSR1)),
            )
        except (UserError, TrainingFailed) as error:
            # An exception would become a stack trace in the job's log.
            print(f"fastdino: {error}", file=sys.stderr)
            raise SystemExit(2 if isinstance(error, UserError) else 1) from None
        except KeyboardInterrupt as stop:
            if stop.args != (requeue,):
                raise
            # All is saved, and submitit's own handler is in place again.
            signal.raise_signal(requeue)

    def checkpoint(self) -> DelayedSubmission:
        """What submitit queues again: the same run, which goes on from its checkpoint.pth."""
        return DelayedSubmission(Training(self.config))


def _announce_place(job: JobEnvironment) -> None:
    """Tell `fastdino.distributed.world` rank, size and meeting place, by the names that torchrun uses."""
    TorchDistributedEnvironment().export(set_cuda_visible_devices=False, overwrite=True)
    if job.cluster == "slurm":
        # srun gives each process cores of its own, which are not to be divided again.
        del os.environ["LOCAL_WORLD_SIZE"]
