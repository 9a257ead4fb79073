from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

from fastdino.visualize.map.atlas import pack
from fastdino.visualize.map.page import render
from tests.fastdino.visualize.browsing import DESKTOP, PHONE, chromium, faults, opened, overhang
from tests.fastdino.visualize.map.insects import COLOURS, EACH, content

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Locator, Page

BACKGROUND, DARK_BACKGROUND = [251, 250, 247], [11, 13, 17]  # as in map.css
MARGIN = 24  # as in view.js


@pytest.fixture(scope="module")
def places() -> np.ndarray:
    return content().positions


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("map") / "map.html"
    path.write_text(render(content()))
    return path


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@pytest.fixture
def page(browser: Browser, path: Path) -> Iterator[Page]:
    with opened(browser, path) as page:
        yield page


def on_screen(page: Page, place: np.ndarray) -> tuple[float, float]:
    """Where a place of the unit square is in the map when all of it is shown."""
    box = page.locator("#map").bounding_box()
    assert box is not None
    scale = min(box["width"], box["height"]) - 2 * MARGIN
    x, y = place.tolist()
    return box["width"] / 2 + (x - 0.5) * scale, box["height"] / 2 + (y - 0.5) * scale


def has_colour(page: Page, place: tuple[float, float], wanted: list[int]) -> bool:
    """Whether the map gets that colour there, once its thumbnails are unpacked."""
    for _ in range(50):
        shot = Image.open(BytesIO(page.locator("#map").screenshot())).convert("RGB")
        # WebP's rounding is some units of 255.
        if np.abs(np.asarray(shot, dtype=int)[round(place[1]), round(place[0])] - wanted).max() <= 12:
            return True
        page.wait_for_timeout(50)
    return False


def click(page: Page, place: tuple[float, float]) -> None:
    page.locator("#map").click(position={"x": place[0], "y": place[1]})


def names(buttons: Locator) -> list[str]:
    return [text or "" for text in buttons.locator("button").evaluate_all("all => all.map((one) => one.title)")]


def test_a_click_selects_a_picture_and_shows_its_neighbours(page: Page, places: np.ndarray) -> None:
    assert not page.locator("#selected").is_visible()
    click(page, on_screen(page, places[1]))
    assert page.locator("#selected-name").inner_text() == "ant/picture 1.jpg"
    assert page.locator("#selected-class").inner_text() == "ant"
    assert names(page.locator("#neighbours-list")) == [f"ant/picture {i}.jpg" for i in (2, 3, 4)]
    assert page.url.endswith("#picture=1")
    page.locator("#neighbours-list button").nth(1).click()
    assert page.locator("#selected-name").inner_text() == "ant/picture 3.jpg"
    page.get_by_role("button", name="Close").click()
    assert not page.locator("#selected").is_visible()


def test_the_thumbnail_is_drawn_at_its_place(page: Page, places: np.ndarray) -> None:
    for picture in (0, 150, 250):
        assert has_colour(page, on_screen(page, places[picture]), COLOURS[picture // EACH])


def test_a_link_to_a_picture_opens_it(browser: Browser, path: Path) -> None:
    with opened(browser, path) as page:
        page.goto(path.as_uri() + "#picture=250")
        assert page.locator("#selected-name").inner_text() == "<b>cat</b>/picture 250.jpg"
        box = page.locator("#map").bounding_box()
        assert box is not None
        middle = (box["width"] / 2, box["height"] / 2)
        assert has_colour(page, middle, COLOURS[2])


def test_search_lists_and_lifts_what_it_finds(page: Page, places: np.ndarray) -> None:
    page.get_by_label("Search names and classes").fill("PICTURE 16 bee")
    assert "11 of 300 pictures" in page.get_by_role("status").inner_text()
    assert names(page.locator("#results-list")) == [f"bee/picture {i}.jpg" for i in (116, *range(160, 170))]
    # 14 % of the thumbnail is left over the background.
    faded = [round(0.14 * value + 0.86 * ground) for value, ground in zip(COLOURS[0], BACKGROUND, strict=True)]
    assert has_colour(page, on_screen(page, places[0]), faded)
    page.keyboard.press("Enter")
    assert page.locator("#selected-name").inner_text() == "bee/picture 116.jpg"
    page.get_by_label("Search names and classes").fill("nothing like it")
    assert "0 of 300 pictures" in page.get_by_role("status").inner_text()
    assert not page.locator("#results").is_visible()


def test_a_class_of_the_tree_is_lifted(page: Page) -> None:
    row = page.locator(".tree button", has_text="bee")
    row.click()
    assert row.get_attribute("aria-pressed") == "true"
    assert page.get_by_role("status").inner_text().startswith("100 of 300 pictures; the first 60")
    row.click()
    assert row.get_attribute("aria-pressed") == "false"
    assert page.get_by_role("status").inner_text() == "300 pictures"


def test_colours_by_cluster_bring_a_list_of_clusters(page: Page) -> None:
    assert not page.locator("#clusters-section").is_visible()
    page.get_by_label("Colours").select_option("cluster")
    assert page.locator("#clusters-list button").count() == 5
    page.locator("#clusters-list button").first.click()
    assert page.get_by_role("status").inner_text().startswith("60 of 300 pictures")


def test_the_wheel_zooms_where_the_mouse_is(page: Page, places: np.ndarray) -> None:
    target = on_screen(page, places[1])
    page.locator("#map").hover(position={"x": target[0], "y": target[1]})
    assert page.locator("#hover").inner_text() == "ant/picture 1.jpg"
    for _ in range(12):
        page.mouse.wheel(0, -400)
    assert has_colour(page, target, COLOURS[0])
    # Alone in its corner, it is large by now, and its neighbours are out of sight.
    assert has_colour(page, (target[0] - 50, target[1]), COLOURS[0])
    click(page, target)
    assert page.locator("#selected-name").inner_text() == "ant/picture 1.jpg"


def test_dragging_moves_the_map_and_selects_nothing(page: Page, places: np.ndarray) -> None:
    x, y = on_screen(page, places[1])
    box = page.locator("#map").bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + x, box["y"] + y)
    page.mouse.down()
    page.mouse.move(box["x"] + x - 100, box["y"] + y - 60, steps=4)
    page.mouse.up()
    assert not page.locator("#selected").is_visible()
    assert has_colour(page, (x - 100, y - 60), COLOURS[0])


def test_two_fingers_zoom(browser: Browser, path: Path, places: np.ndarray) -> None:
    with opened(browser, path, viewport=PHONE, has_touch=True, is_mobile=True) as page:
        x, y = on_screen(page, places[2])
        box = page.locator("#map").bounding_box()
        assert box is not None
        session = page.context.new_cdp_session(page)

        def touch(kind: str, apart: float) -> None:
            fingers = [{"x": box["x"] + x + apart * side, "y": box["y"] + y, "id": side + 1} for side in (-1, 1)]
            session.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": fingers if apart else []})

        touch("touchStart", 10)
        for apart in (14, 20, 30, 42):
            touch("touchMove", apart)
        touch("touchEnd", 0)
        assert not page.locator("#selected").is_visible()
        page.touchscreen.tap(box["x"] + x, box["y"] + y)
        assert page.locator("#selected-name").inner_text() == "ant/picture 2.jpg"


def test_the_keyboard_does_all_of_it(page: Page) -> None:
    page.locator("#map").focus()
    for key in ("+", "+", "ArrowLeft", "ArrowUp", "-", "0"):
        page.keyboard.press(key)
    page.keyboard.press("Enter")
    first = page.locator("#selected-name").inner_text()
    assert first
    for _ in range(3):
        page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")
    assert page.locator("#selected-name").inner_text().startswith("bee/")
    page.keyboard.press("Escape")
    assert not page.locator("#selected").is_visible()
    for control in ("Zoom in", "Zoom out", "Show everything"):
        page.get_by_role("button", name=control).press("Enter")


@pytest.mark.parametrize(("scheme", "viewport"), [("light", DESKTOP), ("dark", PHONE)])
def test_everyone_can_read_it(browser: Browser, path: Path, scheme: str, viewport: dict[str, int]) -> None:
    with opened(browser, path, color_scheme=scheme, viewport=viewport) as page:
        page.get_by_label("Search names and classes").fill("bee")
        page.locator("#results-list button").first.click()
        assert faults(page) == []
        assert overhang(page) == 0
        assert has_colour(page, (2, 2), BACKGROUND if scheme == "light" else DARK_BACKGROUND)


def test_hostile_names_stay_words(page: Page) -> None:
    assert page.get_by_role("heading", level=1).inner_text() == "Map of insects & <others>"
    assert page.locator("b").count() == 0
    assert page.locator(".tree .name").all_inner_texts() == ["<b>cat</b>", "ant", "bee"]


def test_one_picture_without_a_class(browser: Browser, tmp_path: Path) -> None:
    alone = dataclasses.replace(
        content(),
        names=["alone.png"],
        classes=[],
        labels=np.array([-1]),
        positions=np.full((1, 2), 0.5, dtype=np.float32),
        clusters=np.empty(0, dtype=np.int32),
        neighbours=np.empty((1, 0), dtype=np.int64),
        atlas=pack(np.full((1, 96, 96, 3), 90, dtype=np.uint8), np.full((1, 2), 0.5, dtype=np.float32)),
        tree=None,
        examples=[],
    )
    (tmp_path / "map.html").write_text(render(alone))
    with opened(browser, tmp_path / "map.html") as page:
        page.locator("#map").focus()
        page.keyboard.press("Enter")
        assert page.locator("#selected-name").inner_text() == "alone.png"
