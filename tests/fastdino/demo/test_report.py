"""What the demo leaves to look at, in a browser."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from fastdino import TrainConfig
from fastdino.config import DemoConfig
from fastdino.demo import run as demo_run
from fastdino.demo.pictures import PHOTOGRAPHS, Split
from fastdino.demo.preset import demo_preset
from tests.fastdino.visualize.browsing import DESKTOP, PHONE, chromium, faults, opened, overhang

if TYPE_CHECKING:
    from playwright.sync_api import Browser

TRAINED = 4  # pictures of each photograph


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the demo writes, with few pictures and two epochs."""

    def short(data_path: str, output_dir: str, seed: int, num_workers: int) -> TrainConfig:
        preset = demo_preset(data_path, output_dir, seed, num_workers)
        return dataclasses.replace(preset, epochs=2, warmup_epochs=0)

    folder = tmp_path_factory.mktemp("demo")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(demo_run, "demo_preset", short)
        patch.setattr(demo_run.pictures, "SPLITS", (Split("train", TRAINED, 0.0, 0.5), Split("val", 2, 0.5, 1.0)))
        demo_run.run(DemoConfig(output_dir=str(folder), seed=0, num_workers=0))
    return folder


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


def test_it_shows_everything(browser: Browser, folder: Path) -> None:
    with opened(browser, folder / "report.html") as page:
        charts = page.locator("#curves .chart h3").all_inner_texts()
        assert charts[0] == "Nearest neighbours over time"
        assert len(charts) > 4
        looks = page.locator("#attention figcaption").all_inner_texts()
        assert looks == ["astronaut", "chelsea", "coffee", "rocket"]
        assert page.locator("#neighbours .row").count() == 6
        assert page.locator("#map a").get_attribute("href") == "map.html"
        assert page.locator("#tree li").count() == len(PHOTOGRAPHS)
        broken = "all => all.filter((one) => !one.complete || !one.naturalWidth).length"
        assert page.locator("img").evaluate_all(broken) == 0


def test_pictures_lead_to_those_of_their_class_and_source_on_the_map(browser: Browser, folder: Path) -> None:
    with opened(browser, folder / "report.html") as page:
        rows = page.locator("#neighbours .row").evaluate_all(
            "rows => rows.map((row) => [...row.children].map("
            "(one) => [one.querySelector('a').getAttribute('href'), one.querySelector('figcaption').title]))"
        )
    compared_with = len(PHOTOGRAPHS) * TRAINED
    with opened(browser, folder / "map.html") as page:
        for row in rows:
            places = [int(href.removeprefix("map.html#picture=")) for href, _ in row]
            # On the map the held-out pictures, which are asked for, come after those that may be found.
            assert [place >= compared_with for place in places] == [True] + [False] * 6
            for (href, kind), place in zip(row, places, strict=True):
                page.goto((folder / href.split("#")[0]).as_uri() + f"#picture={place}")
                assert page.locator("#selected-class").inner_text() == kind


@pytest.mark.parametrize("viewport", [PHONE, DESKTOP])
@pytest.mark.parametrize("colours", ["light", "dark"])
def test_anyone_can_use_it(browser: Browser, folder: Path, viewport: dict[str, int], colours: str) -> None:
    with opened(browser, folder / "report.html", viewport=viewport, color_scheme=colours) as page:
        assert faults(page) == []
        assert overhang(page) == 0
        # At least the beginning of a class's name can be read below every picture.
        assert min(page.locator("#neighbours figcaption").evaluate_all("all => all.map((one) => one.clientWidth)")) > 48
