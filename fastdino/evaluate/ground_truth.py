"""What should be found: the ground truth of revisited Oxford and Paris, and of a folder of one's own."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastdino.data.sources import FolderSource, Source, Subset
from fastdino.errors import UserError
from fastdino.evaluate.restricted_pickle import read_plain_pickle

KINDS = ("easy", "hard", "junk")


@dataclass(frozen=True)
class Relevant:
    """Gallery pictures, by index, that a query should find easily or with effort, and those that do not count."""

    easy: frozenset[int]
    hard: frozenset[int]
    junk: frozenset[int]

    def renumbered(self, number: Mapping[int, int]) -> Relevant:
        """The same pictures under other numbers."""
        return Relevant(*(frozenset(number[index] for index in kind) for kind in (self.easy, self.hard, self.junk)))


@dataclass(frozen=True)
class RetrievalData:
    """Pictures to search, queries, and what each query should find."""

    gallery: Source
    queries: Source
    relevant: list[Relevant]


def read_revisited(folder: Path, dataset: str) -> RetrievalData:
    """`folder`/`dataset` as its authors publish it: gnd_`dataset`.pkl and the pictures in jpg/.

    Raises UserError for missing or strange files.
    """
    path = folder / dataset / f"gnd_{dataset}.pkl"
    if not path.is_file():
        raise UserError(
            f"there is no {path}: give the folder that holds {dataset}/ as --data_path, or a JSON file as "
            "--ground_truth for pictures of your own"
        )
    content = read_plain_pickle(path)
    try:
        gallery, queries = [f"{name}.jpg" for name in content["imlist"]], [f"{name}.jpg" for name in content["qimlist"]]
        relevant = [
            Relevant(*(frozenset(int(index) for index in truth[kind]) for kind in KINDS)) for truth in content["gnd"]
        ]
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise UserError(f"{path} lacks imlist, qimlist or gnd: download it again") from error
    places = {index for truth in relevant for kind in (truth.easy, truth.hard, truth.junk) for index in kind}
    if len(relevant) != len(queries) or any(not 0 <= index < len(gallery) for index in places):
        raise UserError(f"{path} does not fit together: download it again")
    source = FolderSource(folder / dataset / "jpg")
    number = _numbers(source)
    return RetrievalData(
        Subset(source, [_place(name, number, path) for name in gallery]),
        Subset(source, [_place(name, number, path) for name in queries]),
        relevant,
    )


def read_json(folder: Path, path: Path) -> RetrievalData:
    """A list of {"query": NAME, "easy": [NAME, ...], "hard": [...], "junk": [...]}, of pictures in `folder`.

    All pictures in `folder` are searched; a query never counts as its own find. Raises UserError for a file of another
    form, and for pictures that are not there.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"cannot read {path} ({error.strerror}): give another --ground_truth") from error
    except ValueError as error:
        raise UserError(f"{path} is no JSON ({error}): give a list of queries as --ground_truth") from error
    if not isinstance(content, list) or not content:
        raise UserError(f'{path} holds no list of queries: give [{{"query": "a.jpg", "easy": ["b.jpg"]}}]')
    source = FolderSource(folder)
    number = _numbers(source)
    queries, relevant = [], []
    for item in content:
        query, lists = _query(item, path)
        queries.append(_place(query, number, path))
        truth = Relevant(*(frozenset(_place(name, number, path) for name in lists[kind]) for kind in KINDS))
        own = frozenset(queries[-1:])
        relevant.append(Relevant(truth.easy - own, truth.hard - own, truth.junk | own))
    return RetrievalData(source, Subset(source, queries), relevant)


def _query(item: Any, path: Path) -> tuple[str, dict[str, list[str]]]:
    if not isinstance(item, Mapping) or not isinstance(item.get("query"), str):
        raise UserError(f'{path} has a query without a name: write {{"query": "a.jpg", "easy": ["b.jpg"]}}')
    strange = set(item) - {"query", *KINDS}
    lists = {kind: item.get(kind, []) for kind in KINDS}
    texts = all(isinstance(names, list) and all(isinstance(name, str) for name in names) for names in lists.values())
    if strange or not texts:
        raise UserError(f"{item['query']} in {path} has more or other than lists of names: easy, hard and junk")
    return item["query"], lists


def _numbers(source: Source) -> dict[str, int]:
    return {source.name(index): index for index in range(len(source))}


def _place(name: str, numbers: Mapping[str, int], path: Path) -> int:
    if name not in numbers:
        raise UserError(f"{path} names {name}, which is not among the pictures: add it or take it off the list")
    return numbers[name]
