"""What a setting of a command consists of: default, sentence for `--help`, group."""

from __future__ import annotations

import dataclasses
from typing import Any

OTHER = "data and output"


def option(default: Any, help: str, *, group: str, choices: tuple[str, ...] | None = None) -> Any:
    """A dataclass field with the sentence and the group under which `--help` lists it."""
    return dataclasses.field(default=default, metadata={"help": help, "group": group, "choices": choices})


def switch(help: str, *, group: str) -> Any:
    """A flag without a value: False unless it is given."""
    return dataclasses.field(default=False, metadata={"help": help, "group": group, "switch": True})


def positional(metavar: str, help: str, *, group: str) -> Any:
    """What a command is about, given without a flag; `metavar` is its name in the usage."""
    return dataclasses.field(kw_only=True, metadata={"help": help, "group": group, "positional": metavar})


def positionals(metavar: str, help: str, *, group: str) -> Any:
    """As `positional`, but any number of them, none included: a tuple."""
    return dataclasses.field(default=(), metadata={"help": help, "group": group, "positional": metavar, "many": True})
