"""The command line, generated from the dataclasses in `config`; nothing heavy is imported before a command runs."""

from __future__ import annotations

import argparse
import dataclasses
import difflib
import importlib
import json
import os
import sys
import time
import types
import typing
from collections.abc import Sequence
from typing import Any, NoReturn

from fastdino import config
from fastdino.allocator import keep_freed_memory
from fastdino.errors import CheckFailed, TrainingFailed, UserError
from fastdino.files import write_atomically


class Command(typing.NamedTuple):
    """A subcommand: the dataclass of its flags, where the function that takes it lives, what a restart goes on from."""

    settings: type
    module: str
    function: str
    summary: str
    resumes_from: str = ""


COMMANDS = {
    "demo": Command(
        config.DemoConfig,
        "fastdino.demo.run",
        "run",
        "Train and evaluate on built-in pictures, in minutes on a CPU.",
        "the last checkpoint",
    ),
    "train": Command(
        config.TrainConfig,
        "fastdino.train.run",
        "run_command",
        "Train a backbone on a folder of pictures.",
        "the last checkpoint",
    ),
    "submit": Command(
        config.SubmitConfig,
        "fastdino.submit.run",
        "run",
        "Train as a job of Slurm that goes on after each interruption.",
    ),
    "plan": Command(
        config.PlanConfig,
        "fastdino.plan.run",
        "run",
        "Predict how much memory a training takes, and pick settings that fit.",
    ),
    "compare": Command(
        config.CompareConfig,
        "fastdino.visualize.comparison.run",
        "run",
        "Tell which of some training runs is better, and how they differ.",
    ),
    "knn": Command(config.KnnConfig, "fastdino.evaluate.knn", "run", "Classify pictures by nearest neighbours."),
    "linear": Command(config.LinearConfig, "fastdino.evaluate.linear", "run", "Train a linear classifier on features."),
    "retrieval": Command(
        config.RetrievalConfig, "fastdino.evaluate.retrieval", "run", "Search for pictures like a query."
    ),
    "copy-detection": Command(
        config.CopyDetectionConfig,
        "fastdino.evaluate.copy_detection",
        "run",
        "Find the originals of distorted pictures.",
    ),
    "video-segmentation": Command(
        config.VideoSegmentationConfig,
        "fastdino.evaluate.video_segmentation",
        "run",
        "Follow objects through videos.",
    ),
    "attention": Command(
        config.AttentionConfig,
        "fastdino.visualize.attention.run",
        "run",
        "Draw what a vision transformer attends to.",
    ),
    "patches": Command(
        config.PatchesConfig,
        "fastdino.visualize.patches.run",
        "run",
        "Find the foreground and the parts of pictures.",
    ),
    "correspond": Command(
        config.CorrespondConfig, "fastdino.visualize.patches.correspond", "run", "Match the patches of two pictures."
    ),
    "embed": Command(config.EmbedConfig, "fastdino.evaluate.embed", "run", "Write the features of pictures to a file."),
    "map": Command(
        config.MapConfig,
        "fastdino.visualize.map.run",
        "run",
        "Draw a map on which like pictures lie close together.",
    ),
    "export": Command(
        config.ExportConfig, "fastdino.export.run", "run", "Write a trained backbone in another program's format."
    ),
    "check": Command(
        config.CheckConfig, "fastdino.prepare.check", "run", "Look a data set through before training on it."
    ),
    "pack": Command(
        config.PackConfig,
        "fastdino.prepare.pack",
        "run",
        "Rewrite a data set as tar shards.",
        "the last finished shard",
    ),
    "doctor": Command(
        config.DoctorConfig, "fastdino.doctor.run", "run", "Describe this machine, and examine the kernels on its GPU."
    ),
    "crops": Command(config.PreviewConfig, "fastdino.visualize.crops", "run", "Draw the crops of one picture."),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Returns 0 when done, 1 if training or a check failed, 2 for the user's mistake, 128 + n on signal n.
    """
    command, settings = parse(sys.argv[1:] if arguments is None else arguments)
    keep_freed_memory()
    try:
        getattr(importlib.import_module(command.module), command.function)(settings)
    except UserError as error:
        _say(str(error))
        return 2
    except (TrainingFailed, CheckFailed) as failure:
        _say(str(failure))
        return 1
    except KeyboardInterrupt as interruption:
        # The trainer turns SIGTERM into this exception too, with the signal's number as its argument.
        number = interruption.args[0] if interruption.args else 2
        remedy = f"; the same command goes on from {command.resumes_from}" if command.resumes_from else ""
        _say(f"stopped{remedy}")
        return 128 + int(number)
    return 0


def _say(sentence: str) -> None:
    """To the person; of several processes the first of a machine speaks, and all but rank 0 tell their launcher."""
    file, rank = os.environ.get("TORCHELASTIC_ERROR_FILE"), os.environ.get("RANK", "0")
    if file and rank != "0":
        write_atomically(file, json.dumps({"message": sentence, "timestamp": int(time.time())}))
    if not file or os.environ.get("LOCAL_RANK", rank) == "0":
        print(f"fastdino: {sentence}", file=sys.stderr)


def flags(settings: Any) -> list[str]:
    """The flags that give `settings`, a command's dataclass; those at their defaults are left out."""
    arguments: list[str] = []
    for field in dataclasses.fields(settings):
        value = getattr(settings, field.name)
        if value == field.default:
            continue
        if isinstance(value, tuple):
            arguments += [f"--{field.name}", *map(str, value)]
        else:
            arguments.append(f"--{field.name}={value}")
    return arguments


def parse(arguments: Sequence[str]) -> tuple[Command, Any]:
    """The chosen command and its filled-in dataclass. Exits with code 2 and one sentence on a bad flag or value."""
    parser = build_parser()
    known, unknown = parser.parse_known_args([underscored(argument) for argument in arguments])
    namespace = vars(known)
    command = COMMANDS[namespace.pop("command")]
    if unknown:
        parser.error(f"unknown flag {unknown[0]}{_suggestion(unknown[0], command)}")
    return command, command.settings(**namespace)


def _suggestion(flag: str, command: Command) -> str:
    flags = [f"--{field.name}" for field in dataclasses.fields(command.settings)]
    near = difflib.get_close_matches(flag, flags, n=1)
    return f", did you mean {near[0]}?" if near else ""


def underscored(argument: str) -> str:
    """`--batch-size=3` as `--batch_size=3`: flags may be written either way."""
    if not argument.startswith("--"):
        return argument
    name, equals, value = argument[2:].partition("=")
    return f"--{name.replace('-', '_')}{equals}{value}"


def build_parser() -> argparse.ArgumentParser:
    """One subparser a command, one flag a dataclass field."""
    parser = _Parser(prog="fastdino", description="Pre-train image backbones on your own pictures, without labels.")
    parser.add_argument("--version", action="version", version=f"fastdino {_version()}")
    subparsers = parser.add_subparsers(dest="command", required=True, metavar="COMMAND", parser_class=_Parser)
    for name, command in COMMANDS.items():
        positionals = [
            f"[{field.metadata['positional']} ...]" if "many" in field.metadata else field.metadata["positional"]
            for field in dataclasses.fields(command.settings)
            if "positional" in field.metadata
        ]
        subparser = subparsers.add_parser(
            name,
            help=command.summary,
            description=command.summary,
            usage=" ".join(["fastdino", name, *positionals, "[flags]"]),
            formatter_class=argparse.ArgumentDefaultsHelpFormatter,
        )
        _add_flags(subparser, command.settings)
    return parser


def _add_flags(parser: argparse.ArgumentParser, settings: type) -> None:
    hints = typing.get_type_hints(settings)
    groups: dict[str, argparse._ArgumentGroup] = {}
    for field in dataclasses.fields(settings):
        title = field.metadata["group"]
        if title not in groups:
            groups[title] = parser.add_argument_group(title)
        help = field.metadata["help"].replace("%", "%%")
        if metavar := field.metadata.get("positional"):
            many = {"nargs": "*", "default": argparse.SUPPRESS, "action": _StoreTuple}
            count: dict[str, Any] = many if "many" in field.metadata else {}
            groups[title].add_argument(field.name, metavar=metavar, help=help, **count)
            continue
        groups[title].add_argument(
            f"--{field.name}", default=field.default, help=help, **_taking(field, hints[field.name])
        )


def _taking(field: dataclasses.Field[Any], hint: Any) -> dict[str, Any]:
    """argparse's arguments for what may follow a flag."""
    if field.metadata.get("switch"):
        return {"action": "store_true"}
    choices = field.metadata.get("choices")
    return {"choices": choices} if choices else _value_type(hint)


def _value_type(hint: Any) -> dict[str, Any]:
    """argparse's `type` (and `nargs` for tuples) for a field's type."""
    if typing.get_origin(hint) is tuple:
        items = typing.get_args(hint)
        count = "+" if Ellipsis in items else len(items)
        return {"type": items[0], "nargs": count, "action": _StoreTuple, "metavar": items[0].__name__.upper()}
    if isinstance(hint, types.UnionType):
        hint = next(item for item in typing.get_args(hint) if item is not type(None))
    return {"type": boolean if hint is bool else hint, "metavar": hint.__name__.upper()}


def boolean(text: str) -> bool:
    """true/false, on/off, yes/no or 1/0, in any case."""
    lowered = text.lower()
    if lowered in ("true", "on", "yes", "1"):
        return True
    if lowered in ("false", "off", "no", "0"):
        return False
    raise argparse.ArgumentTypeError(f"{text!r} is neither true nor false")


class _StoreTuple(argparse.Action):
    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: Any = None) -> None:
        setattr(namespace, self.dest, tuple(values))


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one sentence instead of the whole usage."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"fastdino: {message} (see {self.prog} --help)\n")


def _version() -> str:
    from fastdino import __version__

    return __version__
