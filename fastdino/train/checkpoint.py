"""`checkpoint.pth` in facebookresearch/dino's format: written whole or not at all, read without running anything."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from torch import Tensor

from fastdino.distributed.parts import split_optimizer_state, split_state, whole
from fastdino.errors import UserError
from fastdino.models.backbones import has_batchnorms
from fastdino.models.weights import read_weights, require_fit, save_weights, strip_prefix
from fastdino.train.position import Position
from fastdino.train.saving import kept
from fastdino.train.step import Trainee

REMEDY = "give the flags that the run was started with, or another --output_dir"


def checkpoint_content(trainee: Trainee, position: Position, args: Mapping[str, Any]) -> dict[str, Any]:
    """What goes into the file, sharing the tensors of `trainee`; all processes have to ask for that of split networks.

    Keys: `student`, `teacher`, `optimizer`, `epoch` (the one to go on with), `args`, `dino_loss`, `fp16_scaler` where
    the loss is scaled, and `fastdino`, the position within the epoch. Networks that the original wraps for distributed
    training carry its `module.` prefix: the student, and a teacher with BatchNorm. `args` is a plain dict, so that
    torch's default, safe loading accepts the file.
    """
    content = {
        "student": add_prefix(trainee.student.state_dict(), "module."),
        "teacher": add_prefix(trainee.teacher.state_dict(), "module." if has_batchnorms(trainee.teacher) else ""),
        "optimizer": trainee.optimizer.state_dict(),
        "epoch": position.epoch,
        "args": dict(args),
        "dino_loss": trainee.dino_loss.state_dict(),
        "fastdino": position.state_dict(),
    }
    scaler = trainee.precision.state_dict()
    if scaler is not None:
        content["fp16_scaler"] = scaler
    return whole(content)


def save_checkpoint(path: Path, trainee: Trainee, position: Position, args: Mapping[str, Any]) -> None:
    """Write `checkpoint_content` at once. Raises OSError and leaves an existing file untouched."""
    save_weights(checkpoint_content(trainee, position, args), path)


def load_checkpoint(path: Path, trainee: Trainee) -> Position:
    """Restore `trainee` from `path`, ours or the original's; returns where to go on.

    Raises UserError for a damaged file, and one listing what does not fit; nothing is restored then.
    """
    require_intact(path)
    return restore(read_weights(path), trainee, path)


def load_newest(folder: Path, trainee: Trainee, console: Console) -> Position | None:
    """Restore the newest checkpoint in `folder` that is intact; None if there is none at all.

    Damaged ones are said and put aside as `*.damaged`. Raises UserError if all are damaged, or if one does not fit.
    """
    paths = kept(folder)
    for path in paths:
        try:
            require_intact(path)
            content = read_weights(path)
        except UserError as error:
            if path == paths[-1]:
                raise
            if trainee.world.is_main:
                path.replace(path.with_name(f"{path.name}.damaged"))
            console.print(
                f"[yellow]note:[/] {error}; it is {path.name}.damaged now, and the one before it is used",
                highlight=False,
                soft_wrap=True,
            )
            continue
        return restore(content, trainee, path)
    return None


def require_intact(path: Path) -> None:
    """Raises UserError if bytes of torch's archive have changed or are missing since it was written.

    torch.load does not look at the checksums in its own files: a flipped bit would be a wrong weight.
    """
    if not path.is_file() or not zipfile.is_zipfile(path):
        # Of another format or cut short: reading it says so.
        return
    try:
        with zipfile.ZipFile(path) as archive:
            broken = archive.testzip()
    except (OSError, ValueError, NotImplementedError, RuntimeError, EOFError, zipfile.BadZipFile, zlib.error):
        broken = "its directory"
    if broken is not None:
        raise UserError(f"{path} is damaged (the checksum of {broken} is wrong): use another checkpoint")


def restore(content: dict[str, Any], trainee: Trainee, path: Path) -> Position:
    """The rest of `load_checkpoint`, for what was read from `path`."""
    expected = ("student", "teacher", "optimizer", "epoch", "dino_loss")
    missing = [key for key in expected if key not in content]
    if missing:
        raise UserError(f"{path} is no training checkpoint (it lacks {', '.join(missing)}): {REMEDY}")
    networks = (("student", trainee.student), ("teacher", trainee.teacher), ("dino_loss", trainee.dino_loss))
    for name, module in networks:
        content[name] = strip_prefix(content[name], "module.")
        require_fit(module, content[name], f"{name} in {path}", REMEDY)
    _require_optimizer(content["optimizer"], trainee, path)
    for name, module in networks:
        # Taken out as they are used: what is loaded lies in memory once, not twice.
        module.load_state_dict(split_state(content.pop(name), module))
    trainee.optimizer.load_state_dict(split_optimizer_state(content.pop("optimizer"), trainee.optimizer))
    trainee.reload()
    if "fp16_scaler" in content:
        trainee.precision.load_state_dict(content["fp16_scaler"])
    return Position.from_state_dict(int(content["epoch"]), content.get("fastdino", {}))


def _require_optimizer(state: Mapping[str, Any], trainee: Trainee, path: Path) -> None:
    """torch checks how many parameters each group has, but neither their shapes nor which optimiser they belong to."""
    misfit = UserError(f"the optimizer in {path} is not this run's (--optimizer, --norm_last_layer): {REMEDY}")
    groups = trainee.optimizer.param_groups
    if [len(group["params"]) for group in state["param_groups"]] != [len(group["params"]) for group in groups]:
        raise misfit
    expected_names = {"AdamW": "exp_avg", "SGD": "momentum_buffer", "LARS": "mu"}
    moment = expected_names[type(trainee.optimizer).__name__]
    parameters = [parameter for group in groups for parameter in group["params"]]
    for index, values in state["state"].items():
        if moment not in values or values[moment] is None or values[moment].shape != parameters[index].shape:
            raise misfit


def add_prefix(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """`state` with `prefix` before every key."""
    return {f"{prefix}{key}": value for key, value in state.items()}
