"""The dropout family: laws of values, gradients and distributions.

Statistical bounds are 5 standard deviations of the statistic's own distribution, at fixed seeds.
"""

from functools import partial
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cnnjax import dropout
from cnnjax.dropout import (
    DROPOUT,
    DropoutFunction,
    classic_dropout,
    gaussian_dropout,
    gaussian_noise,
    inverted_dropout,
    spatial_dropout,
)
from cnnjax.kernels import dropout as fast_dropout
from cnnjax.kernels.dropout import FAST
from cnnjax.kernels.layers import Dropout
from cnnjax.keys import UNIT, example_words, mask_key, uniform_bits

RATE = st.floats(0, 1, width=32)
SHAPE = st.sampled_from([(), (5,), (3, 7), (2, 3, 3, 4)])
RATES = [0.0, 0.001, 0.1, 0.25, 0.3, 0.5, 0.75, 0.9, 1.0]


@partial(jax.jit, static_argnums=(0, 1))
def dropped(
    function: DropoutFunction, shape: tuple[int, ...], key: jax.Array, rate: jax.Array, first: jax.Array
) -> jax.Array:
    x = 1 + jnp.arange(np.prod(shape), dtype=jnp.float32).reshape(shape)
    return function(key, x, rate, first_example=first)


@partial(jax.jit, static_argnums=0)
def jitted(function: DropoutFunction, key: jax.Array, x: Any, rate: jax.Array | float) -> jax.Array:
    """One program instead of one for each operation."""
    return function(key, x, rate)


@pytest.mark.parametrize("definition", DROPOUT.values(), ids=DROPOUT)
@given(seed=st.integers(0, 2**32 - 1), rate=RATE, shape=SHAPE, first_example=st.integers(0, 2**32 - 5))
def test_the_fast_form_equals_the_definition(
    definition: DropoutFunction, seed: int, rate: float, shape: tuple[int, ...], first_example: int
) -> None:
    """To the bit, but for Gaussian noise, whose logarithm XLA rounds as it is fused."""
    given_ = shape, jax.random.key(seed), jnp.float32(rate), jnp.uint32(first_example)
    slow, fast = (dropped(f, *given_) for f in (definition, FAST[definition]))
    tolerance = 1e-5 if definition is gaussian_dropout else 0.0
    np.testing.assert_allclose(fast, slow, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("seed", range(4))
def test_an_element_whose_number_is_the_rate_itself_is_kept(seed: int) -> None:
    """U >= rate to the last bit: the rate is an element's own number, which float32 holds below 2^24."""
    key, shape = jax.random.key(seed), (4, 1000)
    numbers = uniform_bits(key, shape)
    exact = jnp.min(numbers)
    assert 0 < int(exact) < 2**24
    for shift, kept in ((-1, 4000), (0, 4000), (1, 4000 - int(jnp.sum(numbers == exact)))):
        rate = (exact + shift).astype(jnp.float32) / UNIT
        masks = [mask(key, shape, rate) for mask in (dropout.keep_mask, fast_dropout.keep_mask)]
        assert [int(jnp.sum(mask)) for mask in masks] == [kept, kept], shift


@given(seed=st.integers(0, 2**32 - 1), rate=RATE, shape=SHAPE)
def test_every_inverted_output_is_zero_or_scaled(seed: int, rate: float, shape: tuple[int, ...]) -> None:
    x = 1 + np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
    y = np.asarray(jitted(inverted_dropout, jax.random.key(seed), x, rate))
    chex.assert_equal_shape([x, y])
    scaled = x * np.float32(1 / (1 - np.float32(rate)) if rate < 1 else 0)
    np.testing.assert_allclose(y, np.where(y == 0, 0, scaled), rtol=1e-6)


@given(seed=st.integers(0, 2**32 - 1), rate=RATE)
def test_inverted_is_classic_over_the_keep_probability(seed: int, rate: float) -> None:
    key, x = jax.random.key(seed), np.arange(12, dtype=np.float32).reshape(3, 4)
    inverted, classic = (jitted(function, key, x, rate) for function in (inverted_dropout, classic_dropout))
    chex.assert_trees_all_close(
        np.asarray(inverted) * np.float32(1 - rate), np.asarray(classic) if rate < 1 else 0 * x
    )


@pytest.mark.parametrize("kind", DROPOUT)
def test_deterministic_is_the_expectation(kind: str) -> None:
    key, x = jax.random.key(0), jnp.array([[2.0, -3.0]])
    expected = x * 0.7 if kind == "classic" else x
    chex.assert_trees_all_close(DROPOUT[kind](key, x, 0.3, deterministic=True), expected)


@pytest.mark.parametrize("kind", DROPOUT)
def test_rate_zero_keeps_everything(kind: str) -> None:
    x = jax.random.normal(jax.random.key(1), (2, 3, 3, 4))
    chex.assert_trees_all_equal(jitted(DROPOUT[kind], jax.random.key(0), x, 0.0), x)


@pytest.mark.parametrize("kind", DROPOUT)
def test_gradients_are_finite_everywhere(kind: str) -> None:
    x = jax.random.normal(jax.random.key(1), (4, 5, 5, 3))

    @jax.jit
    @partial(jax.value_and_grad, argnums=(0, 1))
    def loss(x: jax.Array, rate: jax.Array) -> jax.Array:
        return jnp.sum(DROPOUT[kind](jax.random.key(0), x, rate) ** 2)

    for rate in RATES:
        value, gradients = loss(x, jnp.float32(rate))
        chex.assert_tree_all_finite((value, gradients))
        if rate == 1.0:
            chex.assert_trees_all_equal((value, gradients[0]), (jnp.float32(0), jnp.zeros_like(x)))


@pytest.mark.parametrize("kind", DROPOUT)
def test_a_traced_rate_under_vmap_equals_a_python_float(kind: str) -> None:
    key, x = jax.random.key(7), jnp.ones((2, 3, 3, 4))
    rates = jnp.array(RATES)
    together = jax.jit(jax.vmap(lambda rate: DROPOUT[kind](key, x, rate)))(rates)
    for row, rate in zip(together, RATES, strict=True):
        chex.assert_trees_all_close(row, jitted(DROPOUT[kind], key, x, rate), rtol=1e-6, atol=1e-5)


@given(seed=st.integers(0, 1000), low=RATE, high=RATE)
def test_masks_of_two_rates_are_nested(seed: int, low: float, high: float) -> None:
    low, high = min(low, high), max(low, high)
    key, x = jax.random.key(seed), jnp.ones((4, 50))
    kept_low, kept_high = (np.asarray(jitted(classic_dropout, key, x, rate)) > 0 for rate in (low, high))
    assert np.all(kept_low | ~kept_high)


@pytest.mark.parametrize("rate", RATES)
def test_keep_frequency_is_binomial(rate: float) -> None:
    x = jnp.ones((2000, 500))
    kept = np.mean(np.asarray(jitted(inverted_dropout, jax.random.key(2), x, rate)) != 0)
    assert abs(kept - (1 - rate)) <= 5 * np.sqrt(rate * (1 - rate) / x.size)


def test_small_rates_are_applied_exactly() -> None:
    """A rate below the 16-bit grid, 0.3 / 65536, still drops with its own probability."""
    rate, keys, x = 0.3 / 65536, jax.random.split(jax.random.key(4), 400), jnp.ones((100, 500))
    dropped = int(jax.lax.map(lambda key: jnp.sum(classic_dropout(key, x, rate) == 0), keys).sum())
    # The elements of a key share their low bits: the count of a key has variance n p + (n p')^2 ..., bounded
    # by n p (1 + n 2^-16) in all.
    mean = rate * x.size * len(keys)
    assert abs(dropped - mean) < 5 * np.sqrt(mean * (1 + x.size / 65536))


@pytest.mark.parametrize("kind", DROPOUT)
@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
def test_moments(kind: str, rate: float) -> None:
    """E[y] = x (classic: (1 - rate) x), Var[y] = x^2 rate / (1 - rate) (classic: rate (1 - rate) x^2)."""
    n, x = 200_000, 3.0
    y = np.asarray(jitted(DROPOUT[kind], jax.random.key(8), jnp.full((n, 1), x), rate), np.float64) / x
    classic = kind == "classic"
    mean = 1 - rate if classic else 1.0
    variance = rate * (1 - rate) if classic else rate / (1 - rate)
    assert abs(y.mean() - mean) < 5 * np.sqrt(variance / n)
    keep = 1 - rate
    fourth = (
        3 * variance**2
        if kind == "gaussian"
        else (keep * rate**4 + rate * keep**4) / (1 if classic else keep**4)
    )
    # The second term is the square of the mean's own error, all that is left at rate 1/2.
    bound = 5 * np.sqrt((fourth - variance**2) / n) + 25 * variance / n
    assert abs(y.var() - variance) < bound


def test_gaussian_noise_is_normal() -> None:
    """Kolmogorov-Smirnov distance below its 1e-6 quantile, sqrt(-ln(5e-7) / 2 n)."""
    from scipy import stats

    n = 100_000
    noise = np.asarray(jitted(gaussian_dropout, jax.random.key(5), jnp.ones((n // 100, 100)), 0.5)).ravel()
    distance = stats.kstest(noise - 1, "norm").statistic
    assert distance < np.sqrt(-np.log(5e-7) / (2 * n))


def test_gaussian_noise_is_the_quantile_of_the_words_of_an_example() -> None:
    """The first words of its pairs come first, then the second ones."""
    from scipy import stats

    key, elements, pairs = jax.random.key(2), 5, 3
    words = jax.device_get(example_words(key, jnp.arange(7, 10, dtype=jnp.uint32), pairs))
    expected = stats.norm.ppf(((np.concatenate(words)[:elements].T >> 9) + 0.5) / 2**23)
    noise = jax.jit(lambda key: gaussian_noise(key, (3, elements), jnp.float32(0.5), jnp.uint32(7)))(key)
    np.testing.assert_allclose(noise - 1, expected, rtol=1e-4, atol=1e-5)


def test_gaussian_noise_of_the_extreme_bits_is_finite_and_symmetric() -> None:
    def words(key: Any, positions: Any, count: int) -> tuple[jax.Array, jax.Array]:
        ends = jnp.array([[0], [2**32 - 1]], jnp.uint32)
        return ends, ends

    noise = jax.jit(lambda key: gaussian_noise(key, (1, 4), jnp.float32(0.5), 0, words))
    low, high, *_ = np.asarray(noise(jax.random.key(0)))[0] - 1
    assert -6 < low < -5 and high == pytest.approx(-low, rel=1e-3), "the quantile of 2^-24 is -5.3"


@pytest.mark.parametrize("kind", ["inverted", "spatial", "gaussian"])
def test_neighbours_steps_layers_and_examples_are_uncorrelated(kind: str) -> None:
    """Sample correlations of n independent pairs have standard deviation 1 / sqrt(n)."""
    root, x = jax.random.key(0), jnp.ones((400, 100))

    def noise(step: int, layer: int) -> np.ndarray:
        return np.asarray(jitted(DROPOUT[kind], mask_key(root, layer, step), x, 0.4))

    first = noise(0, 0)
    pairs = {
        **{f"elements {lag} apart": (first[:, :-lag], first[:, lag:]) for lag in range(1, 100)},
        "examples": (first[:-1], first[1:]),
        "steps": (first, noise(1, 0)),
        "layers": (first, noise(0, 1)),
        "step and layer exchanged": (noise(0, 1), noise(1, 0)),
    }
    for name, (a, b) in pairs.items():
        correlation = np.corrcoef(a.ravel(), b.ravel())[0, 1]
        assert abs(correlation) < 5 / np.sqrt(a.size), name


def test_spatial_masks_are_constant_over_height_and_width() -> None:
    y = np.asarray(jitted(spatial_dropout, jax.random.key(0), jnp.ones((50, 4, 6, 8)), 0.5))
    chex.assert_trees_all_equal(y, np.broadcast_to(y[:, :1, :1], y.shape))
    assert 0 < np.sum(y[:, 0, 0] == 0) < 400


@pytest.mark.parametrize("shape", [(), (20, 10)])
def test_spatial_dropout_of_vectors_drops_single_elements(shape: tuple[int, ...]) -> None:
    """They have no places: every element is a channel."""
    x = jnp.ones(shape)
    for spatial in (spatial_dropout, FAST[spatial_dropout]):
        y = jitted(spatial, jax.random.key(0), x, 0.5)
        chex.assert_trees_all_equal(y, jitted(inverted_dropout, jax.random.key(0), x, 0.5))


def test_no_scaling_is_noticed() -> None:
    """The law E[y] = x fails for masks that are not scaled up: the test above has teeth."""
    unscaled = np.asarray(jitted(classic_dropout, jax.random.key(8), jnp.ones((200_000, 1)), 0.1))
    assert abs(unscaled.mean() - 1) > 5 * np.sqrt(0.1 / 0.9 / 200_000)


@pytest.mark.parametrize("rate", [-0.1, 1.5, float("nan")])
def test_a_rate_outside_the_unit_interval_is_refused(rate: float) -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        inverted_dropout(jax.random.key(0), jnp.ones(3), rate)


@pytest.mark.parametrize("kind", DROPOUT)
def test_rbg_keys_are_refused(kind: str) -> None:
    with pytest.raises(ValueError, match="rbg keys are refused"):
        DROPOUT[kind](jax.random.key(0, impl="rbg"), jnp.ones((2, 2)), 0.5)


@pytest.mark.parametrize("kind", DROPOUT)
def test_the_linen_wrapper_is_the_function(kind: str) -> None:
    key, x, function = jax.random.key(3), jnp.ones((2, 3, 3, 4)), DROPOUT[kind]
    layer = Dropout(kind)
    chex.assert_trees_all_equal(jax.jit(layer.apply)({}, x, 0.5, key), jitted(function, key, x, 0.5))
    random = jax.jit(lambda key: layer.apply({}, x, 0.5, rngs={"dropout": key}))
    streamed = [random(jax.random.key(seed)) for seed in (1, 1, 2)]
    chex.assert_trees_all_equal(streamed[0], streamed[1])
    with pytest.raises(AssertionError):
        chex.assert_trees_all_equal(streamed[0], streamed[2])
    evaluated = layer.apply({}, x, 0.5, deterministic=True)
    chex.assert_trees_all_equal(evaluated, function(key, x, 0.5, deterministic=True))


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_the_dtype_stays(dtype: jnp.dtype) -> None:
    for function in DROPOUT.values():
        for deterministic in (False, True):
            y = jax.eval_shape(
                partial(function, rate=0.5, deterministic=deterministic),
                jax.random.key(0),
                jnp.ones((2, 4), dtype),
            )
            assert y.dtype == dtype
