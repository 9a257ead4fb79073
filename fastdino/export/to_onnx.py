"""ONNX, for ONNX Runtime and what else reads it: `pictures` (B, 3, H, W) -> `features` (B, D)."""

from __future__ import annotations

import logging
import warnings
from pathlib import Path

import onnxruntime
import onnxscript  # noqa: F401  torch's exporter asks for it, with a page of text
import torch
from torch import Tensor

from fastdino.errors import UserError
from fastdino.export.formats import Features
from fastdino.export.plain import dynamic_shapes, example, plain
from fastdino.models.pretrained import Backbone

# What protobuf, in which ONNX files are written, can hold.
LARGEST_BYTES = 2**31 - 2**20


def write(backbone: Backbone, path: Path, fixed_size: bool) -> None:
    """One file, weights included. Raises UserError for a network that is too large for one."""
    size = sum(tensor.numel() * tensor.element_size() for tensor in backbone.model.state_dict().values())
    if size > LARGEST_BYTES:
        raise UserError(f"an ONNX file holds 2 GB and these weights are {size / 1e9:.1f} GB: choose another --format")
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            plain(backbone, fixed_size=fixed_size),
            (example(backbone, fixed_size),),
            path,
            input_names=["pictures"],
            output_names=["features"],
            dynamic_shapes=dynamic_shapes(backbone, fixed_size),
            dynamo=True,
            external_data=False,
            verbose=False,
        )


def load(path: Path, backbone: Backbone) -> Features:
    """ONNX Runtime on the CPU."""
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])

    def features(pictures: Tensor) -> Tensor:
        return torch.from_numpy(session.run(None, {"pictures": pictures.numpy()})[0])

    return features


def usage(path: Path, backbone: Backbone) -> str:
    """The lines of Python that load it."""
    return (
        f'session = onnxruntime.InferenceSession("{path}")\nfeatures = session.run(None, {{"pictures": pictures}})[0]'
    )
