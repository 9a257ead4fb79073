"""Builds csrc/ with the compiler's sanitizers and runs tests/csrc/programs/ over good and damaged JPEGs.

With --python it builds the extension so instead, which takes minutes, and runs the data package's tests.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import native_toolchain as toolchain
from native_programs import ROOT, Workshop, write_corpus
from sanitized_python import test_extension

PROGRAMS = "tests/csrc/programs"
# Programs that choose among the instruction sets themselves, and what they do it with.
COMPARING = {"kernels", "crops"}
INSTRUCTION_SETS = [
    (f"{PROGRAMS}/instruction_sets.cpp",),
    (f"{PROGRAMS}/generic.cpp",),
    (
        "csrc/simd/avx512.cpp",
        # GCC notes that it once passed 64-byte registers in another way, which matters to nothing here.
        "-Wno-psabi",
        f"-I{ROOT / 'tests/csrc/emulated'}",
        "-DkAvx512=kEmulated",
        "-DFASTDINO_X86=1",
    ),
]


class Build(NamedTuple):
    """A way to compile csrc/, and the programs that are run so."""

    name: str
    flags: list[str]
    programs: list[str]


STRICT = ["-fno-sanitize-recover=all", "-fno-omit-frame-pointer", "-O1", "-g1"]
ADDRESS = ["-fsanitize=address,undefined,float-cast-overflow", *STRICT]
BUILDS = [
    Build("address", ADDRESS, ["jpeg", "kernels", "crops", "pool"]),
    Build("thread", ["-fsanitize=thread", *STRICT], ["pool"]),
    # The sanitizers bring a malloc of their own.
    Build("plain", ["-O2", "-g1"], ["allocations"]),
]


def main() -> None:
    """Exits with an error if it cannot be built, or on the first fault."""
    flags = toolchain.jpeg_flags()
    if flags is None:
        packages = " ".join(toolchain.missing_packages())
        sys.exit(f"sanitize needs a C++ compiler and libjpeg: apt-get install {packages}")
    with tempfile.TemporaryDirectory() as folder:
        if "--python" in sys.argv[1:]:
            test_extension(ADDRESS, Path(folder))
            return
        pictures = [str(path) for path in write_corpus(sys.executable, Path(folder, "corpus"))]
        for build in BUILDS:
            start = time.monotonic()
            programs = compile_programs(build, flags, Path(folder, build.name))
            print(f"== {build.name}: compiled in {time.monotonic() - start:.0f} s", flush=True)
            for program in programs:
                start = time.monotonic()
                subprocess.run([str(program), *pictures], check=True)
                print(f"   {time.monotonic() - start:.0f} s", flush=True)


def compile_programs(build: Build, jpeg: toolchain.Flags, folder: Path) -> list[Path]:
    """Where the build's programs stand once this returns."""
    with Workshop(toolchain.compiler(), build.flags, jpeg, folder) as workshop:
        mains = {name: workshop.compile(f"{PROGRAMS}/{name}.cpp") for name in build.programs}
        compared = [workshop.compile(*arguments) for arguments in INSTRUCTION_SETS] if COMPARING & set(mains) else []
        return [
            workshop.link(name, [program, *(compared if name in COMPARING else [])]) for name, program in mains.items()
        ]


if __name__ == "__main__":
    try:
        main()
    except subprocess.CalledProcessError as error:
        sys.exit(f"sanitize: {Path(error.cmd[0]).name} failed with {error.returncode}")
