"""Checks that a wheel holds the whole library and nothing else: `python scripts/check_wheel.py WHEEL`."""

from __future__ import annotations

import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def expected_files() -> set[str]:
    """Every source file of the library under the name it is installed as, without the compiled extension."""
    patterns = ("fastdino/**/*.py*", "fastdino/visualize/static/**/*.*")
    library = {path.relative_to(ROOT).as_posix() for pattern in patterns for path in ROOT.glob(pattern)}
    kernels = {"fastdino/" + path.relative_to(ROOT).as_posix() for path in ROOT.glob("kernels/**/*.py")}
    return {name for name in library | kernels if not name.endswith(".pyc")} | {"fastdino/py.typed"}


def main(wheel: str) -> None:
    """Exits with a list of what is missing or too much."""
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
    extension = {name for name in names if name.startswith("fastdino/_native.") and name.endswith((".so", ".pyd"))}
    problems = [f"missing: {name}" for name in sorted(expected_files() - names)]
    problems += [f"does not belong: {name}" for name in sorted(names - expected_files() - extension)]
    if len(extension) != 1:
        problems.append("the compiled extension is not there exactly once")
    if problems:
        sys.exit("\n".join(problems))
    print(f"{Path(wheel).name}: {len(names)} files, all that belong and no others")


if __name__ == "__main__":
    main(sys.argv[1])
