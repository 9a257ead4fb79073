from __future__ import annotations

import os
import subprocess
import sys
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fastdino import native

pytestmark = [
    pytest.mark.skipif(not native.available(), reason=native.why_not() or "never"),
    pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="Linux tells how much memory is resident"),
    pytest.mark.skipif("libasan" in os.environ.get("LD_PRELOAD", ""), reason="the address sanitizer holds memory back"),
]

# A process of its own, in which nothing else asks for memory.
SCRIPT = """
import sys
from fastdino.data import MultiCropLoader

def resident():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmRSS"))

loader = MultiCropLoader(sys.argv[1], 500, num_threads=2, global_size=8, local_size=4, local_crops_number=1,
                         implementation="native")
samples = 0
while samples < 100_000:
    for crops, labels in loader:
        samples += len(labels)
        if samples % 10_000 == 0:
            print(resident())
loader.close()
"""


def test_100_000_samples_leave_the_memory_as_it_is(tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    for index in range(1003):
        pixels = draw.integers(0, 256, (*draw.integers(8, 33, 2), 3), dtype=np.uint8)
        stream = BytesIO()
        # A few go through Pillow, and a few are skipped.
        Image.fromarray(pixels).save(stream, "PNG" if index % 50 == 0 else "JPEG")
        content = stream.getvalue()
        (tmp_path / f"{index}.jpg").write_bytes(content[:100] if index % 50 == 1 else content)
    path = os.pathsep.join([str(Path(__file__).parents[3]), *sys.path])
    environment = os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    output = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(tmp_path)], env=environment, stdout=subprocess.PIPE, text=True, check=True
    ).stdout
    kilobytes = [int(line) for line in output.split()]
    assert len(kilobytes) == 10
    warm = kilobytes[0]
    assert max(kilobytes) <= 1.05 * warm, kilobytes
