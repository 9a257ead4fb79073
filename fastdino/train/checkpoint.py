"""`checkpoint.pth` in facebookresearch/dino's format: written whole or not at all, read without running anything."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from fastdino.distributed.parts import split_optimizer_state, whole
from fastdino.errors import UserError
from fastdino.models.backbones import has_batchnorms
from fastdino.models.weights import load_strictly, read_weights, save_weights, strip_prefix
from fastdino.train.step import Trainee

REMEDY = "give the flags that the run was started with, or another --output_dir"


def checkpoint_content(trainee: Trainee, epoch: int, args: Mapping[str, Any]) -> dict[str, Any]:
    """The state after `epoch` finished epochs; of split networks put together, for which all processes have to ask.

    Keys: `student`, `teacher`, `optimizer`, `epoch` (the next one), `args`, `dino_loss`, and `fp16_scaler` where the
    loss is scaled. Networks that the original wraps for distributed training carry its `module.` prefix: the student,
    and a teacher with BatchNorm. `args` is a plain dict, so that torch's default, safe loading accepts the file.
    """
    content = {
        "student": add_prefix(trainee.student.state_dict(), "module."),
        "teacher": add_prefix(trainee.teacher.state_dict(), "module." if has_batchnorms(trainee.teacher) else ""),
        "optimizer": trainee.optimizer.state_dict(),
        "epoch": epoch,
        "args": dict(args),
        "dino_loss": trainee.dino_loss.state_dict(),
    }
    scaler = trainee.precision.state_dict()
    if scaler is not None:
        content["fp16_scaler"] = scaler
    return whole(content)


def save_checkpoint(path: Path, trainee: Trainee, epoch: int, args: Mapping[str, Any]) -> None:
    """Write `checkpoint_content`. Raises OSError (no space, not writable) and leaves an existing file untouched."""
    save_weights(checkpoint_content(trainee, epoch, args), path)


def load_checkpoint(path: Path, trainee: Trainee) -> int:
    """Restore `trainee` from `path`, ours or the original's; returns the epoch to go on with.

    Raises UserError listing what does not fit; nothing is restored then.
    """
    content = read_weights(path)
    expected = ("student", "teacher", "optimizer", "epoch", "dino_loss")
    missing = [key for key in expected if key not in content]
    if missing:
        raise UserError(f"{path} is no training checkpoint (it lacks {', '.join(missing)}): {REMEDY}")
    networks = (("student", trainee.student), ("teacher", trainee.teacher), ("dino_loss", trainee.dino_loss))
    states = {name: strip_prefix(content[name], "module.") for name, _ in networks}
    previous = {name: {key: value.clone() for key, value in module.state_dict().items()} for name, module in networks}
    try:
        for name, module in networks:
            load_strictly(module, states[name], f"{name} in {path}", REMEDY)
        _load_optimizer(content["optimizer"], trainee, path)
    except UserError:
        for name, module in networks:
            module.load_state_dict(previous[name])
        raise
    trainee.reload()
    if "fp16_scaler" in content:
        trainee.precision.load_state_dict(content["fp16_scaler"])
    return int(content["epoch"])


def _load_optimizer(state: Mapping[str, Any], trainee: Trainee, path: Path) -> None:
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
    trainee.optimizer.load_state_dict(split_optimizer_state(state, trainee.optimizer))


def add_prefix(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """`state` with `prefix` before every key."""
    return {f"{prefix}{key}": value for key, value in state.items()}
