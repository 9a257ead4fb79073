"""Line charts as HTML with inline SVG: readable without a script, at any width, in light and dark.

The curves are stretched to the width that there is; the text beside them is HTML, which keeps its size.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from html import escape

Values = Sequence[float]

# Epochs above which a curve is drawn thinner, or its noise would fill the chart.
DENSE = 300
# Percent of a chart's height from the top, beyond which words below a line would stand on the epochs.
LOWEST_WORDS = 85


@dataclass(frozen=True)
class Series:
    """A named curve, one value an x; NaN and infinity are gaps, which a `joined` curve bridges."""

    name: str
    values: Values
    joined: bool = False


@dataclass(frozen=True)
class Reference:
    """A horizontal line with the words beside it."""

    value: float
    text: str


@dataclass(frozen=True)
class Chart:
    """Curves over epochs. `note` explains them in one sentence; `zero` makes the axis begin at 0, `peak`
    names the highest value too.
    """

    title: str
    note: str
    epochs: Sequence[int]
    series: list[Series]
    reference: Reference | None = None
    zero: bool = False
    percent: bool = False
    peak: bool = False
    shown: list[Series] = field(init=False)

    def __post_init__(self) -> None:
        visible = [one for one in self.series if any(math.isfinite(value) for value in one.values)]
        object.__setattr__(self, "shown", visible)

    def html(self) -> str:
        """A figure; empty where no curve has a finite value."""
        if not self.shown:
            return ""
        values = [value for one in self.shown for value in one.values if math.isfinite(value)]
        if self.reference:
            values.append(self.reference.value)
        low, high = min(values), max(values)
        # A curve that hardly moves should look like one.
        low = min(0.0, low) if self.zero else min(low, high - abs(high) / 20)
        ticks = nice_ticks(low, high or 1.0 if self.zero else high)
        write = percent if self.percent else tick_writer(ticks)
        return (
            '<figure class="chart">'
            f"<figcaption><h3>{escape(self.title)}</h3><p>{escape(self.note)}</p></figcaption>"
            f'<div class="plot"{self._hover_data()}>'
            f'<div class="y" aria-hidden="true">{_y_labels(ticks, write)}</div>'
            f'<div class="area">{self._svg(ticks)}{self._reference_label(ticks)}</div>'
            '<div class="unit" aria-hidden="true">epoch</div>'
            f'<div class="x" aria-hidden="true">{self._x_labels()}</div></div>{self._legend()}</figure>'
        )

    def _svg(self, ticks: list[float]) -> str:
        x, y = self._x_scale(), _scale(ticks[0], ticks[-1], 100, 0)
        grid = "".join(f'<path class="grid" d="M0 {y(tick):.2f}H100"/>' for tick in ticks)
        curves = "".join(self._curve(one, x, y) for one in self.shown)
        line = f'<path class="reference" d="M0 {y(self.reference.value):.2f}H100"/>' if self.reference else ""
        return (
            '<svg viewBox="0 0 100 100" preserveAspectRatio="none" role="img" '
            f'aria-label="{escape(self._spoken())}">{grid}{line}{curves}</svg>'
        )

    def _curve(self, one: Series, x: Callable[[float], float], y: Callable[[float], float]) -> str:
        colour = self._colour(one)
        kind = "curve dense" if len(self.epochs) > DENSE else "curve"
        points = list(zip(self.epochs, one.values, strict=True))
        if one.joined:
            points = [point for point in points if math.isfinite(point[1])]
        lines, dots = curve_path([epoch for epoch, _ in points], [value for _, value in points], x, y)
        drawn = f'<path class="{kind} {colour}" d="{lines}"/>' if lines else ""
        return drawn + (f'<path class="dots {colour}" d="{dots}"/>' if dots else "")

    def _colour(self, one: Series) -> str:
        """Its class in the style sheet, by its place among all curves: the same in charts that lack another one."""
        return f"s{next(place for place, other in enumerate(self.series) if other is one)}"

    def _x_scale(self) -> Callable[[float], float]:
        return _scale(self.epochs[0], self.epochs[-1], 1.5, 98.5)

    def _x_labels(self) -> str:
        ticks = whole_ticks(self.epochs[0], self.epochs[-1])
        x = self._x_scale()
        return "".join(f'<span style="left:{x(tick):.2f}%">{tick}</span>' for tick in ticks)

    def _reference_label(self, ticks: list[float]) -> str:
        if not self.reference:
            return ""
        top = _scale(ticks[0], ticks[-1], 100, 0)(self.reference.value)
        # The words stand at the right end, where curves above the line would run through them.
        ends = [next(value for value in reversed(one.values) if math.isfinite(value)) for one in self.shown]
        lowest = LOWEST_WORDS if min(ends) > self.reference.value else 50
        side = "below" if top < lowest else "above"
        return f'<span class="reference {side}" style="top:{top:.2f}%">{escape(self.reference.text)}</span>'

    def _legend(self) -> str:
        items = []
        for one in self.shown:
            written = " → ".join(self._landmarks(one))
            items.append(f'<li><i class="{self._colour(one)}"></i>{escape(one.name)} <b>{written}</b></li>')
        return f'<ul class="legend">{"".join(items)}</ul>'

    def _landmarks(self, one: Series) -> list[str]:
        """The first and the last value, and the highest between them where it is asked for."""
        finite = [value for value in one.values if math.isfinite(value)]
        marks = [finite[0], finite[-1]] if len(finite) > 1 else finite
        if self.peak and max(finite) > max(marks):
            marks.insert(1, max(finite))
        # Two curves share the line below the chart.
        digits = 4 if len(self.shown) == 1 else 3
        return [percent(mark) if self.percent else short(mark, digits) for mark in marks]

    def _spoken(self) -> str:
        parts = [f"{one.name} from {' to '.join(self._landmarks(one))}" for one in self.shown]
        line = f"; reference line at {short(self.reference.value)}" if self.reference else ""
        return f"{self.title} over {len(self.epochs)} epochs: {', '.join(parts)}{line}"

    def _hover_data(self) -> str:
        write = percent if self.percent else short
        data = {
            "x": list(self.epochs),
            "series": [
                {"name": one.name, "y": [write(v) if math.isfinite(v) else None for v in one.values]}
                for one in self.shown
            ],
        }
        return f' data-chart="{escape(json.dumps(data, separators=(",", ":")))}"'


def curve_path(
    epochs: Sequence[int], values: Values, x: Callable[[float], float], y: Callable[[float], float]
) -> tuple[str, str]:
    """SVG path data of the lines, interrupted where a value is not finite, and of the points without a "
    "neighbour.
    """
    runs: list[list[str]] = [[]]
    for epoch, value in zip(epochs, values, strict=True):
        if math.isfinite(value):
            runs[-1].append(f"{x(epoch):.2f} {y(value):.2f}")
        elif runs[-1]:
            runs.append([])
    lines = "".join(f"M{'L'.join(run)}" for run in runs if len(run) > 1)
    return lines, "".join(f"M{run[0]}h0" for run in runs if len(run) == 1)


def nice_ticks(low: float, high: float, wanted: int = 4) -> list[float]:
    """Round numbers, evenly apart, the first at most `low` and the last at least `high`."""
    if not high > low:
        margin = abs(low) / 10 or 1.0
        low, high = low - margin, high + margin
    step = _nice_step((high - low) / wanted)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [tick * step for tick in range(first, last + 1)]


def whole_ticks(first: int, last: int, wanted: int = 5) -> list[int]:
    """Whole round numbers within first .. last, evenly apart; at least one of the two ends where none
    fits.
    """
    step = max(1, int(_nice_step(max(last - first, 1) / wanted)))
    return list(range(math.ceil(first / step) * step, last + 1, step)) or [first]


def _nice_step(rough: float) -> float:
    power = 10.0 ** math.floor(math.log10(rough))
    return next(power * factor for factor in (1, 2, 2.5, 5, 10) if power * factor >= rough * (1 - 1e-9))


def _scale(low: float, high: float, start: float, end: float) -> Callable[[float], float]:
    """Linear from low .. high to start .. end; the middle where low equals high."""
    if high == low:
        return lambda value: (start + end) / 2
    return lambda value: start + (end - start) * (value - low) / (high - low)


def _y_labels(ticks: list[float], write: Callable[[float], str]) -> str:
    y = _scale(ticks[0], ticks[-1], 100, 0)
    return "".join(f'<span style="top:{y(tick):.2f}%">{write(tick)}</span>' for tick in ticks)


def tick_writer(ticks: list[float]) -> Callable[[float], str]:
    """How to write these ticks: all with as many decimals as their distance needs."""
    step = ticks[1] - ticks[0]
    if max(map(abs, ticks)) >= 1e5 or step < 1e-4:
        return short
    decimals = max(0, -math.floor(math.log10(step) + 1e-9))
    # A step of 2.5 needs a digit more than its power of ten.
    decimals += round(step * 10**decimals, 6) % 1 != 0
    return lambda tick: f"{tick:.{decimals}f}"


def short(value: float, digits: int = 4) -> str:
    """A number with that many significant digits, and an exponent where it would be long."""
    if not math.isfinite(value):
        return "not a number" if math.isnan(value) else "infinite"
    if value and not 1e-3 <= abs(value) < 1e5:
        mantissa, exponent = f"{value:.2e}".split("e")
        return f"{float(mantissa):g}e{int(exponent)}"
    return f"{value:.{digits}g}" if abs(value) < 10**digits else f"{value:.0f}"


def percent(share: float) -> str:
    """0.057 as 5.7 %."""
    return f"{share * 100:.3g} %"
