"""Pooling equals NumPy and Flax in value and Flax in gradient, whatever the size and the ties."""

import itertools
from functools import partial
from typing import Any, get_args

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cnnjax import pooling
from cnnjax.kernels.pooling import REDUCTIONS, average, maximum, median
from cnnjax.pooling import POOLING, PoolingName, Reduction

SIZES = [
    ((2, 4, 6, 3), 2),
    ((3, 7, 5, 1), 2),
    ((1, 9, 8, 2), 3),
    ((2, 3, 4, 2), 1),
    ((1, 3, 9, 1), 4),
]


def images(seed: int, shape: tuple[int, ...], levels: int) -> jax.Array:
    """With few levels most windows hold ties."""
    return jnp.asarray(np.random.default_rng(seed).integers(0, levels, shape), jnp.float32)


def tiles(x: jax.Array, window: int) -> np.ndarray:
    """The values of each window, last, in row-major order."""
    n, height, width, channels = x.shape
    out = np.zeros((n, height // window, width // window, channels, window**2), np.float32)
    for i, j in np.ndindex(out.shape[1:3]):
        tile = np.asarray(x)[:, i * window : (i + 1) * window, j * window : (j + 1) * window]
        out[:, i, j] = tile.transpose(0, 3, 1, 2).reshape(n, channels, -1)
    return out


def test_every_name_has_a_function() -> None:
    assert set(POOLING) == set(get_args(PoolingName))


@pytest.mark.parametrize("name", POOLING)
def test_a_window_has_two_rows_and_columns_if_it_is_not_said(name: PoolingName) -> None:
    x = jnp.ones((1, 6, 6, 1))
    chex.assert_shape(POOLING[name](x), x.shape if name == "none" else (1, 3, 3, 1))


@pytest.mark.parametrize(("shape", "window"), SIZES)
@pytest.mark.parametrize("levels", [2, 1000])
def test_values_equal_numpy(shape: tuple[int, ...], window: int, levels: int) -> None:
    x = images(0, shape, levels)
    values = tiles(x, window)
    expected: dict[PoolingName, np.ndarray] = {
        "max": values.max(-1),
        "average": values.mean(-1),
        "median": np.median(values, axis=-1),
        "strided": values[..., 0],
        "none": np.asarray(x),
    }
    ours = jax.jit(lambda x: {name: POOLING[name](x, window) for name in expected})(x)
    chex.assert_trees_all_close(ours, expected, rtol=1e-6)


@pytest.mark.parametrize("name", ["max", "average"])
@pytest.mark.parametrize(("shape", "window"), SIZES[:3])
def test_gradient_equals_flax(name: PoolingName, shape: tuple[int, ...], window: int) -> None:
    def flax_pool(x: jax.Array) -> jax.Array:
        pool = {"max": nn.max_pool, "average": nn.avg_pool}[name]
        with jax.numpy_dtype_promotion("standard"):  # nn.avg_pool divides by an integer
            return pool(x, (window, window), (window, window))

    @partial(jax.jit, static_argnums=0)
    def value_and_gradient(pool, x: jax.Array) -> tuple[jax.Array, tuple[jax.Array]]:
        out, back = jax.vjp(pool, x)
        return out, back(jax.random.normal(jax.random.key(0), out.shape))

    our_pool = partial(POOLING[name], window=window)
    for seed in range(3):
        x = images(seed, shape, levels=3)
        chex.assert_trees_all_close(*(value_and_gradient(f, x) for f in (our_pool, flax_pool)), rtol=1e-6)


COUNTS = st.sampled_from([1, 2, 5, 9])
"""Few, because each is compiled."""


@partial(jax.jit, static_argnums=0)
def value_and_gradient(reduction: Reduction, values: jax.Array) -> tuple[jax.Array, jax.Array]:
    value, back = jax.vjp(reduction, values)
    return value, back(jnp.arange(1.0, 1 + values.shape[1]))[0]


@pytest.mark.parametrize("name", REDUCTIONS)
@given(seed=st.integers(0, 999), count=COUNTS, ties=st.booleans(), nan=st.booleans())
def test_the_fast_reduction_equals_the_definition(
    name: PoolingName, seed: int, count: int, ties: bool, nan: bool
) -> None:
    """In value always; in gradient too, but that of a median of ties, which the fast form shares out."""
    rng = np.random.default_rng(seed)
    values = rng.integers(0, 3, (count, 4)) if ties else rng.permutation(4 * count).reshape(count, 4)
    values = values.astype(np.float32)
    values[0, 0] = np.nan if nan else values[0, 0]
    results = [value_and_gradient(of[name], values) for of in (REDUCTIONS, pooling.REDUCTIONS)]
    chex.assert_trees_all_close(results[0][0], results[1][0], rtol=1e-6)
    if name != "median" or not (ties or nan):
        chex.assert_trees_all_close(results[0][1], results[1][1], rtol=1e-6)


BY_SQUARE = [partial(f, key=jnp.square) for f in (maximum, pooling.maximum)]


@given(seed=st.integers(0, 99))
def test_maximum_by_key_equals_the_definition(seed: int) -> None:
    values = np.random.default_rng(seed).integers(-3, 4, (5, 6)).astype(np.float32)
    chex.assert_trees_all_equal(*(value_and_gradient(f, values) for f in BY_SQUARE))


@given(st.integers(0, 99), COUNTS)
def test_median_gradient_goes_to_the_middle(seed: int, count: int) -> None:
    values = np.random.default_rng(seed).permutation(count).astype(np.float32)[:, None]
    gradient = value_and_gradient(median, values)[1][:, 0]
    middle = {float((count - 1) // 2), float(count // 2)}
    expected = [1 / len(middle) if float(v) in middle else 0.0 for v in values[:, 0]]
    np.testing.assert_allclose(gradient, expected)


@given(COUNTS.flatmap(lambda count: st.lists(st.integers(0, 2), min_size=count, max_size=count)))
def test_median_gradient_of_ties_sums_to_one_among_them(values: list[int]) -> None:
    (value,), gradient = value_and_gradient(median, np.array(values, np.float32)[:, None])
    middle = np.sort(values)[[(len(values) - 1) // 2, len(values) // 2]]
    assert value == middle.mean()
    np.testing.assert_allclose(gradient.sum(), 1, rtol=1e-6)
    assert not np.any(np.asarray(gradient)[~np.isin(values, middle)])


def test_first_maximum_takes_the_whole_gradient() -> None:
    gradient = jax.grad(lambda x: POOLING["max"](x).sum())(jnp.ones((1, 2, 2, 1)))
    chex.assert_trees_all_equal(gradient[0, :, :, 0], jnp.asarray([[1.0, 0.0], [0.0, 0.0]]))


@pytest.mark.parametrize("place", range(4))
@pytest.mark.parametrize("reduction", [maximum, average, median])
def test_nan_is_never_hidden(reduction, place: int) -> None:
    values = jnp.arange(4.0).at[place].set(jnp.nan)[:, None]
    assert jnp.isnan(reduction(values)).all()


@pytest.mark.parametrize("options", [{}, {"key": jnp.square}], ids=["value", "key"])
@pytest.mark.parametrize("place", range(4))
def test_a_nan_takes_the_whole_gradient_on_a_cpu_the_first(place: int, options: dict[str, Any]) -> None:
    for function, end in itertools.product((maximum, pooling.maximum), (place + 1, 4)):
        values = jnp.arange(4.0).at[place:end].set(jnp.nan)[:, None]
        best, back = jax.vjp(partial(function, **options), values)
        assert jnp.isnan(best).all()
        gradient = back(jnp.ones(1))[0][:, 0]
        taker = place if jax.default_backend() == "cpu" else int(gradient.argmax())
        assert jnp.isnan(values[taker, 0])
        chex.assert_trees_all_equal(gradient, jnp.eye(4)[taker])


def test_of_what_is_nowhere_finite_the_first_wins() -> None:
    for value in (-jnp.inf, jnp.nan):
        best, gradient = jax.value_and_grad(lambda x: maximum(x)[0])(jnp.full((4, 1), value))
        chex.assert_trees_all_equal((best, gradient[:, 0]), (jnp.float32(value), jnp.eye(4)[0]))


@pytest.mark.parametrize("count", [255, 256])
def test_windows_may_hold_more_than_a_byte_counts(count: int) -> None:
    values = (np.arange(count) >= count - 2).astype(np.float32)[:, None]
    best, gradient = jax.jit(jax.value_and_grad(lambda x: maximum(x)[0]))(values)
    expected = np.eye(count, dtype=np.float32)[count - 2]
    chex.assert_trees_all_equal((best, np.asarray(gradient)[:, 0]), (np.float32(1), expected))


@given(st.integers(0, 99))
def test_maximum_by_key_is_python_max(seed: int) -> None:
    values = np.random.default_rng(seed).integers(-3, 4, 5)
    winner = maximum(jnp.asarray(values, jnp.float32)[:, None], key=jnp.square)
    assert winner[0] == max(values.tolist(), key=lambda v: v * v)


@pytest.mark.parametrize("name", POOLING)
def test_traces_under_jit_vmap_and_grad(name: PoolingName) -> None:
    x = jax.random.normal(jax.random.key(0), (3, 2, 5, 6, 2))

    def total(x: jax.Array) -> jax.Array:
        return jnp.square(POOLING[name](x)).sum()

    mapped, gradient = jax.jit(jax.vmap(jax.grad(total)))(x), jax.jit(jax.grad(total))
    chex.assert_trees_all_close(mapped, jnp.stack([gradient(one) for one in x]), rtol=1e-6)
