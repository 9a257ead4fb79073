"""What `fastdino doctor` found out about the kernels on this machine's GPUs, kept in the user's cache folder."""

from __future__ import annotations

import importlib.metadata
import json
from collections.abc import Mapping
from pathlib import Path

import torch

from fastdino.files import cache_folder, write_atomically


def why_distrusted(operation: str, device: torch.device) -> str:
    """Why the kernel of `operation` is switched off on `device`, in a sentence; empty if it is not."""
    return _read().get(_subject(device), {}).get(operation, "")


def keep(device: torch.device, distrusted: Mapping[str, str]) -> Path | None:
    """Remember which operations' kernels are switched off on `device` and why; all others count as sound.

    They are remembered for this kind of GPU and these versions of torch, Triton and fastdino. Returns the file, or None
    where nothing can be kept.
    """
    try:
        path = _path()
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, json.dumps({**_read(), _subject(device): dict(distrusted)}, indent=2) + "\n")
    except (OSError, RuntimeError):
        return None
    return path


def _path() -> Path:
    return cache_folder() / "doctor.json"


def _read() -> dict[str, dict[str, str]]:
    try:
        content = json.loads(_path().read_text())
    except (OSError, RuntimeError, ValueError):
        return {}
    entries = content.items() if isinstance(content, dict) else ()
    return {subject: reasons for subject, reasons in entries if isinstance(reasons, dict)}


def _subject(device: torch.device) -> str:
    versions = " ".join(f"{name} {_version(name)}" for name in ("torch", "triton", "fastdino"))
    gpu = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    return f"{gpu}, {versions}"


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "unknown"
