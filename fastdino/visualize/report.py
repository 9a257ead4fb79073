"""report.html: one page that tells whether a run worked and shows why, and that loads nothing from
anywhere.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Any

from PIL import Image

from fastdino.files import write_atomically
from fastdino.visualize import picture_sections, sections
from fastdino.visualize.curves import by_epoch
from fastdino.visualize.frame import framed, verdict_box
from fastdino.visualize.map.contents import FeatureMap
from fastdino.visualize.neighbours import NeighbourRow
from fastdino.visualize.page import static
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
    training saw of it, the two global ones first. `contributions` take the place of `attention` where a network has
    none. Where `space` is given, its map is beside the page.
    """

    title: str
    config: Mapping[str, Any] = field(default_factory=dict)
    environment: Mapping[str, Any] = field(default_factory=dict)
    log: Sequence[Mapping[str, Any]] = ()
    crops: Image.Image | Sequence[Sequence[Image.Image]] | None = None
    attention: Sequence[tuple[str, Image.Image]] = ()
    knn: Mapping[str, Any] | None = None
    neighbours: Sequence[NeighbourRow] = ()
    contributions: Sequence[tuple[str, Image.Image]] = ()
    space: FeatureMap | None = None
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
            picture_sections.neighbour_section(report.neighbours, scale, on_map=report.space is not None),
            picture_sections.map_section(report.space, scale),
            picture_sections.tree_section(report.space),
            picture_sections.attention_section(report.attention, scale),
            picture_sections.contribution_section(report.contributions, scale),
            sections.curve_section(log, report.config.get("out_dim")),
            sections.crop_section(report.crops, scale),
            sections.settings_section(report.config, report.environment),
        )
        if section is not None
    ]
    return framed(
        report.title,
        brand="fastdino training report",
        subtitle=_subtitle(report, log),
        lead=f"{verdict_box(report.verdict, report.tone or 'plain', _TONE_WORDS)}{_tiles(report, log)}",
        sections=body,
        more_style=static("tree.css"),
    )


def _subtitle(report: Report, log: Sequence[Mapping[str, Any]]) -> str:
    facts = [str(report.config["arch"])] if "arch" in report.config else []
    if log:
        facts.append(f"{len(log)} epoch{'s' if len(log) > 1 else ''}")
    if "data_path" in report.config:
        facts.append(str(report.config["data_path"]))
    return " · ".join(facts)


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
