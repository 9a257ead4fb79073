from __future__ import annotations

import errno
import os
import signal
import threading
from pathlib import Path

import pytest
import torch
from rich.console import Console

from fastdino.errors import UserError
from fastdino.train.guards import MicroBatchTooLarge, Signals, Tolerated, explained_failures, memory_shortage_as


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EACCES])
def test_a_disk_that_cannot_be_written_is_explained(number: int) -> None:
    with pytest.raises(UserError, match=r"cannot write to out .*another --output_dir"), explained_failures(Path("out")):
        raise OSError(number, os.strerror(number))


def test_other_errors_pass_through() -> None:
    with pytest.raises(ConnectionResetError), explained_failures(Path("out")):
        raise ConnectionResetError(errno.ECONNRESET, "reset")


def test_exhausted_memory_is_explained() -> None:
    with (
        pytest.raises(UserError, match=r"halve --batch_size_per_gpu .*fastdino plan"),
        explained_failures(Path("out")),
        memory_shortage_as(MicroBatchTooLarge),
    ):
        raise torch.OutOfMemoryError("CUDA out of memory")


def test_what_the_allocator_of_cpus_says_is_understood() -> None:
    with pytest.raises(MicroBatchTooLarge), memory_shortage_as(MicroBatchTooLarge):
        torch.empty(1 << 55)
    with pytest.raises(RuntimeError, match="another"), memory_shortage_as(MicroBatchTooLarge):
        raise RuntimeError("another one")


def test_sigterm_interrupts_and_its_handler_goes_away() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt) as interruption, Signals().handled():
        os.kill(os.getpid(), signal.SIGTERM)
        signal.pause()
    assert interruption.value.args == (signal.SIGTERM,)
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_step_ends_before_a_stop_unless_it_is_asked_for_twice() -> None:
    signals = Signals()
    with signals.handled(), signals.polite():
        os.kill(os.getpid(), signal.SIGUSR1)
        os.kill(os.getpid(), signal.SIGTERM)
        assert (signals.save, signals.stop) == (True, signal.SIGTERM)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGTERM)
            signal.pause()


def test_what_cannot_be_written_is_said_once(capsys: pytest.CaptureFixture[str]) -> None:
    tolerated = Tolerated(Console())
    for _ in range(2):
        with tolerated.writing("log.txt"):
            raise OSError(errno.ENOSPC, "No space left on device")
    assert capsys.readouterr().out.count("cannot write log.txt (No space left on device)") == 1
    with pytest.raises(OSError, match="No space"):
        tolerated.require_none()
    with tolerated.writing("log.txt"):
        pass
    assert "log.txt could be written again" in capsys.readouterr().out
    tolerated.require_none()


def test_threads_may_train() -> None:
    """Only the main thread may set signal handlers."""
    errors: list[BaseException] = []

    def use() -> None:
        try:
            with Signals().handled():
                pass
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=use)
    thread.start()
    thread.join()
    assert errors == []
