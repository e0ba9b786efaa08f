"""Dropout as pure functions `f(key, x, rate)`.

Each element of each example owns one uniform number u, and is kept when u >= rate. The same u serves every
rate, so the masks of two rates are nested, and `rate` may be a traced array, under `vmap` too.

A kind of dropout is a noise, a function of (key, shape, rate) that multiplies x in training. Networks use the
fast forms of `cnnjax.kernels.dropout`, which equal these.
"""

from collections.abc import Callable, Mapping
from math import prod
from types import MappingProxyType
from typing import Any, Protocol

import jax
import jax.numpy as jnp

from cnnjax.keys import UNIT, example_words, positions, uniform_bits
from cnnjax.shapes import Array, Bool, Float32, Index, Key, Scalar

MASK_SCHEME = 2
"""Version of the map from (seed, layer, step, example) to masks; a checkpoint of another cannot resume."""

Shape = tuple[int, ...]
Noise = Callable[..., Float32[Array, "..."]]
"""(key, shape, rate, first_example) -> the factor of each element, f32[shape]."""


class DropoutFunction(Protocol):
    """The one signature of the family: `f(key, x, rate)`."""

    __name__: str

    def __call__(
        self,
        key: jax.Array,
        x: jax.Array,
        rate: Scalar,
        *,
        deterministic: bool = False,
        first_example: Index = 0,
    ) -> jax.Array:
        """Apply dropout to x, or return what stands for it at evaluation.

        Args:
            key: threefry key, for this layer and step alone.
            x: f[n, ...], examples on the first axis.
            rate: probability of a drop in [0, 1]: a float, or a traced scalar.
            deterministic: True at evaluation, where `key` is not used.
            first_example: position of the first example in the whole batch, where `x` is a part of it: under
                `pmap` or `shard_map`, axis_index(axis) * n.

        Returns:
            Array of x's shape and dtype.

        Raises:
            ValueError: a Python `rate` outside [0, 1], or a key that is not threefry.
            TypeError: `key` is not a typed key.
        """
        ...


def as_dropout(noise: Noise, at_evaluation: Callable[[Any], Any] | None = None) -> DropoutFunction:
    """Make a dropout function of a noise; at evaluation, x times `at_evaluation(rate)` if that is given."""

    def dropout(
        key: jax.Array,
        x: jax.Array,
        rate: Scalar,
        *,
        deterministic: bool = False,
        first_example: Index = 0,
    ) -> jax.Array:
        if isinstance(rate, int | float) and not 0 <= rate <= 1:
            raise ValueError(f"dropout rate {rate} must lie between 0 and 1")
        rate = jnp.asarray(rate, jnp.float32)
        if not deterministic:
            return x * noise(key, x.shape, rate, first_example).astype(x.dtype)
        return x if at_evaluation is None else x * at_evaluation(rate).astype(x.dtype)

    dropout.__name__ = getattr(noise, "__name__", "noise").replace("noise", "dropout")
    dropout.__doc__ = f"{noise.__doc__}\n\nArguments, result and errors: see `DropoutFunction`."
    return dropout


def keep_mask(
    key: Key[Array, ""], shape: Shape, rate: Float32[Array, ""], first_example: Index = 0
) -> Bool[Array, "..."]:
    """Decide which elements of f[n, ...] are kept, each with probability 1 - rate: u >= rate."""
    return uniform_bits(key, shape, first_example) >= jnp.round(rate * UNIT).astype(jnp.int32)


def inverted_noise(
    key: Key[Array, ""],
    shape: Shape,
    rate: Float32[Array, ""],
    first_example: Index = 0,
    keep: Callable[..., jax.Array] = keep_mask,
) -> Float32[Array, "..."]:
    """Zero each element with probability `rate` in training and scale the others by 1 / (1 - rate).

    The expectation over keys is `x`, so evaluation needs no change: the "inverted" form that Keras, PyTorch
    and Flax use. Rate 1 gives zeros, with zero gradients.
    """
    # The inner `where` keeps the gradient finite at rate 1.
    scale = jnp.where(rate < 1, 1 / jnp.where(rate < 1, 1 - rate, 1.0), 0.0)
    return jnp.where(keep(key, shape, rate, first_example), scale, 0.0)


def classic_noise(
    key: Key[Array, ""],
    shape: Shape,
    rate: Float32[Array, ""],
    first_example: Index = 0,
    keep: Callable[..., jax.Array] = keep_mask,
) -> Float32[Array, "..."]:
    """Zero each element with probability `rate` in training; multiply by 1 - rate at evaluation.

    The form of Srivastava et al. (2014), and the one that the first tutorial's text describes before it says
    that frameworks do the inverse.
    """
    return jnp.where(keep(key, shape, rate, first_example), 1.0, 0.0)


def spatial_noise(
    key: Key[Array, ""],
    shape: Shape,
    rate: Float32[Array, ""],
    first_example: Index = 0,
    keep: Callable[..., jax.Array] = keep_mask,
) -> Float32[Array, "..."]:
    """Inverted dropout of whole channels (Tompson et al. 2015): one decision for all places of a channel.

    x is f[n, ..., channels].
    """
    if len(shape) < 3:
        return inverted_noise(key, shape, rate, first_example, keep)
    noise = inverted_noise(key, (shape[0], shape[-1]), rate, first_example, keep)
    return jnp.broadcast_to(noise.reshape(shape[0], *(1,) * (len(shape) - 2), shape[-1]), shape)


def gaussian_noise(
    key: Key[Array, ""],
    shape: Shape,
    rate: Float32[Array, ""],
    first_example: Index = 0,
    words: Callable[..., tuple[jax.Array, jax.Array]] = example_words,
) -> Float32[Array, "..."]:
    """Multiply by noise of mean 1 and variance rate / (1 - rate) in training (Srivastava et al. 2014, 10).

    The same normal deviates serve every rate. At rate 1, where the variance has no bound, the result is zero,
    as for the rest of the family.
    """
    elements = prod(shape[1:])
    pairs = words(key, positions(shape, first_example), -(-elements // 2))
    # 23 bits, centred in their cells: never 0 or 1, where the normal quantile is infinite.
    uniform = ((jnp.concatenate(pairs)[:elements] >> 9).astype(jnp.float32) + 0.5) * 2.0**-23
    normal = jax.scipy.special.ndtri(uniform).T.reshape(shape)
    inside = (rate > 0) & (rate < 1)
    safe = jnp.where(inside, rate, 0.5)
    deviation = jnp.where(inside, jnp.sqrt(safe / (1 - safe)), 0.0)
    return jnp.where(rate < 1, 1 + deviation * normal, 0.0)


inverted_dropout = as_dropout(inverted_noise)
classic_dropout = as_dropout(classic_noise, at_evaluation=lambda rate: 1 - rate)
spatial_dropout = as_dropout(spatial_noise)
gaussian_dropout = as_dropout(gaussian_noise)

DROPOUT: Mapping[str, DropoutFunction] = MappingProxyType(
    {
        "inverted": inverted_dropout,
        "classic": classic_dropout,
        "spatial": spatial_dropout,
        "gaussian": gaussian_dropout,
    }
)
"""The family by name."""
