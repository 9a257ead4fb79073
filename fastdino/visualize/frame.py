"""What the pages that tell of runs have in common: head, policy, header, verdict, links to their sections."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from html import escape

from fastdino.visualize.sections import Section
from fastdino.visualize.style import SCRIPT, STYLE


def framed(
    title: str, *, brand: str, subtitle: str, lead: str, sections: Sequence[Section], more_style: str = ""
) -> str:
    """A whole page. `lead` is HTML above the links to `sections`; the other words are escaped here."""
    links = "".join(f'<li><a href="#{one.anchor}">{escape(one.title)}</a></li>' for one in sections)
    below = f'<p class="sub">{escape(subtitle)}</p>' if subtitle else ""
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        # The browser itself then holds the page to loading nothing.
        '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; img-src data:; '
        "style-src 'unsafe-inline'; script-src 'unsafe-inline'\">"
        f'<meta name="color-scheme" content="light dark"><title>{escape(title)}</title>'
        f"<style>{STYLE}{more_style}</style></head><body>"
        f'<header><div class="wrap">{_EMBLEM}<p class="brand">{escape(brand)}</p>'
        f'<h1>{escape(title)}</h1>{below}</div></header><main class="wrap">'
        f'{lead}<nav aria-label="Sections"><ul>{links}</ul></nav>'
        f"{''.join(one.html() for one in sections)}</main>"
        '<footer class="wrap">Written by fastdino. This page is one file: it loads nothing, '
        f"and can be mailed or archived as it is.</footer><script>{SCRIPT}</script></body></html>\n"
    )


def verdict_box(sentences: Sequence[str], tone: str, headings: Mapping[str, str]) -> str:
    """Sentences as HTML, the most important one first, below the heading of their tone; nothing without any."""
    if not sentences:
        return ""
    lead, *rest = sentences
    others = "".join(f"<p>{_words(sentence)}</p>" for sentence in rest)
    return (
        f'<div class="verdict {tone}">{_ICONS[tone]}<div><h2>{escape(headings[tone])}</h2>'
        f'<p class="lead">{_words(lead)}</p>{others}</div></div>'
    )


def _words(sentence: str) -> str:
    """A sentence as HTML, the flags in it kept in one piece."""
    return re.sub(r"--\w+", r'<span class="flag">\g<0></span>', escape(sentence))


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
