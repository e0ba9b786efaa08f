"""Strict settings for every test: promotions raise, warnings are errors, eight CPU devices.

On an accelerator, JAX_PLATFORMS=cuda (or tpu) runs the tests there: in full float32, and without those that
need eight devices.
"""

import gc
import hashlib
import os
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

os.environ.setdefault("JAX_PLATFORMS", "cpu")  # also where there is a GPU, and in child processes

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import settings
from jaxtyping import install_import_hook

CHECKED = (
    *("batches", "data", "deploy", "dropout", "experiment", "kernels", "keys", "metrics", "models"),
    *("optimizers", "plots", "pooling", "population", "runs", "state", "stats", "task", "train"),
)
with install_import_hook([f"cnnjax.{name}" for name in CHECKED], "beartype.beartype"):
    # Their annotations of shapes and dtypes are checked at every call.
    pass

from cnnjax import plots  # noqa: E402
from cnnjax.cli.compiled import machine  # noqa: E402
from cnnjax.experiment import checks, engine  # noqa: E402
from cnnjax.runs import programs as of_runs  # noqa: E402
from cnnjax.runs import run_directory, training  # noqa: E402

jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")

# Compilation makes the first example of a property slow: that is no failure.
settings.register_profile("cnnjax", deadline=None, max_examples=25, derandomize=True)
settings.load_profile("cnnjax")


def pytest_configure(config: pytest.Config) -> None:
    """Keep compiled programs in pytest's cache, for child processes and for the next time: 60 MB."""
    options = {
        "jax_compilation_cache_dir": str(config.cache.mkdir("programs") / machine()),
        "jax_persistent_cache_min_compile_time_secs": 0.0,
    }
    if jax.default_backend() != "cpu":
        # Products have the tolerances of float32, not of the device's faster formats.
        options["jax_default_matmul_precision"] = "highest"
    for name, value in options.items():
        jax.config.update(name, value)
        os.environ[name.upper()] = str(value)


def pytest_collection_finish() -> None:
    """Collect garbage seldom, and pass over what lives until the end: a sixth of the time goes into it."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("devices") and jax.device_count() < 8:
        pytest.skip("needs eight devices")


@pytest.fixture(scope="session", autouse=True)
def compiled_once() -> Iterator[None]:
    """Let runs and experiments of one process that train the same share what takes long to make of them.

    These are their compiled programs, the check that a network goes with the data, and the figures of runs
    with equal numbers.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(of_runs, "build", _runs(of_runs.build))
        patch.setattr(checks, "require_fit", _fits(checks.require_fit))
        patch.setattr(training, "require_fit", _fits(training.require_fit))
        patch.setattr(engine, "make_population", _experiments(engine.make_population))
        patch.setattr(plots, "attempt", _figures(plots.attempt))
        yield


def _same(*data: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return what data sets contain, and the settings under which programs are compiled."""
    arrays = [np.asarray(array) for each in data for array in each[:2]]
    sums = (hashlib.sha256(array.tobytes()).digest() for array in arrays)
    return *sums, *(array.shape for array in arrays), *map(str, sorted(jax.config.values.items(), key=str))


def _runs(build: Callable[..., of_runs.Program]) -> Callable[..., of_runs.Program]:
    made: dict[Any, of_runs.Program] = {}

    def once(config: Any, train: Any, val: Any, *more: Any) -> of_runs.Program:
        if more and more[0] and more[0].axis_name:
            return build(config, train, val, *more)
        began = time.perf_counter()
        # An epoch is the same in a longer run, unless a schedule ends with it.
        free = {"stop_early": None} | ({"epochs": None} if config.schedule == "constant" else {})
        name = str(asdict(config) | free), more[1:], train.class_names, *_same(train, val)
        program = made[name] = made.get(name) or build(config, train, val, *more)
        start = jax.tree.map(jnp.copy, program.start)  # it is donated
        seconds = time.perf_counter() - began
        return replace(program, start=start, compile_seconds=seconds)

    return once


def _fits(require: Callable[..., None]) -> Callable[..., None]:
    fitting: set[Any] = set()

    def once(task: Any, shape: Any, classes: int, hparams: Any, subject: str) -> None:
        # This project's optimizers are made anew for each run, and go with every network.
        own = getattr(task.optimizer, "__module__", "").startswith("cnnjax.optimizers")
        parts = task._replace(optimizer=None if own else task.optimizer)
        name = parts, shape, classes, jax.tree.structure(hparams), *_same()
        if name not in fitting:
            require(task, shape, classes, hparams, subject)
            fitting.add(name)

    return once


def _experiments(make: Callable[..., Any]) -> Callable[..., Any]:
    made: dict[Any, Any] = {}

    def once(task: Any, train: Any, val: Any, **options: Any) -> Any:
        name = task, *sorted(options.items()), *_same(train, val)
        made[name] = made.get(name) or make(task, train, val, **options)
        return made[name]

    return once


def _figures(attempt: Callable[..., bytes | None]) -> Callable[..., bytes | None]:
    made: dict[Any, bytes] = {}

    def once(name: str, draw: Any, announce: Callable[[str], None] = print) -> bytes | None:
        if name not in run_directory.FIGURES or not isinstance(draw, partial):
            return attempt(name, draw, announce)
        shown = name, draw.func, re.sub("'seconds': [^,}]*", "", f"{draw.args} {draw.keywords}")
        png = made.get(shown) or attempt(name, draw, announce)
        return made.setdefault(shown, png) if png else None

    return once


@pytest.fixture
def key() -> jax.Array:
    return jax.random.key(0)


@pytest.fixture(scope="session")
def programs() -> Path:
    """Where compiled programs are kept."""
    return Path(jax.config.values["jax_compilation_cache_dir"])
