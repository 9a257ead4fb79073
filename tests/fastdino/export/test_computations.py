"""Formats that keep the computation: ONNX, TorchScript, torch.export."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from fastdino import VisionTransformer
from fastdino.export.plain import at_size
from fastdino.export.run import export
from fastdino.models.pretrained import Backbone
from tests.fastdino.export.conftest import described

# Beyond what the export itself has compared with.
SHAPES = [(5, 3, 32, 32), (1, 3, 16, 16), (2, 3, 72, 40), (1, 3, 224, 224)]


@pytest.fixture
def pictures() -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(2)
    return [torch.randn(shape, generator=generator) for shape in SHAPES]


@pytest.fixture
def shallow() -> Backbone:
    """A single block: torch.export takes seconds for each."""
    torch.manual_seed(1)
    return described(VisionTransformer(img_size=32, patch_size=8, embed_dim=32, depth=1, num_heads=2), "shallow")


@torch.no_grad()
def test_onnx_takes_any_batch_and_size(shallow: Backbone, pictures: list[torch.Tensor], tmp_path: Path) -> None:
    reason = "fastdino[export] is not installed"
    pytest.importorskip("onnxscript", reason=reason)
    onnxruntime = pytest.importorskip("onnxruntime", reason=reason)
    export(shallow, "onnx", tmp_path / "x.onnx")
    assert [path.name for path in tmp_path.iterdir()] == ["x.onnx"]
    session = onnxruntime.InferenceSession(tmp_path / "x.onnx")
    for batch in pictures:
        (features,) = session.run(["features"], {"pictures": batch.numpy()})
        torch.testing.assert_close(torch.from_numpy(features), shallow.model(batch), rtol=0, atol=1e-4)


@torch.no_grad()
def test_torchscript_takes_any_batch_and_size(small: Backbone, pictures: list[torch.Tensor], tmp_path: Path) -> None:
    export(small, "torchscript", tmp_path / "x.pt")
    module = torch.jit.load(tmp_path / "x.pt")
    for batch in pictures:
        torch.testing.assert_close(module(batch), small.model(batch), rtol=0, atol=1e-5)


@torch.no_grad()
def test_torch_export_takes_any_batch_and_size(shallow: Backbone, pictures: list[torch.Tensor], tmp_path: Path) -> None:
    export(shallow, "torch-export", tmp_path / "x.pt2")
    module = torch.export.load(tmp_path / "x.pt2").module()
    for batch in pictures:
        torch.testing.assert_close(module(batch), shallow.model(batch), rtol=0, atol=1e-5)


@torch.no_grad()
def test_a_fixed_size_takes_no_other(small: Backbone, tmp_path: Path) -> None:
    export(at_size(small, 48), "torchscript", tmp_path / "x.pt", fixed_size=True)
    module = torch.jit.load(tmp_path / "x.pt")
    batch = torch.randn(4, 3, 48, 48)
    torch.testing.assert_close(module(batch), small.model(batch), rtol=0, atol=1e-5)
    with pytest.raises(RuntimeError, match="size of tensor"):
        module(torch.zeros(1, 3, 32, 32))
