from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fastdino.errors import UserError
from fastdino.evaluate.restricted_pickle import read_plain_pickle


class Attack:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("protocol", range(6))
def test_plain_data_of_every_protocol(tmp_path: Path, protocol: int) -> None:
    path = tmp_path / "plain.pkl"
    content = {
        "names": ["a", "b"],
        "rows": np.arange(3),
        "one": np.float64(0.5),
        "empty": np.array([], dtype=int).tobytes(),
        "boxes": [(1.5, 2)],
        "none": None,
    }
    path.write_bytes(pickle.dumps(content, protocol))
    read = read_plain_pickle(path)
    assert np.array_equal(read.pop("rows"), content.pop("rows"))
    assert read == content


def test_code_is_refused_before_it_runs(tmp_path: Path) -> None:
    path = tmp_path / "attack.pkl"
    path.write_bytes(pickle.dumps({"gnd": [Attack(tmp_path / "made")]}))
    with pytest.raises(UserError, match=r"asks for posix\.mkdir"):
        read_plain_pickle(path)
    assert not (tmp_path / "made").exists()
    path.write_bytes(b"no pickle")
    with pytest.raises(UserError, match="no pickle of plain lists"):
        read_plain_pickle(path)
