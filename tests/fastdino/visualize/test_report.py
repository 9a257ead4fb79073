from __future__ import annotations

import json
import math
import re
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fastdino.visualize.neighbours import Shown
from fastdino.visualize.report import PAGE_BYTES, Report, render, write_report

VOID = {"meta", "img", "wbr", "br"}
# SVG elements that the page closes at once, and HTML5 allows to.
CLOSED_AT_ONCE = {"path", "circle", "rect"}


class Page(HTMLParser):
    """Checks that elements nest, and collects them with their attributes and the text."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.text: list[str] = []
        self._open: list[str] = []
        self.feed(html)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag in CLOSED_AT_ONCE
        self.elements.append((tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self._open and self._open[-1] not in ("style", "script"):
            self.text.append(data)

    def all(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.elements if name == tag]


def noise(side: int, seed: int = 0, width: int | None = None) -> Image.Image:
    shape = (side, width or side, 3)
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8))


def line(epoch: int, **changes: Any) -> dict[str, Any]:
    return {
        "epoch": epoch,
        "train_loss": 8 - 0.01 * epoch,
        "train_lr": 5e-4,
        "train_wd": 0.04,
        "train_teacher_entropy": 7 - 0.01 * epoch,
        "train_kl": 1.0,
        "train_feature_std": 0.5,
        "images_per_second": 321.0,
        "data_wait": 0.05,
    } | changes


def full(**changes: Any) -> Report:
    contents: dict[str, Any] = {
        "title": "DINO on birds",
        "config": {"arch": "vit_small", "out_dim": 4096, "global_crops_scale": (0.4, 1.0), "lr": 0.0005},
        "environment": {"torch": "2.14", "device": "CPU"},
        "log": [line(epoch) for epoch in range(5)],
        "crops": [[noise(32), noise(32), *[noise(16, seed) for seed in range(6)]]],
        "attention": [("photo.png", noise(40)), ("wide.png", noise(20, width=90))],
        "knn": {
            "knn_top1": 78.4,
            "knn_top1_random_init": 61.5,
            "knn_top1_pixels": 33.0,
            "chance": 6.7,
            "by_k": {20: (78.4, 95.1)},
            "explanation": "Measured on 300 pictures.",
        },
        "neighbours": [(Shown(noise(24, 1)), [Shown(noise(24, seed)) for seed in range(4)])],
        "verdict": ["It worked well.", "Try more --epochs."],
        "tone": "good",
    }
    return Report(**(contents | changes))


def test_a_full_page_parses_and_says_its_numbers() -> None:
    page = Page(render(full()))
    text = " ".join(page.text)
    for words in (
        "DINO on birds",
        "It worked well.",
        "78.4 %",
        "61.5 %",
        "+16.9 points",
        "33.0 %",
        "6.7 %",
        "95.1 %",
    ):
        assert words in text
    for words in (
        "8 → 7.96",
        "ln(4096) = 8.318",
        "nothing learnt / collapsed",
        "321",
        "Measured on 300 pictures.",
    ):
        assert words in text
    for words in ("0.4, 1.0", "5e-4", "2.14", "photo.png"):
        assert words in text


def test_nothing_is_loaded_from_anywhere() -> None:
    page = Page(render(full()))
    loads = [
        value
        for _, attributes in page.elements
        for name, value in attributes.items()
        if name in ("src", "href", "srcset", "action", "data", "poster")
    ]
    assert len(loads) > 10
    assert all(value.startswith(("data:image/", "#")) for value in loads)
    assert {tag for tag, _ in page.elements}.isdisjoint({"link", "iframe", "object", "embed"})
    assert "url(" not in render(full())
    assert "@import" not in render(full())
    [policy] = [meta["content"] for meta in page.all("meta") if "http-equiv" in meta]
    assert policy.startswith("default-src 'none'")


def test_links_lead_somewhere_and_headings_do_not_skip_levels() -> None:
    page = Page(render(full()))
    anchors = {attributes["id"] for _, attributes in page.elements if "id" in attributes}
    assert {link["href"][1:] for link in page.all("a")} == anchors
    levels = [int(tag[1]) for tag, _ in page.elements if re.fullmatch(r"h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))


def test_pictures_charts_and_tables_can_be_heard() -> None:
    page = Page(render(full()))
    assert page.all("html") == [{"lang": "en"}]
    assert len(page.all("img")) == 8 + 2 + 5
    assert all(image["alt"] and image["width"] and image["height"] for image in page.all("img"))
    for drawing in page.all("svg"):
        assert drawing.get("aria-hidden") == "true" or (drawing["role"] == "img" and drawing["aria-label"])
    assert all(header.get("scope") in ("row", "col") for header in page.all("th"))


HOSTILE = "</style><script>alert('x')</script><img src=http://evil.example/x.png onerror=\"y\">&"


def test_hostile_words_stay_words() -> None:
    plain, hostile = (
        render(
            full(
                title=words,
                config={"arch": words, words: words, "data_path": words, "out_dim": 4096},
                environment={words: words},
                attention=[(words, noise(40))],
                knn={"knn_top1": 50.0, "by_k": {words: (1.0, 2.0)}, "explanation": words},
                verdict=[words, words],
                log=[line(0, **{words: words})],
            )
        )
        for words in ("harmless", HOSTILE)
    )
    page = Page(hostile)
    assert [tag for tag, _ in page.elements if tag != "wbr"] == [tag for tag, _ in Page(plain).elements if tag != "wbr"]
    assert "".join(page.text).count(HOSTILE) >= 8
    assert all("onerror" not in attributes for _, attributes in page.elements)


@pytest.mark.parametrize("missing", ["log", "crops", "attention", "knn", "neighbours", "verdict", "config"])
def test_what_is_missing_is_left_out(missing: str) -> None:
    empty: dict[str, Any] = {"crops": None, "knn": None, "config": {}}
    page = Page(render(full(**{missing: empty.get(missing, [])})))
    anchors = {attributes["id"] for _, attributes in page.elements if "id" in attributes}
    sections = {"log": "curves", "verdict": None, "config": None}
    everything = {"knn", "neighbours", "attention", "curves", "crops", "settings"}
    assert anchors == everything - {sections.get(missing, missing)}


def test_a_title_is_enough() -> None:
    page = Page(render(Report(title="Empty")))
    assert "Empty" in page.text
    assert page.all("section") == []


@pytest.mark.parametrize(
    "log",
    [
        [line(0)],
        [line(epoch) for epoch in range(1000)],
        [line(0), line(1, train_loss=math.nan, train_lr=None)],
        [line(epoch, train_loss=math.nan) for epoch in range(3)],
        [{"epoch": 0, "train_loss": None}],
        [line(3), line(1), line(1, train_loss=1.5), line(2)],
        [{"no": "epoch"}],
    ],
)
def test_logs_of_every_kind(log: list[dict[str, Any]]) -> None:
    html = render(full(log=log))
    Page(html)
    assert "NaN" not in html
    assert len(html) < PAGE_BYTES


def test_epochs_trained_again_count_once_in_their_order() -> None:
    text = " ".join(Page(render(full(log=[line(1), line(0, train_loss=6.5), line(1, train_loss=1.5)]))).text)
    assert "6.5 → 1.5" in text


def test_nearest_neighbours_over_time_come_first_and_join_what_was_measured() -> None:
    log = [line(epoch, **({"knn_top1": 20.0 + epoch} if epoch % 3 == 0 else {})) for epoch in range(10)]
    log[0]["knn_top1_random_init"] = 12.5
    page = Page(render(full(log=log)))
    titles = [drawing["aria-label"] for drawing in page.all("svg") if "aria-label" in drawing]
    assert titles[0].startswith("Nearest neighbours over time")
    assert "20 %" in titles[0]
    assert "29 %" in titles[0]
    charts = [json.loads(attributes["data-chart"]) for attributes in page.all("div") if "data-chart" in attributes]
    assert charts[0]["x"] == [0, 3, 6, 9]
    assert "untrained network" in page.text
    [curve] = re.findall(r'<path class="curve s0" d="([^"]+)"', render(full(log=log)))[:1]
    assert curve.count("M") == 1
    assert curve.count("L") == 3
    assert "Nearest neighbours over time" not in render(full())


def test_a_sheet_of_crops_will_do() -> None:
    page = Page(render(full(crops=noise(64, width=200))))
    assert len(page.all("img")) == 1 + 2 + 5


def test_many_large_pictures_are_shrunk_until_the_page_is_small(tmp_path: Path) -> None:
    many = full(
        crops=[[noise(264)] * 12] * 8,
        attention=[(str(number), noise(640)) for number in range(40)],
        neighbours=[(Shown(noise(144)), [Shown(noise(144))] * 6)] * 8,
    )
    write_report(tmp_path / "report.html", many)
    page = (tmp_path / "report.html").read_text()
    assert len(page.encode()) <= PAGE_BYTES < len(render(many).encode())
    Page(page)
