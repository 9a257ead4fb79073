"""report.html: one page that tells whether a run worked and shows why, and that loads nothing from
anywhere.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Any

from PIL import Image

from fastdino.files import write_atomically
from fastdino.visualize import sections
from fastdino.visualize.curves import by_epoch
from fastdino.visualize.neighbours import NeighbourRow
from fastdino.visualize.style import SCRIPT, STYLE
from fastdino.visualize.verdict import Tone

# A page of this size opens at once and fits into a mail.
PAGE_BYTES = 2_900_000
PICTURE_SCALES = (1.0, 0.75, 0.5, 0.35)


@dataclass
class Report:
    """What there is to tell of a run; what is empty is left out of the page.

    `verdict` are sentences, the most important one first, and `tone` their colour. `config` is the run's
    settings (its `out_dim` gives the reference line of the loss), `log` the lines of log.txt. `knn` has
    percentages: `knn_top1`, `knn_top1_random_init`, `knn_top1_pixels`, `chance`, with `by_k` {neighbours:
    (top-1, top-5)} and `explanation` in plain words. `crops` is one sheet, or per sample the crops that
    training saw of it, the two global ones first.
    """

    title: str
    config: Mapping[str, Any] = field(default_factory=dict)
    environment: Mapping[str, Any] = field(default_factory=dict)
    log: Sequence[Mapping[str, Any]] = ()
    crops: Image.Image | Sequence[Sequence[Image.Image]] | None = None
    attention: Sequence[tuple[str, Image.Image]] = ()
    knn: Mapping[str, Any] | None = None
    neighbours: Sequence[NeighbourRow] = ()
    verdict: Sequence[str] = ()
    tone: Tone | None = None


def write_report(path: Path, report: Report) -> None:
    """Write the page to `path`, with pictures shrunk until it is below 3 MB. Raises OSError where it
    cannot.
    """
    for scale in PICTURE_SCALES:
        page = render(report, scale)
        if len(page.encode()) <= PAGE_BYTES:
            break
    write_atomically(path, page)


def render(report: Report, scale: float = 1.0) -> str:
    """The page as HTML, its pictures `scale` times their usual width."""
    log = by_epoch(report.log)
    body = [
        section
        for section in (
            sections.knn_section(report.knn),
            sections.neighbour_section(report.neighbours, scale),
            sections.attention_section(report.attention, scale),
            sections.curve_section(log, report.config.get("out_dim")),
            sections.crop_section(report.crops, scale),
            sections.settings_section(report.config, report.environment),
        )
        if section is not None
    ]
    links = "".join(f'<li><a href="#{one.anchor}">{escape(one.title)}</a></li>' for one in body)
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        # The browser itself then holds the page to loading nothing.
        '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; img-src data:; '
        "style-src 'unsafe-inline'; script-src 'unsafe-inline'\">"
        f'<meta name="color-scheme" content="light dark"><title>{escape(report.title)}</title>'
        f'<style>{STYLE}</style></head><body>{_header(report, log)}<main class="wrap">'
        f"{_verdict(report)}{_tiles(report, log)}"
        f'<nav aria-label="Sections"><ul>{links}</ul></nav>'
        f"{''.join(one.html() for one in body)}</main>"
        '<footer class="wrap">Written by fastdino. This page is one file: it loads nothing, '
        f"and can be mailed or archived as it is.</footer><script>{SCRIPT}</script></body></html>\n"
    )


def _header(report: Report, log: Sequence[Mapping[str, Any]]) -> str:
    facts = [str(report.config["arch"])] if "arch" in report.config else []
    if log:
        facts.append(f"{len(log)} epoch{'s' if len(log) > 1 else ''}")
    if "data_path" in report.config:
        facts.append(str(report.config["data_path"]))
    subtitle = f'<p class="sub">{escape(" · ".join(facts))}</p>' if facts else ""
    return (
        f'<header><div class="wrap">{_EMBLEM}<p class="brand">fastdino training report</p>'
        f"<h1>{escape(report.title)}</h1>{subtitle}</div></header>"
    )


def _verdict(report: Report) -> str:
    if not report.verdict:
        return ""
    tone = report.tone or "plain"
    lead, *rest = report.verdict
    others = "".join(f"<p>{_words(sentence)}</p>" for sentence in rest)
    return (
        f'<div class="verdict {tone}">{_ICONS[tone]}<div><h2>{_TONE_WORDS[tone]}</h2>'
        f'<p class="lead">{_words(lead)}</p>{others}</div></div>'
    )


def _words(sentence: str) -> str:
    """A sentence as HTML, the flags in it kept in one piece."""
    return re.sub(r"--\w+", r'<span class="flag">\g<0></span>', escape(sentence))


def _tiles(report: Report, log: Sequence[Mapping[str, Any]]) -> str:
    tiles = [
        f'<div class="tile"><dt>{escape(name)}</dt><dd>{escape(value)}<small>{escape(note)}</small></dd></div>'
        for name, value, note in sections.key_figures(report.knn, log)
    ]
    return f'<dl class="tiles">{"".join(tiles)}</dl>' if tiles else ""


_TONE_WORDS = {
    "good": "It looks good",
    "watch": "Worth a look",
    "bad": "Needs attention",
    "plain": "In short",
}


def _icon(drawing: str) -> str:
    return (
        '<svg class="icon" viewBox="0 0 24 24" aria-hidden="true" fill="none" stroke="currentColor" '
        'stroke-width="2" stroke-linecap="round" stroke-linejoin="round">'
        f'<circle cx="12" cy="12" r="10"/><path d="{drawing}"/></svg>'
    )


_ICONS = {
    "good": _icon("M7.5 12.5l3 3 6-7"),
    "watch": _icon("M12 7v6M12 16.6v.1"),
    "bad": _icon("M8.5 8.5l7 7M15.5 8.5l-7 7"),
    "plain": _icon("M12 11v6M12 7.4v.1"),
}


def _emblem() -> str:
    """Two large and many small crops of a picture that is not there."""
    squares = [(60.0, 50.0, 130), (110.0, 90.0, 130)]
    squares += [(150 + 46 * math.cos(turn), 142 + 60 * math.sin(turn), 44) for turn in (0.3, 1.1, 1.9, 2.7, 3.5, 4.3)]
    squares += [(150 + 120 * math.cos(turn), 142 + 96 * math.sin(turn), 30) for turn in (0.1, 0.9, 2.0, 3.3, 4.4, 5.5)]
    drawn = "".join(f'<rect x="{x:.0f}" y="{y:.0f}" width="{side}" height="{side}" rx="7"/>' for x, y, side in squares)
    return (
        '<svg viewBox="0 0 320 300" aria-hidden="true" fill="#fde72514" stroke="#fff" stroke-opacity=".55" '
        f'stroke-width="1.2">{drawn}</svg>'
    )


_EMBLEM = _emblem()
