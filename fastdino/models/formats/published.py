"""Weights known by a name: those that facebookresearch/dino and /dinov2 publish, and repositories of Hugging Face."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import torch

from fastdino.errors import UserError
from fastdino.models.formats.folder import WEIGHT_FILES, read_folder

HUB_PREFIX = "hf_hub:"
_SERVER = "https://dl.fbaipublicfiles.com"


class Published(NamedTuple):
    """A backbone that can be had by name. `patch_size` is None for architectures that fix it in their name."""

    arch: str
    patch_size: int | None
    url: str


def _dino(arch: str, patch_size: int | None, file: str) -> Published:
    return Published(arch, patch_size, f"{_SERVER}/dino/{file}_pretrain/{file}_pretrain.pth")


def _dinov2(size: str, letter: str, registers: str) -> Published:
    name = f"dinov2_vit{letter}14"
    url = f"{_SERVER}/dinov2/{name}/{name}{registers}_pretrain.pth"
    return Published(f"vit_{size}_patch14{registers}_dinov2", None, url)


PUBLISHED: dict[str, Published] = {
    "dino_vits16": _dino("vit_small", 16, "dino_deitsmall16"),
    "dino_vits8": _dino("vit_small", 8, "dino_deitsmall8"),
    "dino_vitb16": _dino("vit_base", 16, "dino_vitbase16"),
    "dino_vitb8": _dino("vit_base", 8, "dino_vitbase8"),
    "dino_resnet50": _dino("resnet50", None, "dino_resnet50"),
    **{
        f"dino_xcit_{size}": _dino(f"xcit_{size}", None, f"dino_xcit_{size}")
        for size in ("small_12_p16", "small_12_p8", "medium_24_p16", "medium_24_p8")
    },
    **{
        f"dinov2_vit{letter}14{suffix}": _dinov2(size, letter, registers)
        for size, letter in (("small", "s"), ("base", "b"), ("large", "l"), ("giant", "g"))
        for suffix, registers in (("", ""), ("_reg", "_reg4"))
    },
}


def is_name(weights: str | Path) -> bool:
    """Whether `weights` names something published. A file or folder of that name comes first."""
    text = str(weights)
    return (text in PUBLISHED or text.startswith(HUB_PREFIX)) and not Path(weights).exists()


def fetch(name: str) -> dict[str, Any]:
    """What a name stands for, like a checkpoint of ours; downloaded once and kept where torch and Hugging Face keep
    theirs.

    Raises UserError where it cannot be had.
    """
    try:
        if name.startswith(HUB_PREFIX):
            from huggingface_hub import snapshot_download

            files = [*WEIGHT_FILES, "config.json"]
            return read_folder(Path(snapshot_download(name.removeprefix(HUB_PREFIX), allow_patterns=files)))
        published = PUBLISHED[name]
        # Only tensors and plain containers are rebuilt.
        state = torch.hub.load_state_dict_from_url(published.url, map_location="cpu", weights_only=True)
    except UserError:
        raise
    except Exception as error:
        # Two libraries over the network raise errors of many kinds, most of them with a page of text.
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(
            f"{name} cannot be downloaded ({reason}): download it elsewhere and give the path of the file"
        ) from error
    settings = {"arch": published.arch, "patch_size": published.patch_size}
    return {**state, "args": {key: value for key, value in settings.items() if value is not None}}
