from __future__ import annotations

import json
import math
import re
from html import unescape
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastdino.visualize.charts import (
    Chart,
    Reference,
    Series,
    curve_path,
    nice_ticks,
    percent,
    short,
    tick_writer,
    whole_ticks,
)

NAN = math.nan


def chart(values: list[float], **options: Any) -> Chart:
    return Chart("Loss", "A note.", range(len(values)), [Series("loss", values)], **options)


@given(st.floats(-1e6, 1e6), st.floats(1e-6, 1e6))
def test_ticks_enclose_the_values_and_are_few(low: float, extent: float) -> None:
    high = low + extent
    ticks = nice_ticks(low, high)
    step = ticks[1] - ticks[0] if len(ticks) > 1 else 1.0
    assert ticks[0] <= low + 1e-6 * step
    assert ticks[-1] >= high - 1e-6 * step
    assert 2 <= len(ticks) <= 7


@pytest.mark.parametrize("value", [0.0, 5.0, -3.0, 1e-9])
def test_ticks_of_a_constant(value: float) -> None:
    ticks = nice_ticks(value, value)
    assert ticks[0] < value < ticks[-1]


@given(st.integers(0, 2000), st.integers(0, 2000))
def test_whole_ticks_lie_within(first: int, extent: int) -> None:
    ticks = whole_ticks(first, first + extent)
    assert 1 <= len(ticks) <= 8
    assert all(first <= tick <= first + extent for tick in ticks)
    assert len({after - before for before, after in pairwise(ticks)}) <= 1


def test_tick_labels_are_told_apart() -> None:
    for low, high in ((0, 1), (2, 8), (6.9, 6.95), (0, 0.0006), (0, 3e6), (0, 1e-7), (0, 10)):
        ticks = nice_ticks(low, high)
        assert len({tick_writer(ticks)(tick) for tick in ticks}) == len(ticks)


def test_numbers_are_short() -> None:
    written = [short(value) for value in (0.0, 8.31776, 0.000487, 1234567.0, 20831.4, NAN, math.inf)]
    assert written == ["0", "8.318", "4.87e-4", "1.23e6", "20831", "not a number", "infinite"]
    assert percent(0.0567) == "5.67 %"


def test_gaps_and_lone_points() -> None:
    lines, dots = curve_path(range(6), [1, 2, NAN, 4, math.inf, 6], float, float)
    assert lines == "M0.00 1.00L1.00 2.00"
    assert dots == "M3.00 4.00h0M5.00 6.00h0"


def test_nothing_finite_is_no_chart() -> None:
    assert chart([NAN, NAN]).html() == ""
    assert chart([]).html() == ""


def test_curves_without_values_are_left_out() -> None:
    both = Chart("T", "n", [0, 1], [Series("absent", [NAN, NAN]), Series("there", [1, 2])])
    assert "absent" not in both.html()


@pytest.mark.parametrize("values", [[8.0], [NAN, 8.0], [8.0 - 0.001 * i for i in range(1000)], [0.0, 0.0]])
def test_paths_stay_on_the_canvas(values: list[float]) -> None:
    html = chart(values, reference=Reference(8.3, "line"), zero=True).html()
    drawn = re.findall(r'<path class="[^"]*s0" d="([^"]+)"', html)
    assert drawn
    points = [float(number) for number in re.findall(r"[\d.]+", drawn[0].replace("h0", ""))]
    assert len(points) == 2 * sum(map(math.isfinite, values))
    assert all(0 <= point <= 100 for point in points)


def test_first_and_last_value_and_the_reference_are_words() -> None:
    html = chart([8.25, NAN, 2.125], reference=Reference(8.318, "nothing learnt")).html()
    assert "8.25 → 2.125" in html
    assert "nothing learnt" in html
    assert 'aria-label="Loss over 3 epochs: loss from 8.25 to 2.125; reference line at 8.318"' in html


@pytest.mark.parametrize(
    ("last", "line", "side"),
    [(36.0, 33.0, "below"), (30.0, 33.0, "above"), (36.0, 2.0, "above"), (36.0, 70.0, "below")],
)
def test_words_beside_the_line_stay_clear_of_the_curve(last: float, line: float, side: str) -> None:
    html = chart([40.0, 80.0, last], reference=Reference(line, "untrained"), zero=True).html()
    assert f'<span class="reference {side}"' in html


def test_the_peak_is_named_where_asked() -> None:
    assert "0 → 0.5 → 0.1" in chart([0, 0.5, 0.1], peak=True).html()


def test_hover_data_is_json_without_nan() -> None:
    html = chart([1.5, NAN]).html()
    data = json.loads(unescape(re.findall(r'data-chart="([^"]+)"', html)[0]))
    assert data == {"x": [0, 1], "series": [{"name": "loss", "y": ["1.5", None]}]}
