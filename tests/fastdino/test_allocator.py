from __future__ import annotations

import platform
import subprocess
import sys

import pytest

# Page faults while 40 MiB are taken and cleared a second time; the block that ends the heap is freed in between.
PROGRAM = """
import resource, sys
from fastdino.allocator import keep_freed_memory

if sys.argv[1] == "keep":
    assert keep_freed_memory()

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    bytearray(40 * 2**20)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

faults()
print(faults())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="this C library has no mallopt")
def test_freed_memory_is_taken_again_without_page_faults() -> None:
    kept, given_back = (
        int(subprocess.run([sys.executable, "-c", PROGRAM, how], check=True, capture_output=True, text=True).stdout)
        for how in ("keep", "default")
    )
    # 40 MiB are 10,240 pages of 4 KiB, or 20 of 2 MiB.
    assert kept < 10 < given_back
