"""Results that cannot be written, said in one sentence."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from fastdino.errors import UserError


@contextlib.contextmanager
def writing_to(path: str | Path, flag: str) -> Iterator[Path]:
    """Yield `path`, which `flag` gave, and turn any OSError on the way (no space, no permission) into a
    UserError.
    """
    try:
        yield Path(path)
    except OSError as error:
        raise UserError(
            f"cannot write to {path} ({error.strerror}): free or unlock the place, or give another {flag}"
        ) from error
