"""Lets libFuzzer invent JPEGs, recipes and draws, decodes and crops them, and stops at the first fault.

What it finds interesting stays in build/fuzz/corpus for the next time, what made it stop in build/fuzz/findings.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import native_toolchain as toolchain
from native_programs import ROOT, Workshop, write_corpus

HOME = ROOT / "build/fuzz"
TARGET = "tests/csrc/fuzz/crops.cpp"
DICTIONARY = ROOT / "tests/csrc/fuzz/jpeg.dict"
CLANG = ["clang++"]
FLAGS = ["-fsanitize=fuzzer,address,undefined", "-fno-sanitize-recover=all", "-fno-omit-frame-pointer", "-O1", "-g1"]
PROBE = 'extern "C" int LLVMFuzzerTestOneInput(const unsigned char*, unsigned long) { return 0; }\n'
CHOICES = 8  # bytes before a file: kChoices of the target
LONGEST = 20_000  # bytes: more than the largest seed has
SLOWEST = 20  # seconds for one input, of which none should take one
MOST_MEMORY = 2048  # MB


def main() -> None:
    """Exits with 1 on a fault, with 2 where there is nothing to fuzz with."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seconds", type=int, default=60, help="how long it may search (default: %(default)s)")
    parser.add_argument("finding", nargs="*", type=Path, help="run these inputs once each, and search for nothing")
    arguments = parser.parse_args()
    flags = toolchain.jpeg_flags()
    if flags is None or not can_fuzz():
        packages = " ".join([*toolchain.missing_packages(), "clang", "libclang-rt-dev"])
        print(f"fuzz needs clang with libFuzzer, and libjpeg: apt-get install {packages}", file=sys.stderr)
        sys.exit(2)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with Workshop(CLANG, FLAGS, flags, folder / "objects") as workshop:
            program = workshop.link("fuzz", [workshop.compile(TARGET)])
        if arguments.finding:
            subprocess.run([str(program), *map(str, arguments.finding)], check=True)
        else:
            search(program, folder, arguments.seconds)


def can_fuzz() -> bool:
    """Whether clang is here and has libFuzzer and the sanitizers with it."""
    if shutil.which(CLANG[0]) is None:
        return False
    with tempfile.TemporaryDirectory() as folder:
        probe = Path(folder, "probe.cpp")
        probe.write_text(PROBE)
        command = [*CLANG, *FLAGS, str(probe), "-o", f"{folder}/probe"]
        return subprocess.run(command, capture_output=True).returncode == 0


def search(program: Path, folder: Path, seconds: int) -> None:
    """Raises subprocess.CalledProcessError at the first fault."""
    seeds = folder / "seeds"
    seeds.mkdir()
    for number, jpeg in enumerate(write_corpus(sys.executable, folder / "jpegs")):
        choices = bytes((number * step) % 256 for step in range(1, CHOICES + 1))
        (seeds / jpeg.name).write_bytes(choices + jpeg.read_bytes())
    corpus, findings = HOME / "corpus", HOME / "findings"
    corpus.mkdir(parents=True, exist_ok=True)
    findings.mkdir(exist_ok=True)
    options = {
        "max_total_time": seconds,
        "max_len": LONGEST,
        "timeout": SLOWEST,
        "rss_limit_mb": MOST_MEMORY,
        "dict": DICTIONARY,
        "artifact_prefix": f"{findings}/",
        "print_final_stats": 1,
        "verbosity": 0,
    }
    subprocess.run([str(program), *(f"-{key}={value}" for key, value in options.items()), corpus, seeds], check=True)


if __name__ == "__main__":
    try:
        main()
    except subprocess.CalledProcessError as error:
        sys.exit(f"fuzz: {Path(error.cmd[0]).name} failed with {error.returncode}")
