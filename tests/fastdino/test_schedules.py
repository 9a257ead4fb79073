from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fastdino.schedules import cosine_scheduler, teacher_temperatures


@pytest.mark.parametrize("name", ["lr", "wd", "momentum"])
def test_equals_the_originals(golden_schedules: dict[str, Any], name: str) -> None:
    arguments = golden_schedules["args"]
    base, final, warmup = arguments[name]
    schedule = cosine_scheduler(base, final, arguments["epochs"], arguments["niter_per_ep"], warmup)
    np.testing.assert_allclose(schedule, golden_schedules["values"][name], rtol=1e-12, atol=0)


def test_warm_up_as_long_as_the_training() -> None:
    schedule = cosine_scheduler(1.0, 0.0, 2, 3, warmup_epochs=2)
    np.testing.assert_allclose(schedule, np.linspace(0, 1, 6))


def test_warm_up_longer_than_the_training_is_refused() -> None:
    with pytest.raises(ValueError, match="does not fit"):
        cosine_scheduler(1.0, 0.0, 2, 3, warmup_epochs=3)
    with pytest.raises(ValueError, match="does not fit"):
        teacher_temperatures(0.04, 0.07, 3, 2)


def test_teacher_temperature_is_constant_within_an_epoch_and_reaches_its_value_in_the_last_of_the_warm_up() -> None:
    np.testing.assert_allclose(teacher_temperatures(0.04, 0.07, 4, 6), [0.04, 0.05, 0.06, 0.07, 0.07, 0.07])
