"""The sections of the report page: each from its own data, None where there is none."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from PIL import Image

from fastdino.visualize.charts import short
from fastdino.visualize.curves import training_charts
from fastdino.visualize.pictures import data_uri, fit
from fastdino.visualize.verdict import number

# More would make the page long without telling more.
MOST_ROWS = 8
MOST_PICTURES = 12
MOST_TABLE_LINES = 100

BASELINES = {
    "knn_top1": "after training",
    "knn_top1_random_init": "random weights",
    "knn_top1_pixels": "plain pixels",
    "chance": "guessing",
}


@dataclass(frozen=True)
class Section:
    """A heading, a sentence for whoever meets this for the first time, and HTML."""

    anchor: str
    title: str
    why: str
    content: str

    def html(self) -> str:
        """The section; `why` and the title are escaped here, `content` is HTML already."""
        return (
            f'<section id="{self.anchor}"><h2>{escape(self.title)}</h2><p class="why">{escape(self.why)}</p>'
            f"{self.content}</section>"
        )


def knn_section(knn: Mapping[str, Any] | None) -> Section | None:
    """Bars of the accuracy and its baselines, and the table by number of neighbours."""
    measured = {name: number(knn, key) for key, name in BASELINES.items()} if knn else {}
    measured = {name: value for name, value in measured.items() if math.isfinite(value)}
    by_k = dict(knn.get("by_k") or {}) if knn else {}
    if not knn or not (measured or by_k):
        return None
    parts = []
    if measured:
        rows = "".join(_bar(name, value, own=name == BASELINES["knn_top1"]) for name, value in measured.items())
        parts.append(f'<table class="bars"><caption>Right answers</caption><tbody>{rows}</tbody></table>')
    if by_k:
        rows = "".join(
            f'<tr><th scope="row">{escape(str(k))}</th><td>{top1:.1f} %</td><td>{top5:.1f} %</td></tr>'
            for k, (top1, top5) in by_k.items()
        )
        parts.append(
            '<table><caption>By number of neighbours</caption><thead><tr><th scope="col">neighbours</th>'
            f'<th scope="col">top-1</th><th scope="col">top-5</th></tr></thead><tbody>{rows}</tbody></table>'
        )
    content = f'<div class="card two">{"".join(f"<div>{part}</div>" for part in parts)}</div>'
    if knn.get("explanation"):
        content += f'<p class="fine">{escape(str(knn["explanation"]))}</p>'
    why = (
        "Each test picture is given the class of the training pictures whose features are nearest. No "
        "label was used in training, so this shows what the network found out by itself."
    )
    return Section("knn", "Does it know what is alike?", why, content)


def _bar(name: str, value: float, own: bool) -> str:
    width = min(max(value, 0.0), 100.0)
    kind = ' class="own"' if own else ""
    return (
        f'<tr><th scope="row">{escape(name)}</th>'
        f'<td><div class="bar"><span{kind} style="width:{width:.1f}%"></span></div></td>'
        f"<td>{value:.1f} %</td></tr>"
    )


def curve_section(log: Sequence[Mapping[str, Any]], out_dim: int | None) -> Section | None:
    """The charts and, folded away, their numbers."""
    charts = "".join(chart.html() for chart in training_charts(log, out_dim)) if log else ""
    if not charts:
        return None
    why = (
        "One value an epoch, an epoch being one pass over all pictures. Below each chart stand its first "
        "and its last value; point at a curve for those between."
    )
    return Section("curves", "How training went", why, f'<div class="charts">{charts}</div>{_number_table(log)}')


def _number_table(log: Sequence[Mapping[str, Any]]) -> str:
    keys = list(dict.fromkeys(key for line in log for key in line if key != "epoch"))
    stride = math.ceil(len(log) / MOST_TABLE_LINES)
    shown = [line for index, line in enumerate(log) if index % stride == 0 or index == len(log) - 1]
    head = "".join(f'<th scope="col">{escape(str(key))}</th>' for key in ["epoch", *keys])
    rows = "".join(
        f'<tr><th scope="row">{escape(str(line["epoch"]))}</th>'
        f"{''.join(f'<td>{_cell(line.get(key))}</td>' for key in keys)}</tr>"
        for line in shown
    )
    label = "All numbers" if stride == 1 else f"Numbers of every {stride}th epoch (log.txt has them all)"
    return (
        f'<details><summary>{label}</summary><div class="scroll" tabindex="0" role="region" '
        f'aria-label="{label}">'
        f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div></details>"
    )


def crop_section(crops: Image.Image | Sequence[Sequence[Image.Image]] | None, scale: float) -> Section | None:
    """What training saw: the sheet as it is, or a row of crops for each sample."""
    if crops is None or (not isinstance(crops, Image.Image) and not crops):
        return None
    if isinstance(crops, Image.Image):
        content = picture(crops, "Random crops of some training pictures", 1080 * scale)
    else:
        content = "".join(_views(sample, row, scale) for sample, row in enumerate(crops[:MOST_ROWS], 1))
    why = (
        "Random crops with changed colours: the teacher sees the large ones, the student all of them, and "
        "it must answer the same for each. If they hide what matters in your pictures, choose milder ones."
    )
    return Section("crops", "What it was shown", why, f'<div class="card views">{content}</div>')


def _views(sample: int, row: Sequence[Image.Image], scale: float) -> str:
    # The first two are the global crops, which the page shows twice as large, as they are in training.
    drawn = [
        f'<div class="{kind}">{picture(crop, f"Sample {sample}, {kind} crop {index}", side * scale)}</div>'
        for kind, side, crops in (("global", 264, row[:2]), ("local", 132, row[2 : 2 + MOST_PICTURES]))
        for index, crop in enumerate(crops, 1)
    ]
    return f'<div class="row">{"".join(drawn)}</div>'


def settings_section(config: Mapping[str, Any], environment: Mapping[str, Any]) -> Section | None:
    """Two tables of names and values."""
    tables = "".join(
        f'<div class="card">{_name_table(title, values)}</div>'
        for title, values in (("Settings", config), ("Environment", environment))
        if values
    )
    if not tables:
        return None
    why = "Everything that it takes to repeat this run; config.json has the same settings."
    return Section("settings", "Settings and environment", why, f'<div class="two">{tables}</div>')


def _name_table(title: str, values: Mapping[str, Any]) -> str:
    rows = "".join(
        f'<tr><th scope="row">{_breakable(name)}</th><td>{_cell(value)}</td></tr>' for name, value in values.items()
    )
    return (
        f"<table><caption>{title}</caption>"
        '<thead><tr><th scope="col">name</th><th scope="col">value</th></tr></thead>'
        f"<tbody>{rows}</tbody></table>"
    )


def _breakable(name: str) -> str:
    """A name as HTML whose lines may break after an underscore."""
    return escape(str(name)).replace("_", "_<wbr>")


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return short(value)
    if isinstance(value, (list, tuple)):
        return escape(", ".join(map(str, value)))
    return "" if value is None else escape(str(value))


def picture(image: Image.Image, alt: str, side: float) -> str:
    """An <img> with the picture inside, its longer side at most `side` pixels."""
    small = fit(image, round(side))
    return f'<img src="{data_uri(small)}" alt="{escape(alt)}" width="{small.width}" height="{small.height}">'


def key_figures(knn: Mapping[str, Any] | None, log: Sequence[Mapping[str, Any]]) -> list[tuple[str, str, str]]:
    """(name, value, note) of the few numbers that everyone asks for first."""
    figures = []
    top1, before = (number(knn or {}, key) for key in ("knn_top1", "knn_top1_random_init"))
    if math.isfinite(top1):
        note = f"{top1 - before:+.1f} points over random weights" if math.isfinite(before) else "right answers"
        figures.append(("k-NN accuracy", f"{top1:.1f} %", note))
    if not log:
        return figures
    first, last = number(log[0], "train_loss"), number(log[-1], "train_loss")
    compared = f"from {short(first)} in the first epoch" if len(log) > 1 else "after one epoch"
    figures.append(("Loss", short(last), compared))
    figures.append(("Epochs", str(len(log)), "passes over all pictures"))
    speeds = [value for line in log if math.isfinite(value := number(line, "images_per_second"))]
    if speeds:
        figures.append(("Speed", short(statistics.median(speeds)), "pictures a second, as the median"))
    return figures
