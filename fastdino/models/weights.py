"""Reading files of weights without running anything in them, and loading them without losing a key silently."""

from __future__ import annotations

import argparse
import zipfile
from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from fastdino.distributed.parts import split_state
from fastdino.errors import UserError
from fastdino.files import atomic_path

# What facebookresearch/dino leaves beside the tensors: its parsed arguments, and numpy's float64 as learning rate,
# under the names that numpy 1 and 2 give the same function.
_SCALAR = np.float64(0).__reduce__()[0]
HARMLESS: list[Any] = [
    argparse.Namespace,
    np.dtype,
    type(np.dtype(np.float64)),
    (_SCALAR, "numpy.core.multiarray.scalar"),
    (_SCALAR, "numpy._core.multiarray.scalar"),
]
# Listing every key of a ViT-B that does not fit would bury the cause.
KEYS_SHOWN = 8


def read_weights(path: str | Path) -> dict[str, Any]:
    """Contents of a PyTorch or safetensors file, on the CPU.

    Only tensors, plain containers and the few harmless types that facebookresearch/dino stores beside its weights are
    rebuilt: a file that holds any other object is refused, never executed. Raises UserError naming the file.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(
            f"there is no file of weights at {path}: give the path of a checkpoint.pth or .safetensors file"
        )
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        _require_stored(path)
        with torch.serialization.safe_globals(HARMLESS):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except UserError:
        raise
    except UnpicklingError as error:
        if "Unsupported global" not in str(error):
            raise UserError(_damaged(path)) from error
        raise UserError(
            f"{path} holds Python objects besides weights, which could run code when loaded; "
            f"save it again as a plain state_dict"
        ) from error
    except Exception as error:
        # Arbitrary bytes fail in arbitrary places of the unpickler, with errors of any kind.
        raise UserError(_damaged(path)) from error
    if not isinstance(content, dict):
        raise UserError(f"{path} holds a {type(content).__name__}, not a dictionary of weights")
    return content


def _require_stored(path: Path) -> None:
    """Raises UserError for an archive that unpacks to more than its own size: torch.save stores, and never packs."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            unpacked = sum(entry.file_size for entry in archive.infolist())
        if unpacked > path.stat().st_size:
            raise UserError(
                f"{path} would unpack to {unpacked:,} bytes, which weights never do: use another checkpoint"
            )


def save_weights(content: Mapping[str, Any] | Tensor, path: str | Path) -> None:
    """Write `content` with torch.save, whole or not at all. Raises OSError (no space, not writable)."""
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        try:
            torch.save(content, file)
        except RuntimeError as error:
            # Closing its archive on a full disk, torch raises an error of its own over the one that says why.
            cause = error.__context__
            while cause is not None and not isinstance(cause, OSError):
                cause = cause.__context__
            raise cause or error from None


def save_safetensors(state: Mapping[str, Tensor], path: str | Path, metadata: Mapping[str, str]) -> None:
    """Write `state` as safetensors, which takes neither views nor tensors that share memory."""
    own = {key: value.detach().clone(memory_format=torch.contiguous_format) for key, value in state.items()}
    save_file(own, path, {"format": "pt", **metadata})


def strip_prefix(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """`state` with `prefix` removed from the keys that have it."""
    return {key.removeprefix(prefix): value for key, value in state.items()}


def load_strictly(module: nn.Module, state: Mapping[str, Tensor], source: str, remedy: str) -> None:
    """Load `state` into `module`, every key and shape matching; raises what `require_fit` does, changing nothing."""
    require_fit(module, state, source, remedy)
    module.load_state_dict(split_state(state, module))


def require_fit(module: nn.Module, state: Mapping[str, Tensor], source: str, remedy: str) -> None:
    """Raises UserError listing the keys of `state` that differ from the module's, with half a sentence as `remedy`."""
    own = module.state_dict()
    missing = [key for key in own if key not in state]
    unexpected = [key for key in state if key not in own]
    reshaped = [
        f"{key} {tuple(state[key].shape)} where the model has {tuple(own[key].shape)}"
        for key in own
        if key in state and own[key].shape != state[key].shape
    ]
    differences = [
        f"{title}: {_some(keys)}"
        for title, keys in (
            ("missing", missing),
            ("not in the model", unexpected),
            ("of another shape", reshaped),
        )
        if keys
    ]
    if differences:
        raise UserError(f"{source} does not fit the model ({'; '.join(differences)}): {remedy}")


def _some(keys: list[str]) -> str:
    shown = ", ".join(keys[:KEYS_SHOWN])
    return shown if len(keys) <= KEYS_SHOWN else f"{shown} and {len(keys) - KEYS_SHOWN} more"


def _damaged(path: Path) -> str:
    return f"{path} cannot be read as weights (damaged, cut short, or of another format): use another checkpoint"
