"""The engine's inner loops exist for several instruction sets, which must give the same bytes."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from fastdino import native

pytestmark = pytest.mark.skipif(not native.available(), reason=native.why_not() or "never")

# What the CPU has, and the flags by which Linux calls it.
NEEDS = {"avx2": {"avx2"}, "avx512": {"avx512f", "avx512bw", "avx512dq", "avx512vl"}}

# Crops of the sizes of the recipe and of some that fill no register, of grey and of coloured photographs.
SCRIPT = """
import hashlib
from io import BytesIO
import torch
from PIL import Image
from skimage import data
from fastdino.data import MultiCropLoader

pictures = []
for pixels in (data.chelsea(), data.coffee(), data.camera(), data.rocket()):
    stream = BytesIO()
    Image.fromarray(pixels).save(stream, "JPEG")
    pictures.append(stream.getvalue())
digest = hashlib.sha256()
for output in ("uint8", "float32", "bfloat16"):
    for sizes in ((224, 96), (37, 11)):
        loader = MultiCropLoader(pictures, 4, num_threads=2, global_size=sizes[0], local_size=sizes[1],
                                 local_crops_number=4, output=output, implementation="native")
        for epoch in range(4):
            for crops, labels in loader:
                for crop in crops:
                    digest.update(crop.view(torch.uint8).numpy().tobytes())
        loader.close()
print(loader.implementation)
print(digest.hexdigest())
"""


def _with(instructions: str, *command: str) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join([str(Path(__file__).parents[3]), *sys.path])
    settings = {"PYTHONPATH": path, "OMP_NUM_THREADS": "1", "FASTDINO_SIMD": instructions}
    return subprocess.run([sys.executable, *command], env=os.environ | settings, capture_output=True, text=True)


@pytest.fixture(scope="module")
def portable() -> str:
    """The digest of the batches that the portable loops make."""
    answer = _with("portable", "-c", SCRIPT)
    name, digest = answer.stdout.split("\n")[:2]
    assert name == "C++ (portable), 2 threads", answer.stderr
    return digest


@pytest.mark.parametrize("instructions", NEEDS)
def test_batches_do_not_depend_on_the_instruction_set(portable: str, instructions: str) -> None:
    flags = set(Path("/proc/cpuinfo").read_text().split()) if Path("/proc/cpuinfo").exists() else set()
    if not NEEDS[instructions] <= flags:
        pytest.skip(f"this CPU has no {instructions} ({platform.machine()})")
    answer = _with(instructions, "-c", SCRIPT)
    assert answer.stdout.split("\n")[:2] == [f"C++ ({instructions}), 2 threads", portable], answer.stderr


def test_a_name_that_does_not_exist_is_answered_in_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "1.ppm").write_bytes(b"P6 1 1 255 abc")
    train = ["-m", "fastdino", "train", "--data_path", str(tmp_path), "--output_dir", str(tmp_path / "run")]
    answer = _with("sse9", *train, "--batch_size_per_gpu", "1")
    assert answer.returncode == 2
    assert "FASTDINO_SIMD is sse9; this CPU runs" in answer.stderr and "portable" in answer.stderr
    assert len(answer.stderr.strip().splitlines()) == 1 and "Traceback" not in answer.stderr
