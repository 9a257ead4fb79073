"""Runs csrc/ over good and damaged JPEGs under the address and undefined-behaviour sanitizers."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import native_toolchain as toolchain

ROOT = Path(__file__).resolve().parent.parent
SANITIZERS = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-fno-omit-frame-pointer"]


def main() -> None:
    """Exits with an error if it cannot be built, or on the first fault."""
    flags = toolchain.jpeg_flags()
    if flags is None:
        packages = " ".join(toolchain.missing_packages())
        sys.exit(f"sanitize needs a C++ compiler and libjpeg: apt-get install {packages}")
    # The bindings need a Python interpreter around them; what they call does not.
    sources = [path for room in ("jpeg", "crop") for path in sorted(ROOT.glob(f"csrc/{room}/*.cpp"))]
    # What every machine runs; the other instruction sets are built from the same text.
    sources += [ROOT / "csrc/simd/portable.cpp", ROOT / "csrc/simd/dispatch.cpp"]
    sources += sorted(ROOT.glob("tests/csrc/*.cpp"))
    with tempfile.TemporaryDirectory() as folder:
        corpus, program = Path(folder, "corpus"), Path(folder, "sanitize")
        corpus.mkdir()
        subprocess.run([sys.executable, "-m", "tests.csrc.jpegs", str(corpus)], cwd=ROOT, check=True)
        command = [
            *toolchain.compiler(),
            "-std=c++17",
            "-O1",
            "-g",
            "-Wall",
            "-Wextra",
            *SANITIZERS,
            f"-I{ROOT / 'csrc'}",
            *flags.compile,
        ]
        subprocess.run([*command, *map(str, sources), *flags.link, "-o", str(program)], check=True)
        subprocess.run([str(program), *map(str, sorted(corpus.iterdir()))], check=True)


if __name__ == "__main__":
    try:
        main()
    except subprocess.CalledProcessError as error:
        sys.exit(f"sanitize: {Path(error.cmd[0]).name} failed with {error.returncode}")
