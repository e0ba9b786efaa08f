"""Strict settings for every test: promotions raise, warnings are errors, eight CPU devices."""

import jax
import pytest
from hypothesis import settings

jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")

# Compilation makes the first example of a property slow: that is no failure.
settings.register_profile("cnnjax", deadline=None, max_examples=25, derandomize=True)
settings.load_profile("cnnjax")


@pytest.fixture
def key() -> jax.Array:
    return jax.random.key(0)
