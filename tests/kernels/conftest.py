"""Kernels under test run in Triton's interpreter, corrected."""

from __future__ import annotations

import pytest

pytest.importorskip("triton", reason="Triton is made for Linux only")

from benchmarks.gpu_proofs.interpreter import correct_bfloat16

correct_bfloat16()
