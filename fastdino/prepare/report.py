"""What `fastdino check` found, for people and for machines."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable

import numpy as np
from rich.console import Console
from rich.table import Table
from rich.text import Text

from fastdino.data.normalize import IMAGENET_MEAN, IMAGENET_STD
from fastdino.data.sources import Source
from fastdino.prepare.speed import Speed
from fastdino.prepare.survey import Spread, Survey

# Examples that a person is shown of each finding; JSON has all of them.
_SHOWN = 5
_INDENT = 7


@dataclasses.dataclass(frozen=True)
class Report:
    """The findings by the names of the pictures; the fields are the keys of the JSON.

    `ok` is whether every picture can be used. `channel_mean` and `channel_std` are red, green and blue on a scale of
    0 .. 1; `speed` is None when no picture can be used.
    """

    ok: bool
    data_path: str
    pictures: int
    usable: int
    classes: int
    bytes: int
    unreadable: dict[str, str]
    reasons: dict[str, int]
    duplicates: list[list[str]]
    small: int
    small_side: int
    smallest: list[str]
    misnamed: dict[str, str]
    progressive: int
    rotated: int
    animated: int
    formats: dict[str, int]
    modes: dict[str, int]
    sizes: dict[str, Spread]
    channel_mean: list[float]
    channel_std: list[float]
    speed: Speed | None

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self), indent=2, ensure_ascii=False)


def build_report(data_path: str, source: Source, survey: Survey, small_side: int, speed: Speed | None) -> Report:
    """`small_side` is the shorter side in pixels below which a picture counts as small."""
    small = survey.smaller_than(small_side)
    by_size = np.argsort(np.minimum(survey.widths, survey.heights)[small], kind="stable")[:_SHOWN]
    mean, deviation = survey.channels()
    return Report(
        ok=not survey.unreadable,
        data_path=data_path,
        pictures=survey.count,
        usable=len(survey.usable),
        classes=len(source.classes),
        bytes=survey.bytes,
        unreadable={source.name(index): reason for index, reason in survey.unreadable.items()},
        reasons=dict(survey.reasons().most_common()),
        duplicates=[[source.name(int(index)) for index in group] for group in survey.duplicates()],
        small=len(small),
        small_side=small_side,
        smallest=[source.name(int(index)) for index in small[by_size]],
        misnamed={source.name(index): format for index, format in survey.misnamed.items()},
        progressive=survey.progressive,
        rotated=survey.rotated,
        animated=survey.animated,
        formats=dict(survey.formats.most_common()),
        modes=dict(survey.modes.most_common()),
        sizes=survey.sizes(),
        channel_mean=mean,
        channel_std=deviation,
        speed=speed,
    )


def print_report(report: Report, console: Console) -> None:
    """The report as a page of text, what is wrong first."""
    classes = f" in {_count(report.classes, 'class', 'classes')}" if report.classes else ""
    skipped = report.pictures - report.usable
    _line(
        console,
        f"{_count(report.pictures, 'picture')}{classes}, {report.bytes / 1e6:,.1f} MB: "
        f"{report.usable:,} can be trained on, {skipped:,} would be skipped",
    )
    if report.unreadable:
        _finding(console, "wrong", f"{_count(skipped, 'picture')} cannot be used")
        if len(report.unreadable) > _SHOWN:
            _examples(console, [f"{count:,} × {reason}" for reason, count in report.reasons.items()])
        _examples(console, [f"{name}: {reason}" for name, reason in report.unreadable.items()])
    for text, examples in _notes(report):
        _finding(console, "note", text)
        _examples(console, examples)
    if report.usable:
        _print_statistics(report, console)
    if report.speed:
        console.print()
        speed = report.speed
        _line(
            console,
            f"The loader prepares {speed.images_per_second:,.0f} pictures a second here with "
            f"{_count(speed.threads, 'thread')}: an epoch takes at least "
            f"{_duration(report.usable / speed.images_per_second)}",
        )


def _notes(report: Report) -> Iterable[tuple[str, list[str]]]:
    copies = sum(len(group) - 1 for group in report.duplicates)
    if copies:
        groups = _count(len(report.duplicates), "group")
        text = f"{_count(copies, 'file is a copy', 'files are copies')} of another, byte for byte ({groups})"
        yield text, [" = ".join(_shortened(group)) for group in report.duplicates]
    if report.small:
        text = (
            f"{_count(report.small, 'picture has', 'pictures have')} a side below {report.small_side} pixels, the size "
            "of a crop: used, but enlarged"
        )
        yield text, [f"the smallest: {', '.join(report.smallest)}"]
    if report.misnamed:
        text = f"{_count(len(report.misnamed), 'name ends', 'names end')} like another format; the content counts"
        yield text, [f"{name} is {format}" for name, format in report.misnamed.items()]
    if report.progressive:
        text = (
            f"{_count(report.progressive, 'JPEG is', 'JPEGs are')} progressive, which takes two to three times as "
            "long to decode; fastdino pack rewrites them without changing a pixel"
        )
        yield text, []
    if report.rotated:
        yield f"EXIF wants {_count(report.rotated, 'picture')} turned, which training ignores", []
    if report.animated:
        text = f"{_count(report.animated, 'file has', 'files have')} several frames, of which the first counts"
        yield text, []


def _print_statistics(report: Report, console: Console) -> None:
    sizes = Table("", "smallest", "median", "largest", box=None, header_style="dim", pad_edge=False)
    colours = Table("0 .. 1", "red", "green", "blue", box=None, header_style="dim", pad_edge=False)
    for table in (sizes, colours):
        for column in table.columns[1:]:
            column.justify = "right"
    for name, digits in (("width", 0), ("height", 0), ("megapixels", 2), ("aspect", 2)):
        spread = report.sizes[name]
        sizes.add_row(name, *(f"{value:,.{digits}f}" for value in (spread.min, spread.median, spread.max)))
    for name, values in (
        ("mean", report.channel_mean),
        ("deviation", report.channel_std),
        ("ImageNet's mean", IMAGENET_MEAN),
        ("ImageNet's deviation", IMAGENET_STD),
    ):
        colours.add_row(name, *(f"{value:.3f}" for value in values))
    console.print()
    console.print(sizes)
    console.print()
    console.print(colours)
    _line(console, "Training subtracts ImageNet's mean and divides by its deviation")
    console.print()
    for counts in (report.formats, report.modes):
        _line(console, ", ".join(f"{count:,} {name}" for name, count in counts.items()))


def _finding(console: Console, label: str, text: str) -> None:
    style = "bold red" if label == "wrong" else "yellow"
    console.print(Text.assemble((label.ljust(_INDENT), style), text), soft_wrap=True)


def _examples(console: Console, lines: list[str]) -> None:
    for line in _shortened(lines):
        _line(console, " " * _INDENT + line)


def _shortened(items: list[str]) -> list[str]:
    rest = len(items) - _SHOWN
    return items[:_SHOWN] + ([f"{rest:,} more"] if rest > 0 else [])


def _line(console: Console, text: str) -> None:
    console.print(text, markup=False, highlight=False, soft_wrap=True)


def _count(number: int, singular: str, plural: str | None = None) -> str:
    return f"{number:,} {singular if number == 1 else plural or singular + 's'}"


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} minutes" if seconds < 5400 else f"{seconds / 3600:.1f} hours"
