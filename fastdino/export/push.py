"""Uploading a folder to Hugging Face."""

from __future__ import annotations

from pathlib import Path

from huggingface_hub import HfApi

from fastdino.errors import UserError

PATTERNS = ["*.json", "*.safetensors", "*.md"]


def push(folder: Path, repository: str) -> str:
    """Upload `folder` to OWNER/NAME, made if there is none, and return its address.

    Raises UserError without a network, a login or the right to write there.
    """
    try:
        address = HfApi().create_repo(repository, exist_ok=True)
        HfApi().upload_folder(repo_id=repository, folder_path=folder, allow_patterns=PATTERNS)
    except Exception as error:  # of the network, of the server, or for the name
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(
            f"{folder} is written and cannot be uploaded to {repository} ({reason}): log in with `hf auth login`, or "
            f"upload it by hand"
        ) from error
    return str(address)
