"""Results written, or the reason in one sentence why they cannot be."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fastdino.errors import UserError
from fastdino.files import write_atomically


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


def write_numbers(result: dict[str, Any], output: str | None) -> None:
    """The file that `--output` names, as JSON; nothing where it names none."""
    if output:
        with writing_to(output, "--output") as path:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(path, json.dumps(result, indent=2) + "\n")
