"""The charts of a run's report, each with the curves of all runs."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

from fastdino.visualize.charts import Chart, Series
from fastdino.visualize.comparison.reading import Run, whole
from fastdino.visualize.curves import training_charts

# So many letters of a name beside a curve.
LONGEST = 24


def shared_charts(runs: Sequence[Run]) -> list[Chart]:
    """Those that any run has values for; a chart that has several curves a run becomes several charts."""
    uniform = {whole(run.config, "out_dim") for run in runs}
    # Losses of other numbers of prototypes have no common line of having learnt nothing.
    out_dim = uniform.pop() if len(uniform) == 1 else None
    of_runs = [training_charts(run.log, out_dim) for run in runs]
    charts = [
        _shared(runs, alike, place) for alike in zip(*of_runs, strict=True) for place in range(len(alike[0].series))
    ]
    return [chart for chart in charts if chart.shown]


def label(run: Run) -> str:
    """What a run is called beside its curve."""
    name = run.name if len(run.name) <= LONGEST else f"{run.name[: LONGEST // 2]}…{run.name[1 - LONGEST // 2 :]}"
    return f"{run.letter} {name}"


def _shared(runs: Sequence[Run], charts: Sequence[Chart], place: int) -> Chart:
    """The curves at this place of the same chart of all runs, over the epochs of all of them."""
    first = charts[0]
    epochs = sorted({epoch for chart in charts for epoch in chart.epochs})
    series = []
    for run, chart in zip(runs, charts, strict=True):
        values = dict(zip(chart.epochs, chart.series[place].values, strict=True))
        # Without a value is an epoch that this run does not have; what it has and is no number is a gap.
        joined = all(math.isfinite(value) for value in values.values())
        series.append(Series(label(run), [values.get(epoch, math.nan) for epoch in epochs], joined))
    references = {chart.reference for chart in charts if chart.epochs}
    several = len(first.series) > 1
    return dataclasses.replace(
        first,
        title=f"{first.title}: {first.series[place].name}" if several else first.title,
        epochs=epochs,
        series=series,
        reference=references.pop() if len(references) == 1 and place == 0 else None,
    )
