"""Compiles csrc/, but for its bindings, into programs that run without Python."""

from __future__ import annotations

import os
import subprocess
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import native_toolchain as toolchain

ROOT = toolchain.ROOT


class Workshop:
    """Compiles in parallel, each source once, with one compiler and one set of flags. A context manager.

    Whatever does not compile raises subprocess.CalledProcessError, after the compiler has said why.
    """

    def __init__(self, compiler: list[str], flags: list[str], jpeg: toolchain.Flags, folder: Path) -> None:
        folder.mkdir(parents=True)
        self.folder = folder
        self.jpeg = jpeg
        self.simd = toolchain.SIMD_FLAGS if toolchain.is_x86() else {}
        includes = [f"-I{ROOT / 'csrc'}", f"-I{ROOT / 'tests/csrc'}"]
        self.command = [*compiler, *toolchain.COMPILE_FLAGS, *flags, "-pthread", *includes, *jpeg.compile]
        if self.simd:
            self.command.append("-DFASTDINO_X86=1")
        self.workers = ThreadPoolExecutor(os.cpu_count())
        # The bindings need a Python interpreter around them; what they call does not.
        rooms = [source for source in toolchain.sources() if not source.startswith("csrc/bindings/")]
        self.library = [self.compile(source, *self.simd.get(source, [])) for source in [*rooms, *self.simd]]

    def __enter__(self) -> Workshop:
        return self

    def __exit__(self, *_: object) -> None:
        self.workers.shutdown(cancel_futures=True)

    def compile(self, source: str, *extra: str) -> Future[str]:
        """Starts to compile one source with flags of its own."""
        # avx512.cpp may be compiled twice, in two ways that their first flag tells apart.
        target = self.folder / f"{(source + ''.join(extra[:1])).replace('/', '_')}.o"
        command = [*self.command, *extra, "-c", str(ROOT / source), "-o", str(target)]

        def run() -> str:
            subprocess.run(command, check=True)
            return str(target)

        return self.workers.submit(run)

    def link(self, name: str, objects: list[Future[str]]) -> Path:
        """A program of these objects and of what they lack from csrc/."""
        # From an archive only what is lacking is taken: programs may bring replacements.
        archive = self.folder / "csrc.a"
        if not archive.exists():
            subprocess.run(["ar", "rcs", str(archive), *(future.result() for future in self.library)], check=True)
        program = self.folder / name
        inputs = [*(future.result() for future in objects), str(archive), *self.jpeg.link]
        subprocess.run([*self.command, *inputs, "-o", str(program)], check=True)
        return program


def write_corpus(python: str, folder: Path) -> list[Path]:
    """The JPEGs of tests/csrc/jpegs.py as files."""
    folder.mkdir(parents=True)
    subprocess.run([python, "-m", "tests.csrc.jpegs", str(folder)], cwd=ROOT, check=True)
    return sorted(folder.iterdir())
