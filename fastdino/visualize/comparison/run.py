"""The command `fastdino compare`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from fastdino.config import CompareConfig
from fastdino.errors import UserError
from fastdino.evaluate.output import writing_to
from fastdino.files import write_atomically
from fastdino.visualize.comparison.figures import key_figures
from fastdino.visualize.comparison.judgement import judge
from fastdino.visualize.comparison.page import render
from fastdino.visualize.comparison.reading import Run, read_runs


def run(config: CompareConfig) -> None:
    """Write the comparison of the runs in the folders `runs` to `output`, and print its answer and key figures.

    Raises UserError for everything that the user can mend.
    """
    if Path(config.output).suffix != ".html":
        raise UserError(f"--output is {config.output!r}: give a file ending in .html")
    runs = read_runs(config.runs)
    reports = {one.folder / "report.html" for one in runs}
    if Path(config.output).resolve() in reports:
        raise UserError(f"--output is {config.output!r}, the report of one of the runs: give another file")
    judgement = judge(runs)
    with writing_to(config.output, "--output") as output:
        output.parent.mkdir(parents=True, exist_ok=True)
        page = render(runs, judgement, output.parent.resolve())
        # Settings may hold what no UTF-8 has.
        write_atomically(output, page.encode(errors="backslashreplace"))
    console = Console()
    for sentence in judgement.sentences:
        console.print(sentence, highlight=False, markup=False, soft_wrap=True)
    console.print(_table(runs))
    console.print(f"{output}: the same with curves, and all settings", highlight=False, markup=False, soft_wrap=True)


def _table(runs: Sequence[Run]) -> Table:
    table = Table()
    table.add_column("")
    for one in runs:
        table.add_column(Text(f"{one.letter}\n{one.name}"), justify="right", overflow="fold")
    for row in key_figures(runs):
        table.add_row(row.name, *(Text(cell) for cell in row.cells))
    return table
