"""The comparison as one HTML file."""

from __future__ import annotations

import os
from collections.abc import Sequence
from html import escape
from pathlib import Path
from urllib.parse import quote

from fastdino.visualize.comparison.curves import shared_charts
from fastdino.visualize.comparison.differences import Values, environments, settings
from fastdino.visualize.comparison.figures import key_figures
from fastdino.visualize.comparison.judgement import Judgement
from fastdino.visualize.comparison.reading import Run
from fastdino.visualize.comparison.style import STYLE
from fastdino.visualize.frame import framed, verdict_box
from fastdino.visualize.sections import Section

HEADINGS = {"good": "A clear answer", "watch": "With care"}


def render(runs: Sequence[Run], judgement: Judgement, folder: Path) -> str:
    """The page, to lie in `folder`; whatever names contain, they are text in it."""
    return framed(
        f"{len(runs)} runs compared",
        brand="fastdino comparison",
        subtitle=" · ".join(f"{run.letter} {run.name}" for run in runs),
        lead=verdict_box(judgement.sentences, judgement.tone, HEADINGS),
        sections=[
            _figures(runs),
            _curves(runs),
            _differences(
                "settings",
                "Settings that differ",
                "What the runs were told. Settings that are the same are folded away.",
                runs,
                settings(runs),
            ),
            _differences(
                "environment",
                "Environments that differ",
                "Versions and machines, which change speed, and results by rounding.",
                runs,
                environments(runs),
            ),
            _runs(runs, folder),
        ],
        more_style=STYLE,
    )


def _figures(runs: Sequence[Run]) -> Section:
    why = (
        "k-NN accuracy tells how good the features are: the share of pictures whose class the nearest others name. "
        "Losses do not, and those of other settings cannot be compared."
    )
    table = _table("Key figures", runs, key_figures(runs), "figure")
    return Section("figures", "Key figures", why, f'<div class="card">{table}</div>')


def _curves(runs: Sequence[Run]) -> Section:
    why = (
        "Each run has its colour and its dashes. Below each chart stand a curve's first and last value; point at a "
        "curve for those between."
    )
    charts = "".join(chart.html() for chart in shared_charts(runs))
    return Section("curves", "How training went", why, f'<div class="charts">{charts}</div>')


def _differences(
    anchor: str, title: str, why: str, runs: Sequence[Run], found: tuple[list[Values], list[Values]]
) -> Section:
    differing, same = found
    if differing:
        content = f'<div class="card">{_table(title, runs, differing, "name")}</div>'
    else:
        words = "None of those that are known." if same else "None of the runs says."
        content = f'<div class="card">{words}</div>'
    if same:
        label = f"The same in all runs ({len(same)})"
        content += f"<details><summary>{label}</summary>{_table(label, runs, same, 'name')}</details>"
    return Section(anchor, title, why, content)


def _table(label: str, runs: Sequence[Run], rows: Sequence[Values], what: str) -> str:
    """A row for each of the values, a column for each run."""
    head = "".join(
        f'<th scope="col">{_key(place)}{escape(run.letter)}<br>{escape(run.name)}</th>'
        for place, run in enumerate(runs)
    )
    body = "".join(
        f'<tr><th scope="row">{escape(row.name).replace("_", "_<wbr>")}</th>'
        f"{''.join(f'<td>{escape(cell)}</td>' for cell in row.cells)}</tr>"
        for row in rows
    )
    return (
        f'<div class="scroll figures" tabindex="0" role="region" aria-label="{escape(label)}"><table><thead><tr>'
        f'<th scope="col">{what}</th>{head}</tr></thead><tbody>{body}</tbody></table></div>'
    )


def _runs(runs: Sequence[Run], folder: Path) -> Section:
    why = "Where each run lies, what its own numbers say of it, and what is missing."
    cards = "".join(_card(place, run, folder) for place, run in enumerate(runs))
    return Section("runs", "Each run by itself", why, f'<div class="runs">{cards}</div>')


def _card(place: int, run: Run, folder: Path) -> str:
    paragraphs = [escape(os.fsencode(run.folder).decode(errors="backslashreplace"))]
    report = run.folder / "report.html"
    if report.is_file():
        address = quote(os.fsencode(os.path.relpath(report, folder)))
        paragraphs.append(f'<a href="{address}">The report of {escape(run.letter)}</a>')
    if run.judgement is not None:
        paragraphs += [escape(sentence) for sentence in run.judgement.sentences]
    paragraphs += [escape(f"It has {words}.") for words in run.missing]
    return (
        f'<div class="card"><h3>{_key(place)}{escape(f"{run.letter} {run.name}")}</h3>'
        f"{''.join(f'<p>{one}</p>' for one in paragraphs)}</div>"
    )


def _key(place: int) -> str:
    return f'<i class="key s{place}"></i>'
