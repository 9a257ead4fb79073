"""The command `fastdino check`: a data set looked through before hours are spent on it."""

from __future__ import annotations

import warnings
from contextlib import closing
from functools import partial

from rich.console import Console

from fastdino.config import CheckConfig
from fastdino.cores import usable_cores
from fastdino.data.recipe import recipe_of
from fastdino.data.sources import Source, open_source
from fastdino.errors import CheckFailed
from fastdino.evaluate.features import progress_bar
from fastdino.prepare.inspect import inspect
from fastdino.prepare.report import Report, build_report, print_report
from fastdino.prepare.speed import measure_speed
from fastdino.prepare.survey import Survey
from fastdino.prepare.threads import in_order


def run(config: CheckConfig) -> Report:
    """Look at every picture of `config.data_path` and print what was found.

    Raises UserError for a data set that cannot be opened and CheckFailed, once all is printed, when it has pictures
    that the trainer would skip. Copies, small pictures and everything else are notes.
    """
    recipe = recipe_of(config)
    source = open_source(config.data_path)
    threads = max(1, min(config.num_workers, usable_cores()))
    survey = survey_of(source, threads, Console(stderr=True))
    usable = survey.usable
    speed = measure_speed(source, usable.tolist(), recipe, threads) if len(usable) else None
    small_side = config.local_size if config.local_crops_number else config.global_size
    report = build_report(config.data_path, source, survey, small_side, speed)
    if config.json:
        print(report.to_json())
    else:
        print_report(report, Console())
    if not report.ok:
        unusable = len(report.unreadable)
        raise CheckFailed(
            f"{unusable:,} of {report.pictures:,} pictures cannot be used: mend or remove them, "
            "or let training skip them."
        )
    return report


def survey_of(source: Source, threads: int, console: Console) -> Survey:
    """Inspect all pictures with `threads` threads, under a progress bar on `console`."""
    survey = Survey(len(source))
    # Pillow warns of damaged metadata and large pictures, without saying of which file.
    with (
        warnings.catch_warnings(),
        progress_bar(console) as progress,
        closing(in_order(partial(inspect, source), range(len(source)), threads)) as found,
    ):
        warnings.simplefilter("ignore")
        for index, picture in enumerate(progress.track(found, total=len(source), description="Checking")):
            survey.add(index, picture)
    return survey
