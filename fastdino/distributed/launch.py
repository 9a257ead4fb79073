"""Starts the processes of `fastdino train --gpus N`, by what is behind torchrun."""

from __future__ import annotations

import logging
import os
import socket
import sys
import uuid

import torch
from rich.console import Console
from torch.distributed.elastic.multiprocessing import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from fastdino.cli import flags
from fastdino.config import TrainConfig
from fastdino.cores import usable_cores
from fastdino.errors import UserError
from fastdino.train.validate import validated

# As many as a long run on a machine that is sound but for an accident needs.
RESTARTS = 3


def start_ranks(config: TrainConfig) -> None:
    """Train in `config.gpus` processes on this machine; signals that reach this one are passed on to them.

    When one of them is killed all start again, up to RESTARTS times, and go on from the last checkpoint.

    Raises UserError for settings that cannot work, and SystemExit with the code of the process that failed first, as a
    shell gives it (128 + n after signal n).
    """
    # Once, instead of once a process.
    validated(config)
    console = Console()
    available = torch.cuda.device_count()
    if not available:
        console.print(
            f"[yellow]note:[/] there is no GPU: {config.gpus} processes share the CPU", highlight=False, soft_wrap=True
        )
    elif available < config.gpus:
        raise UserError(f"--gpus {config.gpus} is more than this machine has: give --gpus {available} or fewer")
    # Each would take all cores for its matrix products otherwise.
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, usable_cores() // config.gpus)))
    # What the launcher has to say of a process that failed is said below, in a sentence.
    logging.disable(logging.ERROR)
    try:
        _run(config)
    except SignalException as stopped:
        raise SystemExit(128 + int(stopped.sigval)) from None
    except ChildFailedError as error:
        raise SystemExit(_told(error)) from None
    finally:
        logging.disable(logging.NOTSET)


def _run(config: TrainConfig) -> None:
    """Start all processes, and again while one of them is killed and there are RESTARTS left.

    The launcher would start them again after any failure, and have a user's mistake explained RESTARTS times.
    """
    for restarts_left in range(RESTARTS, -1, -1):
        settings = LaunchConfig(
            min_nodes=1,
            max_nodes=1,
            nproc_per_node=config.gpus,
            run_id=uuid.uuid4().hex,
            rdzv_backend="c10d",
            rdzv_endpoint="127.0.0.1:0",
            max_restarts=0,
        )
        try:
            elastic_launch(settings, sys.executable)("-m", "fastdino", "train", *flags(config))
        except ChildFailedError as error:
            if not restarts_left or error.get_first_failure()[1].exitcode >= 0:
                raise
            _told(error)
            print("fastdino: all ranks start again, from the last checkpoint", file=sys.stderr)
        else:
            return


def _told(error: ChildFailedError) -> int:
    """Say who failed, unless that was rank 0, which says so itself. Returns the exit code."""
    rank, failure = error.get_first_failure()
    code, name = int(failure.exitcode), f"rank {rank} on {socket.gethostname()}"
    if code < 0:
        print(f"fastdino: {name} was ended by signal {-code} ({failure.signal_name()})", file=sys.stderr)
    elif rank:
        print(f"fastdino: {name} failed: {failure.message}", file=sys.stderr)
    return code if code >= 0 else 128 - code
