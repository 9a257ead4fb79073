from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fastdino.visualize.comparison.judgement import Judgement, judge
from fastdino.visualize.comparison.reading import read_runs
from tests.fastdino.visualize.comparison.runs import line, original_line, write


def judged(*folders: str) -> Judgement:
    return judge(read_runs(folders))


def test_more_than_chance_makes_one_better(tmp_path: Path) -> None:
    a = write(tmp_path / "base", top1=47.0)
    b = write(tmp_path / "other", top1=56.0, settings={"lr": 0.001})
    judgement = judged(a, b)
    assert judgement.tone == "good"
    assert judgement.sentences == [
        "B (other) is better: nearest neighbours name the right class for 56.0 % of its pictures against 47.0 % for "
        "A (base).",
        "They differ in one setting, lr (A 5e-4, B 0.001): probably what made the difference, though another --seed "
        "moves such figures, too.",
    ]


# Two standard errors of the difference at 50 %: 200 * sqrt(2 * 0.25 / n) points, 6.3 for 500 and 2.0 for 5000.
@pytest.mark.parametrize(("pictures", "clear"), [(500, False), (5000, True)])
def test_the_number_of_pictures_decides_what_is_chance(tmp_path: Path, pictures: int, clear: bool) -> None:
    folders = [
        write(tmp_path / name, top1=top1, knn={"pictures": pictures}) for name, top1 in (("a", 48.0), ("b", 52.0))
    ]
    judgement = judged(*folders)
    assert judgement.tone == ("good" if clear else "watch")
    assert judgement.sentences[0].startswith("B (b) is better" if clear else "No clear winner")
    if not clear:
        assert "with 500 pictures up to 6.3 points may be chance" in judgement.sentences[0]


def test_of_several_some_are_equal_and_some_behind(tmp_path: Path) -> None:
    folders = [write(tmp_path / name, top1=top1) for name, top1 in (("x", 50.0), ("y", 30.0), ("z", 52.0))]
    lead, behind, *_ = judged(*folders).sentences
    assert lead.startswith("No clear winner")
    assert "52.0 % in C (z) and 50.0 % in A (x)" in lead
    assert behind == "Clearly behind C: B (y) with 30.0 %."


def test_equal_figures_are_called_the_same(tmp_path: Path) -> None:
    lead, *_ = judged(write(tmp_path / "a", top1=100.0), write(tmp_path / "b", top1=100.0)).sentences
    assert lead.endswith("is 100.0 % in A (a) and 100.0 % in B (b); that is the same.")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"results": {"measured_on": "others"}}, "measured on other pictures"),
        ({"knn": {"pictures": 400}}, "measured on other pictures"),
        ({"knn": {"knn_top1_pixels": 40.0}}, "measured on other pictures"),
        ({"knn": {"k": 7}}, "one is by 20 nearest neighbours, the other by 7"),
    ],
    ids=["names", "number", "pixels", "k"],
)
def test_what_was_measured_otherwise_is_not_compared(tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    judgement = judged(write(tmp_path / "a", top1=30.0), write(tmp_path / "b", top1=90.0, **changes))
    assert judgement.tone == "watch"
    assert judgement.sentences[0].startswith("Which is better cannot be said.")
    assert words in judgement.sentences[0]
    assert "fastdino knn" in " ".join(judgement.sentences)


def test_one_measured_otherwise_is_left_out_of_the_ranking(tmp_path: Path) -> None:
    a, b = (write(tmp_path / name, top1=top1) for name, top1 in (("a", 30.0), ("b", 60.0)))
    c = write(tmp_path / "c", top1=90.0, results={"measured_on": "others"})
    sentences = judged(a, c, b).sentences
    assert sentences[0].startswith("C (b) is best")
    assert "B (c) 90.0 %" in sentences[1]
    assert "other pictures" in sentences[1]


def test_losses_alone_name_no_winner(tmp_path: Path) -> None:
    alike = judged(
        write(tmp_path / "a"), write(tmp_path / "b", log=[line(epoch, train_loss=5.0) for epoch in range(10)])
    )
    assert alike.tone == "watch"
    assert (
        "a lower loss need not mean better features: at the end 5.000 for B (b), 7.100 for A (a)" in alike.sentences[0]
    )
    other = judged(write(tmp_path / "c"), write(tmp_path / "d", settings={"out_dim": 64, "teacher_temp": 0.07}))
    assert "losses with other out_dim and teacher_temp cannot be compared" in " ".join(other.sentences[:1])
    unknown = judged(write(tmp_path / "e"), write(tmp_path / "f", settings={}))
    assert "the settings of B are missing" in unknown.sentences[0]


def test_only_one_measured(tmp_path: Path) -> None:
    sentences = judged(write(tmp_path / "a", top1=50.0), write(tmp_path / "b")).sentences
    assert sentences[0].startswith("Which is better cannot be said: only A (a) was measured")
    assert "B has no readable results.json" in " ".join(sentences)


def test_figures_of_the_log_are_used_with_a_word_of_caution(tmp_path: Path) -> None:
    log = [line(epoch, knn_top1=70.0) for epoch in range(4)]
    judgement = judged(write(tmp_path / "a", top1=30.0), write(tmp_path / "b", log=log))
    assert judgement.tone == "watch"
    assert judgement.sentences[0].startswith("B (b) is better")
    assert "What B was measured on is not known" in judgement.sentences[1]
    assert "B has done 4 of its 10 epochs, so this is no final word." in judgement.sentences


def test_runs_of_other_lengths_are_compared_after_equally_many_epochs(tmp_path: Path) -> None:
    a = write(tmp_path / "a", top1=60.0, log=[line(epoch, knn_top1=40.0 + epoch) for epoch in range(10)])
    b = write(tmp_path / "b", top1=45.0, log=[line(epoch, knn_top1=41.0 + epoch) for epoch in (0, 4)])
    c = write(tmp_path / "c", top1=45.0, log=[line(4, knn_top1=99.0)], results={"measured_on": "others"})
    assert not any("C 99.0 %" in sentence for sentence in judged(a, b, c).sentences)
    assert (
        "After equally many epochs (5) nearest neighbours named the right class for A 44.0 %, B 45.0 %."
        in judged(a, b).sentences
    )


def test_a_run_that_diverged_is_said_to_have_gone_wrong(tmp_path: Path) -> None:
    a = write(tmp_path / "a", log=[line(0), line(1, train_loss=float("nan"))])
    lead, *others = judged(a, write(tmp_path / "b")).sentences
    assert lead == "A (a) went wrong, and nothing of the kind is seen of B (b)."
    assert "stopped being a number" in others[0]


def test_two_runs_that_diverged_have_no_losses_to_compare(tmp_path: Path) -> None:
    log = [line(0), line(1, train_loss=float("nan"))]
    lead = judged(*(write(tmp_path / name, log=log) for name in "ab")).sentences[0]
    assert lead == "Which is better cannot be said: no run ends with a loss that is a number."


def test_the_originals_runs_have_losses(tmp_path: Path) -> None:
    log = [original_line(epoch) for epoch in range(3)]
    sentences = judged(*(write(tmp_path / name, log=log, settings={}) for name in "ab")).sentences
    assert "whether they can be compared is not known" in sentences[0]
    assert sum("no readable config.json" in sentence for sentence in sentences) == 2


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"num_workers": 3, "saveckp_freq": 1}, "No setting that matters for training differs"),
        ({"seed": 1}, "differ in the seed alone"),
        ({"lr": 0.001, "out_dim": 64}, "They differ in 2 settings: out_dim (A 4096, B 64) and lr (A 5e-4, B 0.001)."),
        ({"lr": 1, "out_dim": 64, "seed": 5, "arch": "x"}, "They differ in 4 settings: arch (A vit_small, B x), "),
    ],
    ids=["none", "seed", "two", "four"],
)
def test_why(tmp_path: Path, settings: dict[str, Any], words: str) -> None:
    sentences = judged(write(tmp_path / "a", top1=30.0), write(tmp_path / "b", top1=60.0, settings=settings)).sentences
    assert words in sentences[-1]
