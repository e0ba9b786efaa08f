"""Dropout as pure functions of `(key, x, rate)`, and a thin Linen wrapper.

Element j of the example at place i of the global batch owns one uniform u(key, i, j), and is dropped when
u < rate. The same u serves every rate, so the masks of two rates are nested, and `rate` may be a traced
array, under `vmap` too. Nothing else enters: not the number of devices, not how the program is run.

Of u's 30 bits the upper 16 are drawn for each element, and the 14 below them once for all elements of a
key: a mask's own rate is one of the two neighbouring multiples of 2^-16, as chance will have it, and over
keys the rate is applied to within 2^-31, at the price of 16 bits an element. The sharing correlates two
elements of a mask by at most 2^-34 / (rate (1 - rate)). Scaling by 1 / (1 - rate) is right to float32's own
rounding.
"""

from collections.abc import Callable, Mapping
from functools import partial
from math import prod
from types import MappingProxyType
from typing import Protocol

import flax.linen as nn
import jax
import jax.numpy as jnp

from cnnjax.keys import example_blocks, shared_word

MASK_SCHEME = 2
"""Version of the map from (seed, layer, step, example) to masks; a checkpoint of another cannot resume."""

Rate = float | jax.Array
Place = int | jax.Array


class DropoutFunction(Protocol):
    """The one signature of the family."""

    def __call__(
        self,
        key: jax.Array,
        x: jax.Array,
        rate: Rate,
        *,
        deterministic: bool = False,
        first_example: Place = 0,
    ) -> jax.Array:
        """See `inverted_dropout` for the arguments, which all members share."""
        ...


def inverted_dropout(
    key: jax.Array,
    x: jax.Array,
    rate: Rate,
    *,
    deterministic: bool = False,
    first_example: Place = 0,
) -> jax.Array:
    """Zero each element with probability `rate` in training and scale the others by 1 / (1 - rate).

    The expectation over keys is `x`, so evaluation needs no change: the "inverted" form that Keras,
    PyTorch and Flax use. Rate 1 gives zeros, with zero gradients.

    Args:
        key: threefry key scalar, for this layer and step alone.
        x: f[n, ...], examples on the first axis.
        rate: probability of a drop in [0, 1]: a float, or a traced scalar.
        deterministic: True at evaluation: `key` is not used, and x is returned as it is.
        first_example: where x's first example is in the whole batch, if `x` is a part of it: under `pmap`
            or `shard_map`, axis_index(axis) * n.

    Returns:
        Array of x's shape and dtype.

    Raises:
        ValueError: a Python `rate` outside [0, 1], or a key that is not threefry.
        TypeError: `key` is not a typed key.
    """
    rate = _checked(rate)
    if deterministic:
        return x
    keep = _keep(key, x.shape, rate, first_example)
    return jnp.where(keep, x * _inverse_keep(rate).astype(x.dtype), jnp.zeros((), x.dtype))


def classic_dropout(
    key: jax.Array,
    x: jax.Array,
    rate: Rate,
    *,
    deterministic: bool = False,
    first_example: Place = 0,
) -> jax.Array:
    """Zero each element with probability `rate` in training; multiply by 1 - rate at evaluation.

    The form of Srivastava et al. (2014), and the one the first tutorial's text describes before it says
    that frameworks do the inverse. Arguments, result and errors as `inverted_dropout`.
    """
    rate = _checked(rate)
    if deterministic:
        return x * (1 - rate).astype(x.dtype)
    return jnp.where(_keep(key, x.shape, rate, first_example), x, jnp.zeros((), x.dtype))


def spatial_dropout(
    key: jax.Array,
    x: jax.Array,
    rate: Rate,
    *,
    deterministic: bool = False,
    first_example: Place = 0,
) -> jax.Array:
    """Inverted dropout of whole channels (Tompson et al. 2015): one decision for all places of a channel.

    x: f[n, ..., channels]. Arguments, result and errors otherwise as `inverted_dropout`.
    """
    rate = _checked(rate)
    if deterministic:
        return x
    places = (1,) * (x.ndim - 2)
    keep = _keep(key, (x.shape[0], *x.shape[-1:]), rate, first_example)
    keep = keep.reshape(x.shape[0], *places, *x.shape[-1:]) if x.ndim > 1 else keep
    return jnp.where(keep, x * _inverse_keep(rate).astype(x.dtype), jnp.zeros((), x.dtype))


def gaussian_dropout(
    key: jax.Array,
    x: jax.Array,
    rate: Rate,
    *,
    deterministic: bool = False,
    first_example: Place = 0,
) -> jax.Array:
    """Multiply by noise of mean 1 and variance rate / (1 - rate) in training (Srivastava et al. 2014, 10).

    The same normal deviates serve every rate. At rate 1, where the variance has no bound, the result is
    zero, as for the rest of the family. Arguments, result and errors as `inverted_dropout`.
    """
    rate = _checked(rate)
    if deterministic:
        return x
    elements = prod(x.shape[1:])
    blocks = example_blocks(key, _places(x.shape, first_example), -(-elements // 2))
    words = jnp.concatenate(blocks)[:elements]
    # 23 bits, centred in their cells: never 0 or 1, where the normal quantile is infinite.
    uniform = ((words >> 9).astype(jnp.float32) + 0.5) * 2.0**-23
    normal = jax.scipy.special.ndtri(uniform).T.reshape(x.shape)
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
        first_example: Place = 0,
    ) -> jax.Array:
        """Apply `DROPOUT[self.kind]` to x: f[n, ...]."""
        if key is None:
            # The evaluation forms never look at their key.
            key = jax.random.key(0) if deterministic else self.make_rng("dropout")
        apply: Callable[..., jax.Array] = DROPOUT[self.kind]
        return apply(key, x, rate, deterministic=deterministic, first_example=first_example)


def _checked(rate: Rate) -> jax.Array:
    if isinstance(rate, int | float) and not 0 <= rate <= 1:
        raise ValueError(f"dropout rate {rate} must lie between 0 and 1")
    return jnp.asarray(rate, jnp.float32)


def _inverse_keep(rate: jax.Array) -> jax.Array:
    """1 / (1 - rate), and 0 at rate 1; the inner `where` keeps the gradient finite there."""
    return jnp.where(rate < 1, 1 / jnp.where(rate < 1, 1 - rate, 1.0), 0.0)


def _places(shape: tuple[int, ...], first_example: Place) -> jax.Array:
    """uint32[n]: where the examples of f[n, ...] are in the whole batch."""
    examples = shape[0] if shape else 1
    return jnp.asarray(first_example, jnp.uint32) + jnp.arange(examples, dtype=jnp.uint32)


@partial(jax.jit, static_argnames="shape", inline=True)
def _keep(key: jax.Array, shape: tuple[int, ...], rate: jax.Array, first_example: Place) -> jax.Array:
    """bool[shape]: u >= rate. The 16 bits of element j are quarter j % 4 of its example's block j // 4."""
    elements = prod(shape[1:])
    blocks = -(-elements // 4)
    x, y = example_blocks(key, _places(shape, first_example), blocks)
    # u >= rate, in 2^-30, as a statement about the upper 16 bits, which one integer for all elements decides.
    low = (shared_word(key) >> 18).astype(jnp.int32)
    least = (jnp.round(rate * 2.0**30).astype(jnp.int32) - low + 2**14 - 1) >> 14
    quarter = jax.lax.broadcasted_iota(jnp.uint8, (4, 1, 1), 0)
    upper = jnp.where(quarter < 2, x, y) >> (16 * (quarter % 2)).astype(jnp.uint32) & jnp.uint32(0xFFFF)
    keep = (upper.astype(jnp.int32) >= least).astype(jnp.uint8) << quarter
    # A reduction, whose result XLA keeps in memory: else both passes would draw every word anew.
    packed = jax.lax.reduce(keep, jnp.uint8(0), jax.lax.bitwise_or, (0,))  # [blocks, n]
    keep = ((packed[:, None] >> quarter[None, :, 0]) & 1).astype(bool).reshape(4 * blocks, packed.shape[1])
    return keep[:elements].T.reshape(shape)
