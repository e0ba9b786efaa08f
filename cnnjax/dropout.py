"""Dropout as pure functions of `(key, x, rate)`, and a thin Linen wrapper.

Element j of the example at place i of the global batch owns one uniform u(key, i, j), and is dropped when
u < rate. The same u serves every rate, so the masks of two rates are nested, and `rate` may be a traced
array, under `vmap` too. Nothing else enters: not the number of devices, not how the program is run.

Of u's 30 bits the upper 16 are drawn for each element, and the 14 below them once for each example. A rate
is therefore applied to within 2^-31, far below what training could notice, at the price of 16 bits; scaling
by 1 / (1 - rate) is right to float32's own rounding. The sharing correlates two elements of one example by at
most 2^-34 / (rate (1 - rate)).
"""

from collections.abc import Callable, Mapping
from functools import partial
from math import prod
from types import MappingProxyType
from typing import Protocol

import flax.linen as nn
import jax
import jax.numpy as jnp

from cnnjax.keys import example_bits

MASK_SCHEME = 1
"""Version of the map from (seed, layer, step, example) to masks; a checkpoint of another cannot resume."""

Rate = float | jax.Array


class DropoutFunction(Protocol):
    """The one signature of the family."""

    def __call__(
        self,
        key: jax.Array,
        x: jax.Array,
        rate: Rate,
        *,
        deterministic: bool = False,
        axis_name: str | None = None,
    ) -> jax.Array:
        """See `inverted_dropout` for the arguments, which all members share."""
        ...


def inverted_dropout(
    key: jax.Array,
    x: jax.Array,
    rate: Rate,
    *,
    deterministic: bool = False,
    axis_name: str | None = None,
) -> jax.Array:
    """Zero each element with probability `rate` in training and scale the others by 1 / (1 - rate).

    The expectation over keys is `x`, so evaluation needs no change: the "inverted" form that Keras,
    PyTorch and Flax use. Rate 1 gives zeros, with zero gradients.

    Args:
        key: threefry key scalar, for this layer and step alone.
        x: f[n, ...], examples on the first axis.
        rate: probability of a drop in [0, 1]: a float, or a traced scalar.
        deterministic: True at evaluation: `key` is not used, and x is returned as it is.
        axis_name: the mapped axis that splits the batch, under `pmap` or `shard_map`; then `x` is this
            device's part, and its examples are numbered by their place in the whole batch.

    Returns:
        Array of x's shape and dtype.

    Raises:
        ValueError: a Python `rate` outside [0, 1], or a key that is not threefry.
        TypeError: `key` is not a typed key.
    """
    rate = _checked(rate)
    if deterministic:
        return x
    keep = _keep(key, x.shape, rate, axis_name)
    return jnp.where(keep, x * _inverse_keep(rate).astype(x.dtype), jnp.zeros((), x.dtype))


def classic_dropout(
    key: jax.Array,
    x: jax.Array,
    rate: Rate,
    *,
    deterministic: bool = False,
    axis_name: str | None = None,
) -> jax.Array:
    """Zero each element with probability `rate` in training; multiply by 1 - rate at evaluation.

    The form of Srivastava et al. (2014), and the one the first tutorial's text describes before it says
    that frameworks do the inverse. Arguments, result and errors as `inverted_dropout`.
    """
    rate = _checked(rate)
    if deterministic:
        return x * (1 - rate).astype(x.dtype)
    return jnp.where(_keep(key, x.shape, rate, axis_name), x, jnp.zeros((), x.dtype))


def spatial_dropout(
    key: jax.Array,
    x: jax.Array,
    rate: Rate,
    *,
    deterministic: bool = False,
    axis_name: str | None = None,
) -> jax.Array:
    """Inverted dropout of whole channels (Tompson et al. 2015): one decision for all places of a channel.

    x: f[n, ..., channels]. Arguments, result and errors otherwise as `inverted_dropout`.
    """
    rate = _checked(rate)
    if deterministic:
        return x
    places = (1,) * (x.ndim - 2)
    keep = _keep(key, (x.shape[0], *x.shape[-1:]), rate, axis_name)
    keep = keep.reshape(x.shape[0], *places, *x.shape[-1:]) if x.ndim > 1 else keep
    return jnp.where(keep, x * _inverse_keep(rate).astype(x.dtype), jnp.zeros((), x.dtype))


def gaussian_dropout(
    key: jax.Array,
    x: jax.Array,
    rate: Rate,
    *,
    deterministic: bool = False,
    axis_name: str | None = None,
) -> jax.Array:
    """Multiply by noise of mean 1 and variance rate / (1 - rate) in training (Srivastava et al. 2014, 10).

    The same normal deviates serve every rate. At rate 1, where the variance has no bound, the result is
    zero, as for the rest of the family. Arguments, result and errors as `inverted_dropout`.
    """
    rate = _checked(rate)
    if deterministic:
        return x
    words = _words(key, x.shape, 1, axis_name)
    # 23 bits, centred in their cells: never 0 or 1, where the normal quantile is infinite.
    uniform = ((words >> 9).astype(jnp.float32) + 0.5) * 2.0**-23
    normal = jax.scipy.special.ndtri(uniform).reshape(x.shape)
    inside = (rate > 0) & (rate < 1)
    safe = jnp.where(inside, rate, 0.5)
    deviation = jnp.where(inside, jnp.sqrt(safe / (1 - safe)), 0.0)
    noise = jnp.where(rate < 1, 1 + deviation * normal, 0.0)
    return x * noise.astype(x.dtype)


DROPOUT: Mapping[str, DropoutFunction] = MappingProxyType(
    {
        "inverted": inverted_dropout,
        "classic": classic_dropout,
        "spatial": spatial_dropout,
        "gaussian": gaussian_dropout,
    }
)
"""The family by name."""


class Dropout(nn.Module):
    """Linen wrapper of the family: `Dropout("inverted")(x, rate)`.

    Takes its key from the `dropout` stream of `apply(..., rngs={"dropout": key})`, as Flax's own layer
    does, unless one is handed over. `rate` is an argument of the call, and may be traced.
    """

    kind: str = "inverted"

    @nn.compact
    def __call__(
        self,
        x: jax.Array,
        rate: Rate,
        key: jax.Array | None = None,
        *,
        deterministic: bool = False,
        axis_name: str | None = None,
    ) -> jax.Array:
        """Apply `DROPOUT[self.kind]` to x: f[n, ...]."""
        if key is None:
            # The evaluation forms never look at their key.
            key = jax.random.key(0) if deterministic else self.make_rng("dropout")
        apply: Callable[..., jax.Array] = DROPOUT[self.kind]
        return apply(key, x, rate, deterministic=deterministic, axis_name=axis_name)


def _checked(rate: Rate) -> jax.Array:
    if isinstance(rate, int | float) and not 0 <= rate <= 1:
        raise ValueError(f"dropout rate {rate} must lie between 0 and 1")
    return jnp.asarray(rate, jnp.float32)


def _inverse_keep(rate: jax.Array) -> jax.Array:
    """1 / (1 - rate), and 0 at rate 1; the inner `where` keeps the gradient finite there."""
    return jnp.where(rate < 1, 1 / jnp.where(rate < 1, 1 - rate, 1.0), 0.0)


def _words(
    key: jax.Array, shape: tuple[int, ...], per_word: int, axis_name: str | None, extra: int = 0
) -> jax.Array:
    """uint32[n, words]: enough words for each example's elements, `per_word` in each, and `extra` more."""
    examples = shape[0] if shape else 1
    elements = prod(shape[1:])
    place = jnp.arange(examples, dtype=jnp.uint32)
    if axis_name is not None:
        place = place + jax.lax.axis_index(axis_name).astype(jnp.uint32) * jnp.uint32(examples)
    return example_bits(key, place, -(-elements // per_word) + extra)


@partial(jax.jit, static_argnames=("shape", "axis_name"), inline=True)
def _keep(key: jax.Array, shape: tuple[int, ...], rate: jax.Array, axis_name: str | None) -> jax.Array:
    """bool[shape]: u >= rate, with 30 bits of u: 16 of the element's own over 14 of its example's.

    Integers throughout: a threshold computed for each example would be computed again for each element, in
    forward and backward pass, once XLA has fused it.
    """
    words = _words(key, shape, 2, axis_name, extra=1).T  # [words, n]
    halves = 16 * jax.lax.broadcasted_iota(jnp.uint32, (1, 2, 1), 1)
    own = ((words[:-1, None] >> halves) & jnp.uint32(0xFFFF)).reshape(-1, words.shape[1])
    uniform = ((own << 14) | (words[-1:] >> 18)).astype(jnp.int32)
    keep = uniform >= jnp.round(rate * 2.0**30).astype(jnp.int32)
    return keep[: prod(shape[1:])].T.reshape(shape)
