"""Tests the data package with an extension that is built with the address and behaviour sanitizers."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import native_toolchain as toolchain

TESTS = ["tests/csrc", "tests/fastdino/data"]
WHAT_IT_TAKES = [
    "setup.py",
    "pyproject.toml",
    "README.md",
    "LICENSE",
    "csrc",
    "fastdino",
    "kernels",
    "scripts",
    "tests",
]


def test_extension(flags: list[str], folder: Path) -> None:
    """Raises subprocess.CalledProcessError on the first failure."""
    copy = folder / "fastdino"
    copy.mkdir()
    for name in WHAT_IT_TAKES:
        source = toolchain.ROOT / name
        if source.is_dir():
            # An extension that is there already must not be taken for the one to test.
            shutil.copytree(source, copy / name, ignore=shutil.ignore_patterns("*.so", "__pycache__"))
        else:
            shutil.copy(source, copy)
    joined = " ".join(flags)
    build = {"CFLAGS": joined, "CXXFLAGS": joined, "LDFLAGS": joined, "FASTDINO_REQUIRE_NATIVE": "1"}
    run(["setup.py", "-q", "build_ext", "--inplace"], copy, build)
    # Python itself is built without the sanitizers, whose libraries must come first. libstdc++ must be there when
    # they look for what they replace in it. Python does not free everything at its end.
    libraries = " ".join(library(name) for name in ("libasan.so", "libubsan.so", "libstdc++.so.6"))
    test = {"LD_PRELOAD": libraries, "ASAN_OPTIONS": "detect_leaks=0", "OMP_NUM_THREADS": "1"}
    run(["-m", "pytest", "-q", "-p", "no:cacheprovider", *TESTS], copy, test)


def run(arguments: list[str], folder: Path, environment: dict[str, str]) -> None:
    """Runs Python in `folder`."""
    subprocess.run([sys.executable, *arguments], cwd=folder, env={**os.environ, **environment}, check=True)


def library(name: str) -> str:
    """Where the compiler has one of its libraries."""
    answer = subprocess.run(
        [*toolchain.compiler(), f"-print-file-name={name}"], capture_output=True, text=True, check=True
    )
    return answer.stdout.strip()
