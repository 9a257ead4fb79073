"""What the demo leaves to look at, in a browser."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from fastdino.config import DemoConfig
from fastdino.data import FolderSource
from fastdino.data.reading import read_image
from fastdino.demo import run as demo_run
from fastdino.demo.pictures import PHOTOGRAPHS
from fastdino.evaluate.cuts import centre_crop
from tests.fastdino.demo.short import shorten
from tests.fastdino.visualize.browsing import DESKTOP, PHONE, chromium, faults, opened, overhang

if TYPE_CHECKING:
    from playwright.sync_api import Browser


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the demo writes, with few pictures and two epochs."""
    folder = tmp_path_factory.mktemp("demo")
    with pytest.MonkeyPatch.context() as patch:
        shorten(patch, epochs=2)
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


def test_pictures_lead_to_themselves_on_the_map(browser: Browser, folder: Path) -> None:
    with opened(browser, folder / "report.html") as page:
        rows = page.locator("#neighbours .row").evaluate_all(
            "rows => rows.map((row) => [...row.children].map((one) => [one.querySelector('a').getAttribute('href'), "
            "one.querySelector('figcaption').title, one.querySelector('img').src]))"
        )
    # The map numbers the held-out pictures, which are asked for, after those that may be found.
    trained, held_out = (FolderSource(folder / "pictures" / name) for name in ("train", "val"))
    files = [source.read(index) for source in (trained, held_out) for index in range(len(source))]
    drawn = np.stack([small(centre_crop(read_image(data), 64)) for data in files])
    with opened(browser, folder / "map.html") as page:
        for row in rows:
            places = [int(href.removeprefix("map.html#picture=")) for href, _, _ in row]
            assert [place >= len(trained) for place in places] == [True] + [False] * 6
            for (href, kind, src), place in zip(row, places, strict=True):
                picture = small(read_image(base64.b64decode(src.partition(",")[2])))
                assert np.abs(drawn - picture).mean(axis=(1, 2, 3)).argmin() == place
                page.goto((folder / href.split("#")[0]).as_uri() + f"#picture={place}")
                assert page.locator("#selected-class").inner_text() == kind


def small(picture: Image.Image) -> npt.NDArray[np.int64]:
    """What is left of it when it is small: enough to tell it from others."""
    return np.asarray(picture.resize((16, 16)), dtype=np.int64)


@pytest.mark.parametrize("viewport", [PHONE, DESKTOP])
@pytest.mark.parametrize("colours", ["light", "dark"])
def test_anyone_can_use_it(browser: Browser, folder: Path, viewport: dict[str, int], colours: str) -> None:
    with opened(browser, folder / "report.html", viewport=viewport, color_scheme=colours) as page:
        assert faults(page) == []
        assert overhang(page) == 0
        # At least the beginning of a class's name can be read below every picture.
        assert min(page.locator("#neighbours figcaption").evaluate_all("all => all.map((one) => one.clientWidth)")) > 48
