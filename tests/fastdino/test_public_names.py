from __future__ import annotations

import subprocess
import sys

import pytest

import fastdino


@pytest.mark.parametrize("name", fastdino.__all__)
def test_every_public_name_is_there(name: str) -> None:
    assert getattr(fastdino, name) is not None
    assert name in dir(fastdino)


def test_train_stays_callable_after_its_package_is_imported() -> None:
    import fastdino.train.run

    assert callable(fastdino.train)
    with pytest.raises(AttributeError):
        _ = fastdino.nothing


def test_importing_is_instant() -> None:
    program = "import sys, fastdino; assert not {'torch', 'numpy'} & sys.modules.keys()"
    subprocess.run([sys.executable, "-c", program], check=True)
