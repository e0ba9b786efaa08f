"""Strict settings for every test: promotions raise, warnings are errors, eight CPU devices."""

import os
from pathlib import Path

import jax
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

from cnnjax.cli.compiled import machine  # noqa: E402

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
    for name, value in options.items():
        jax.config.update(name, value)
        os.environ[name.upper()] = str(value)


@pytest.fixture
def key() -> jax.Array:
    return jax.random.key(0)


@pytest.fixture(scope="session")
def programs() -> Path:
    """Where compiled programs are kept."""
    return Path(jax.config.values["jax_compilation_cache_dir"])
