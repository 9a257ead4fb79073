"""The command `fastdino plan`: a run's memory as a table, and the flags that fit."""

from __future__ import annotations

import dataclasses
import json
import shlex
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from fastdino.config import PlanConfig, TrainConfig, training_of
from fastdino.errors import CheckFailed, UserError
from fastdino.plan import predict
from fastdino.plan.pick import Plan, plan
from fastdino.train.validate import validated

GIB = 2**30


def run(config: PlanConfig) -> Plan:
    """Print what a run takes and, where that is too much, what fits.

    Raises CheckFailed, once all is printed, if the run does not fit as it was given.
    """
    if config.memory is not None and not config.memory > 0:
        raise UserError(f"--memory must be above 0, not {config.memory}")
    training, _ = validated(training_of(config))
    found = plan(training, None if config.memory is None else round(config.memory * GIB))
    advice = advise(training, found)
    if config.json:
        print(json.dumps(_as_json(found, advice), indent=2))
    else:
        _print(training, found, advice, Console())
    if not found.fits:
        raise CheckFailed(f"this run takes {_gib(found.peak)} of {_gib(found.memory)}")
    return found


def advise(config: TrainConfig, found: Plan) -> str:
    """The command to run, or what to change where nothing fits."""
    if found.chosen is not None:
        return command_line(found.chosen)
    return (
        f"Nothing fits: the least that these {config.batch_size} pictures a step take is {_gib(found.chosen_peak)}, in "
        "the smallest micro-batches; lower --out_dim, take a smaller --arch, or smaller or fewer crops."
    )


def command_line(config: TrainConfig) -> str:
    """`fastdino train` with every flag that is not at its default, ready for a shell."""
    words = ["fastdino", "train"]
    for field in dataclasses.fields(TrainConfig):
        value = getattr(config, field.name)
        if value != field.default:
            values = value if isinstance(value, tuple) else (value,)
            words += [f"--{field.name}", *(str(each) for each in values)]
    return shlex.join(words)


def _print(config: TrainConfig, found: Plan, advice: str, console: Console) -> None:
    table = Table("what", "GiB", "how it comes about")
    table.columns[1].justify = "right"
    for name, size in found.step.categories.items():
        table.add_row(name, f"{size / GIB:.2f}", _reason(name, config, found.step))
    table.add_row("process", f"{found.process / GIB:.2f}", "interpreter and libraries, measured in this process")
    table.add_row("allocator", f"{found.allocator / GIB:.2f}", "held beside what is alive")
    table.add_row("checkpoint", f"{found.checkpoint / GIB:.2f}", "student, teacher and moments, copied to be written")
    table.add_section()
    table.add_row(
        "peak", f"{found.peak / GIB:.2f}", f"{'fits into' if found.fits else 'more than'} {_gib(found.memory)}"
    )
    console.print(table)
    if torch.cuda.is_available():
        console.print("Predicted from a step on a CPU, not measured on a GPU.", highlight=False)
    if not found.fits and found.chosen is not None:
        console.print(f"This fits, with {_gib(found.chosen_peak)} and the same pictures a step:", highlight=False)
    console.print(advice, highlight=False, markup=False, soft_wrap=True)


def _reason(name: str, config: TrainConfig, step: predict.StepMemory) -> str:
    parameters = f"backbone {step.backbone / 1e6:.1f} M + head {step.head / 1e6:.1f} M parameters"
    images = config.batch_size_per_gpu
    crops = f"2 x {config.global_size} + {config.local_crops_number} x {config.local_size} pixels"
    return {
        predict.STUDENT: f"{parameters} x 4 bytes",
        predict.TEACHER: f"{parameters} x 4 bytes",
        predict.GRADIENTS: "what the backward pass has made of them at the peak",
        predict.MOMENTS: f"what {config.optimizer} keeps of every parameter that it moves",
        predict.CROPS: f"{config.accumulation_steps} x {images} pictures, {crops}, 3 x 4 bytes a pixel",
        predict.ACTIVATIONS: f"kept for the backward pass at the peak, checkpointing {config.checkpointing}",
        predict.LOGITS: f"{config.ncrops} + 2 crops x {images} pictures x {config.out_dim} prototypes, and gradients",
        predict.TEMPORARIES: "what the operation at the peak needs",
    }[name]


def _as_json(found: Plan, advice: str) -> dict[str, Any]:
    beside = {"process": found.process, "allocator": found.allocator, "checkpoint": found.checkpoint}
    return {
        "bytes": {**found.step.categories, **beside},
        "peak": found.peak,
        "memory": found.memory,
        "fits": found.fits,
        "chosen": None if found.chosen is None else dataclasses.asdict(found.chosen),
        "chosen_peak": found.chosen_peak,
        "advice": advice,
    }


def _gib(size: int) -> str:
    return f"{size / GIB:.2f} GiB"
