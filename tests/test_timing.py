"""Timings: models take turns in the rounds of a launch, and launches are processes of their own."""

import itertools
from types import SimpleNamespace

import jax.numpy as jnp
import numpy as np
import pytest
import timing
from timing import launch_range, milliseconds_by_launch, milliseconds_per_step

from cnnjax.config import HParams
from cnnjax.data import Dataset
from cnnjax.models import ConvNet
from cnnjax.optimizers import keras_adam
from cnnjax.train import Arrays

TINY = ConvNet(features=(2,), hidden=(4,))


def test_the_time_of_a_step_is_the_median_of_rounds_in_which_models_alternate(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    data = Arrays(jnp.zeros((16, 8, 8, 1), jnp.uint8), jnp.zeros(16, jnp.int32))
    seconds = [1, 70, 30, 9, 2, 40]  # of the first model, the second; the second, the first; ...
    clock = itertools.accumulate(itertools.chain.from_iterable((0, each) for each in seconds))
    monkeypatch.setattr(timing, "time", SimpleNamespace(perf_counter=lambda: next(clock)))
    models = [(TINY, HParams(1e-3, 0.0))] * 2
    times = milliseconds_per_step(models, keras_adam, data, batch_size=8, rounds=3)
    steps = 2
    np.testing.assert_array_equal(times, [2000 / steps, 40_000 / steps])


def test_each_launch_times_all_models(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = iter([[1.0, 5.0], [2.0, 6.0], [3.0, 4.0]])
    monkeypatch.setattr(timing, "milliseconds_per_step", lambda *_, **__: next(rows))
    monkeypatch.setattr(timing, "launched", lambda measure, launches: (measure(*each) for each in launches))
    monkeypatch.setattr(timing, "use_every_core", lambda: None)
    monkeypatch.setenv("XLA_PYTHON_CLIENT_PREALLOCATE", "true")  # restored afterwards
    data = Dataset(np.zeros((400, 8, 8, 1), np.uint8), np.arange(400, dtype=np.int32) % 4)
    times = milliseconds_by_launch(lambda: [], keras_adam, data, batch_size=4, launches=3)
    np.testing.assert_array_equal(times, [[1, 2, 3], [5, 6, 4]])
    assert [launch_range(of_model, 1) for of_model in times] == ["2.0 (1.0 to 3.0)", "5.0 (4.0 to 6.0)"]
    assert launch_range(times[0, :1], 1) == "1.0"
