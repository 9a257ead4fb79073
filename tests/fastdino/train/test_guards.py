from __future__ import annotations

import errno
import os
import signal
import threading
from pathlib import Path

import pytest
import torch

from fastdino.errors import UserError
from fastdino.train.guards import explained_failures, stop_on_sigterm


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EACCES])
def test_a_disk_that_cannot_be_written_is_explained(number: int) -> None:
    with pytest.raises(UserError, match=r"cannot write to out .*another --output_dir"), explained_failures(Path("out")):
        raise OSError(number, os.strerror(number))


def test_other_errors_pass_through() -> None:
    with pytest.raises(ConnectionResetError), explained_failures(Path("out")):
        raise ConnectionResetError(errno.ECONNRESET, "reset")


def test_exhausted_gpu_memory_is_explained() -> None:
    with pytest.raises(UserError, match="halve --batch_size_per_gpu"), explained_failures(Path("out")):
        raise torch.OutOfMemoryError("CUDA out of memory")


def test_sigterm_interrupts_and_its_handler_goes_away() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt) as interruption, stop_on_sigterm():
        os.kill(os.getpid(), signal.SIGTERM)
        signal.pause()
    assert interruption.value.args == (signal.SIGTERM,)
    assert signal.getsignal(signal.SIGTERM) is before


def test_threads_may_train() -> None:
    """Only the main thread may set signal handlers."""
    errors: list[BaseException] = []

    def use() -> None:
        try:
            with stop_on_sigterm():
                pass
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=use)
    thread.start()
    thread.join()
    assert errors == []
