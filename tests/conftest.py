"""Strict settings for every test: promotions raise, warnings are errors, eight CPU devices."""

from collections.abc import Iterator
from pathlib import Path

import jax
import pytest
from hypothesis import settings
from jaxtyping import install_import_hook

CHECKED = (
    *("batches", "dropout", "experiment", "kernels", "keys", "metrics", "models", "plots", "pooling"),
    *("population", "state", "stats", "task", "train", "data.augmentation"),
)
with install_import_hook([f"cnnjax.{name}" for name in CHECKED], "beartype.beartype"):
    # Their annotations of shapes and dtypes are checked at every call.
    pass

from runs import compiled_once  # noqa: E402 (after the hook)

jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")

# Compilation makes the first example of a property slow: that is no failure.
settings.register_profile("cnnjax", deadline=None, max_examples=25, derandomize=True)
settings.load_profile("cnnjax")


@pytest.fixture
def key() -> jax.Array:
    return jax.random.key(0)


@pytest.fixture(scope="session")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where whole runs leave their compiled programs for the next one, and for new processes."""
    return tmp_path_factory.mktemp("programs")


@pytest.fixture(scope="module")
def shared_programs(programs: Path) -> Iterator[None]:
    """For a module of whole runs, through `pytestmark`."""
    with compiled_once(programs):
        yield
