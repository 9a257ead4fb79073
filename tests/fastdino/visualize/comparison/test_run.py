"""The command, and its page in a browser."""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

import pytest

from fastdino.cli import main
from fastdino.visualize.charts import Chart
from fastdino.visualize.comparison.curves import shared_charts
from fastdino.visualize.comparison.differences import environments, settings
from fastdino.visualize.comparison.reading import LETTERS, read_runs
from fastdino.visualize.comparison.style import DASHES
from tests.fastdino.visualize.browsing import DESKTOP, PHONE, chromium, faults, opened, overhang
from tests.fastdino.visualize.comparison.runs import line, original_line, write

HOSTILE = "<img src=x onerror=alert(1)>&\"'"


def shared(folders: list[str]) -> dict[str, Chart]:
    return {chart.title: chart for chart in shared_charts(read_runs(folders))}


def test_the_terminal_has_answer_and_figures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a, b = write(tmp_path / "a", top1=40.0), write(tmp_path / "b", top1=60.0)
    page = tmp_path / "pages" / "comparison.html"
    assert main(["compare", a, b, "--output", str(page)]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("B (b) is better: nearest neighbours name the right class for 60.0 %")
    for words in ("k-NN accuracy", "40.0 %", "60.0 %", str(page)):
        assert words in printed
    assert 'href="../a/report.html"' in page.read_text()


@pytest.mark.parametrize(("flags", "words"), [(["--output", "page.txt"], ".html"), ([], "two runs or more")])
def test_mistakes_end_in_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], flags: list[str], words: str
) -> None:
    assert main(["compare", write(tmp_path / "a"), *flags]) == 2
    error = capsys.readouterr().err
    assert words in error
    assert error.count("\n") == 1


def test_a_runs_report_is_not_overwritten(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a, b = write(tmp_path / "a", top1=40.0), write(tmp_path / "b", top1=60.0)
    report = tmp_path / "a" / "report.html"
    before = report.read_text()
    assert main(["compare", a, b, "--output", str(report)]) == 2
    assert "the report of one of the runs" in capsys.readouterr().err
    assert report.read_text() == before


def test_curves_keep_their_place_over_the_epochs_of_all(tmp_path: Path) -> None:
    a = write(tmp_path / "a", log=[original_line(epoch) for epoch in range(3)], settings={})
    b = write(tmp_path / "b", log=[line(epoch, knn_top1=50.0) if epoch % 2 else line(epoch) for epoch in range(6)])
    charts = shared([a, b])
    loss, knn = charts["Loss"], charts["Nearest neighbours over time"]
    assert list(loss.epochs) == [0, 1, 2, 3, 4, 5]
    assert [math.isnan(value) for value in loss.series[0].values] == [False] * 3 + [True] * 3
    assert (list(knn.epochs), [one.name for one in knn.shown]) == ([1, 3, 5], ["B b"])
    # The second run's colour and dashes, though the first has no curve in this chart.
    assert 'class="curve s1"' in knn.html()
    assert "Teacher's certainty: entropy" in charts
    assert "Teacher's certainty: KL" in charts


def test_a_curve_joins_what_was_measured_at_its_own_epochs(tmp_path: Path) -> None:
    logs = [
        [line(epoch, knn_top1=50.0) if epoch in at else line(epoch) for epoch in range(6)] for at in ({0, 5}, {2, 3})
    ]
    knn = shared([write(tmp_path / str(index), log=log) for index, log in enumerate(logs)])[
        "Nearest neighbours over time"
    ]
    assert knn.html().count('<path class="curve') == 2


def test_a_loss_that_is_no_number_leaves_a_gap(tmp_path: Path) -> None:
    log = [line(epoch, train_loss=math.nan if epoch == 2 else 8.0) for epoch in range(5)]
    loss = shared([write(tmp_path / "a", log=log), write(tmp_path / "b")])["Loss"]
    assert [one.joined for one in loss.series] == [False, True]


def test_the_line_of_having_learnt_nothing_is_for_equal_heads(tmp_path: Path) -> None:
    a, b = write(tmp_path / "a"), write(tmp_path / "b")
    assert shared([a, b])["Loss"].reference is not None
    assert shared([a, write(tmp_path / "c", settings={"out_dim": 64})])["Loss"].reference is None


def test_only_what_differs_is_shown_unfolded(tmp_path: Path) -> None:
    a = write(tmp_path / "a", top1=50.0)
    b = write(tmp_path / "b", top1=50.0, settings={"lr": 0.001}, results={"environment": {"torch": "2.15", "x": "1"}})
    runs = read_runs([a, b])
    differing, same = settings(runs)
    assert [(row.name, row.cells) for row in differing] == [("lr", ["5e-4", "0.001"])]
    assert "arch" in [row.name for row in same]
    assert [row.name for row in environments(runs)[0]] == ["torch"]


def test_each_run_has_its_own_dashes() -> None:
    assert len(set(DASHES)) == len(LETTERS)


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six runs, among them hostile and long names, an original's, an unfinished and a diverged one."""
    root = tmp_path_factory.mktemp("runs")
    knn = [line(epoch, knn_top1=30.0 + epoch) if epoch % 3 == 0 else line(epoch) for epoch in range(10)]
    folders = [
        write(root / HOSTILE.replace("/", ""), top1=47.0, log=knn, settings={"arch": HOSTILE, HOSTILE: HOSTILE}),
        write(
            root / ("long_name_" * 12), top1=60.0, settings={"lr": 0.001}, results={"environment": {HOSTILE: "\ud800"}}
        ),
        write(root / "original", log=[original_line(epoch) for epoch in range(4)], settings={}),
        write(root / "unfinished", log=knn[:4]),
        write(root / "diverged", log=[line(0), line(1), line(2, train_loss=math.nan)]),
        write(root / "ä b#?%", top1=52.0),
    ]
    path = root / "comparison.html"
    assert main(["compare", *folders, "--output", str(path)]) == 0
    return path


def test_the_page_fits_and_keeps_nobody_out(page: Path) -> None:
    with chromium() as browser:
        for viewport, colours in itertools.product((DESKTOP, PHONE), ("light", "dark")):
            with opened(browser, page, viewport=viewport, color_scheme=colours) as tab:
                assert overhang(tab) == 0
                assert faults(tab) == []
                assert tab.evaluate("document.querySelectorAll('img').length") == 0
                strokes = tab.evaluate(
                    "[...document.querySelectorAll('#curves .chart:nth-child(2) .curve')].map(curve => "
                    "getComputedStyle(curve).stroke + getComputedStyle(curve).strokeDasharray)"
                )
                assert len(strokes) == len(set(strokes)) == 6


def test_links_lead_to_the_reports_and_the_pointer_names_values(page: Path) -> None:
    with chromium() as browser, opened(browser, page) as tab:
        tab.hover("#curves .chart:nth-child(2) .area", position={"x": 3, "y": 50})
        assert "A <img" in tab.inner_text(".tip")
        assert overhang(tab) == 0
        addresses = tab.eval_on_selector_all("#runs a", "links => links.map(link => link.href)")
    assert len(addresses) == 3
    assert all(Path(url2pathname(urlsplit(address).path)).is_file() for address in addresses)
