"""What building csrc/ takes and whether it is here: a C++17 compiler, Python's headers, libjpeg-turbo.

Standard library only, since it runs before anything is installed. As a script it prints the names of the
Debian and Ubuntu packages that would supply what is missing.
"""

from __future__ import annotations

import importlib
import os
import platform
import shlex
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

COMPILER_PACKAGE = "g++"
PYTHON_PACKAGE = f"python{sys.version_info.major}.{sys.version_info.minor}-dev"
JPEG_PACKAGE = "libjpeg-dev"  # the name that leads to libjpeg-turbo on both Debian and Ubuntu

COMPILER_PROBE = "#include <optional>\nint main() { return std::optional<int>(0).value(); }\n"
PYTHON_PROBE = "#include <Python.h>\nint main() { return 0; }\n"
# jpeg_skip_scanlines is libjpeg-turbo's alone: the original libjpeg, which will not do, does not link.
JPEG_PROBE = """
#include <cstddef>
#include <cstdio>
#include <jpeglib.h>
int main() { jpeg_decompress_struct info; return jpeg_skip_scanlines(&info, 1); }
"""


ROOT = Path(__file__).resolve().parent.parent
# The crops must have Pillow's roundings: no contraction to fused multiply-add. Without the other two floating-point
# flags the inner loops would not be vectorised; they take away error flags, not digits.
COMPILE_FLAGS = [
    "-std=c++17",
    "-Wall",
    "-Wextra",
    "-ffp-contract=off",
    "-fno-math-errno",
    "-fno-trapping-math",
]
# Sources that only some of the machines can run, chosen among when the extension is loaded.
SIMD_FLAGS = {
    "csrc/simd/avx2.cpp": ["-mavx2"],
    "csrc/simd/avx512.cpp": ["-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl", "-mprefer-vector-width=512"],
}


class Flags(NamedTuple):
    """What the compiler and the linker are told to find a library."""

    compile: list[str]
    link: list[str]


def compiler() -> list[str]:
    """The C++ compiler's command, chosen as setuptools chooses it."""
    return shlex.split(os.environ.get("CXX") or sysconfig.get_config_var("CXX") or "c++")


def builds(source: str, flags: Flags) -> bool:
    """Whether `source`, a whole program, compiles and links."""
    with tempfile.TemporaryDirectory() as folder:
        probe = Path(folder, "probe.cpp")
        probe.write_text(source)
        command = [
            *compiler(),
            "-std=c++17",
            *flags.compile,
            str(probe),
            *flags.link,
            "-o",
            f"{folder}/probe",
        ]
        try:
            return subprocess.run(command, capture_output=True).returncode == 0
        except OSError:
            return False


def sources() -> list[str]:
    """csrc/ but for SIMD_FLAGS, relative to the project's folder."""
    found = sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "csrc").rglob("*.cpp"))
    return [path for path in found if path not in SIMD_FLAGS]


def is_x86() -> bool:
    """Whether SIMD_FLAGS mean anything to this machine's compiler."""
    return platform.machine().lower() in ("x86_64", "amd64")


def jpeg_flags() -> Flags | None:
    """How to use libjpeg-turbo; None if there is none."""
    return next((flags for flags in _jpeg_candidates() if builds(JPEG_PROBE, flags)), None)


def missing_packages() -> list[str]:
    """Packages to install before csrc/ can be built; empty if it can be."""
    if not builds(COMPILER_PROBE, Flags([], [])):
        return [
            COMPILER_PACKAGE,
            PYTHON_PACKAGE,
            JPEG_PACKAGE,
        ]  # without a compiler the others cannot be tried
    python = Flags([f"-I{path}" for path in python_include_dirs()], [])
    missing = [] if builds(PYTHON_PROBE, python) else [PYTHON_PACKAGE]
    return missing if jpeg_flags() else [*missing, JPEG_PACKAGE]


def python_include_dirs() -> list[str]:
    """Where Python.h should be."""
    paths = sysconfig.get_paths()
    return sorted({paths["include"], paths["platinclude"]})


def _jpeg_candidates() -> Iterator[Flags]:
    try:
        wheel = importlib.import_module("libjpeg")
        archive = str(Path(wheel.LIB_DIR, "libjpeg.a"))
        # Its symbols must not be exported: other extensions in the process carry other versions of libjpeg.
        hide = ["-Wl,--exclude-libs,ALL"] if sys.platform == "linux" else []
        yield Flags([f"-I{wheel.INCLUDE_DIR}"], [archive, *hide])
    except (ImportError, AttributeError):
        pass
    try:
        answers = [
            subprocess.run(["pkg-config", option, "libjpeg"], capture_output=True, text=True, check=True).stdout
            for option in ("--cflags", "--libs")
        ]
        yield Flags(*map(shlex.split, answers))
    except (OSError, subprocess.CalledProcessError):
        pass
    yield Flags([], ["-ljpeg"])


if __name__ == "__main__":
    print(*missing_packages())
