"""What the comparison's page adds to the look of a report: a colour and a pattern of dashes for each of six runs.

The colours were chosen by their distance in CIELAB as people see them who lack one kind of cones (Machado et al. 2009),
and by their contrast to the page; the patterns need no colours at all.
"""

from __future__ import annotations

DASHES = ("", "10 5", "2 4", "12 4 2 4", "16 4 5 4", "5 3")


def _swatch(dashes: str, colour: str) -> str:
    """A background that repeats a pattern of dashes and gaps."""
    if not dashes:
        return f"background:var({colour})"
    stops, place = [], 0
    for index, length in enumerate(map(int, dashes.split())):
        stops.append(f"{'transparent' if index % 2 else f'var({colour})'} {place}px {place + length}px")
        place += length
    return f"background:repeating-linear-gradient(90deg,{','.join(stops)})"


def _of_run(number: int) -> str:
    dashes, name = DASHES[number], f"s{number}"
    pattern = f"stroke-dasharray:{dashes};stroke-linecap:butt" if dashes else ""
    swatch = _swatch(dashes, f"--{name}")
    return f".area .{name}{{stroke:var(--{name})}}.area .curve.{name}{{{pattern}}}i.{name}{{{swatch}}}"


STYLE = (
    """
:root { --s0: #0642cf; --s1: #723f10; --s2: #1ba276; --s3: #d85fc0; --s4: #979207; --s5: #2f3031; }
@media (prefers-color-scheme: dark) {
  :root { --s0: #bbd2f4; --s1: #c84a09; --s2: #16efa4; --s3: #c23dce; --s4: #eed432; --s5: #6d6f72; }
}
.legend li { min-width: 0; overflow-wrap: anywhere; }
.legend i, .key { display: inline-block; width: 32px; height: 4px; margin-right: 8px; vertical-align: middle; }
.legend i { border-radius: 0; }
.tip { max-width: 100%; overflow: hidden; text-overflow: ellipsis; }
.figures th[scope=row] { white-space: normal; min-width: 7.5rem; }
.figures td { min-width: 6rem; white-space: normal; }
.figures thead th { min-width: 6rem; max-width: 11rem; white-space: normal; }
.verdict > div { min-width: 0; overflow-wrap: anywhere; }
.runs { display: grid; gap: 16px; grid-template-columns: repeat(auto-fit, minmax(min(320px, 100%), 1fr)); }
.runs h3 { margin: 0; font-size: 1.1rem; overflow-wrap: anywhere; }
.runs p { margin: 8px 0 0; color: var(--muted); overflow-wrap: anywhere; }
.runs a { color: var(--accent); }
"""
    + "\n".join(_of_run(number) for number in range(len(DASHES)))
    + "\n"
)
