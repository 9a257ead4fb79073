"""Builds csrc/ with the compiler's sanitizers and runs tests/csrc/programs/ over good and damaged JPEGs."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import native_toolchain as toolchain

ROOT = toolchain.ROOT
PROGRAMS = "tests/csrc/programs"
# Programs that choose among the instruction sets themselves, and what they do it with.
COMPARING = {"kernels", "crops"}
INSTRUCTION_SETS = [
    (f"{PROGRAMS}/instruction_sets.cpp",),
    (f"{PROGRAMS}/generic.cpp",),
    # GCC notes that it once passed 64-byte registers in another way, which matters to nothing here.
    (
        "csrc/simd/avx512.cpp",
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
BUILDS = [
    Build(
        "address", ["-fsanitize=address,undefined,float-cast-overflow", *STRICT], ["jpeg", "kernels", "crops", "pool"]
    ),
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
        corpus = Path(folder, "corpus")
        corpus.mkdir()
        subprocess.run([sys.executable, "-m", "tests.csrc.jpegs", str(corpus)], cwd=ROOT, check=True)
        pictures = sorted(map(str, corpus.iterdir()))
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
    folder.mkdir()
    command = [*toolchain.compiler(), *toolchain.COMPILE_FLAGS, *build.flags, "-pthread"]
    command += [f"-I{ROOT / 'csrc'}", f"-I{ROOT / 'tests/csrc'}", *jpeg.compile]
    simd = toolchain.SIMD_FLAGS if toolchain.is_x86() else {}
    if simd:
        command.append("-DFASTDINO_X86=1")

    def compile_one(source: str, *extra: str) -> str:
        # avx512.cpp is compiled twice, in two ways that their first flag tells apart.
        target = folder / f"{(source + ''.join(extra[:1])).replace('/', '_')}.o"
        subprocess.run([*command, *extra, "-c", str(ROOT / source), "-o", str(target)], check=True)
        return str(target)

    with ThreadPoolExecutor(os.cpu_count()) as workers:
        # The bindings need a Python interpreter around them; what they call does not.
        rooms = [source for source in toolchain.sources() if not source.startswith("csrc/bindings/")]
        library = [workers.submit(compile_one, source, *simd.get(source, [])) for source in [*rooms, *simd]]
        instruction_sets = [workers.submit(compile_one, *arguments) for arguments in INSTRUCTION_SETS]
        mains = {name: workers.submit(compile_one, f"{PROGRAMS}/{name}.cpp") for name in build.programs}
    # From an archive a program takes what it has not got itself.
    archive = folder / "csrc.a"
    subprocess.run(["ar", "rcs", str(archive), *(future.result() for future in library)], check=True)
    for name, main_object in mains.items():
        objects = [main_object, *(instruction_sets if name in COMPARING else [])]
        inputs = [*(future.result() for future in objects), str(archive)]
        subprocess.run([*command, *inputs, *jpeg.link, "-o", str(folder / name)], check=True)
    return [folder / name for name in build.programs]


if __name__ == "__main__":
    try:
        main()
    except subprocess.CalledProcessError as error:
        sys.exit(f"sanitize: {Path(error.cmd[0]).name} failed with {error.returncode}")
