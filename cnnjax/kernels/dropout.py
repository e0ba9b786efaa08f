"""The dropout family fast on the CPU: equal to the definitions of `cnnjax.dropout`, masks to the bit."""

from collections.abc import Mapping
from functools import partial
from math import prod
from types import MappingProxyType

import jax
import jax.numpy as jnp

from cnnjax import dropout
from cnnjax.dropout import DropoutFunction, Shape
from cnnjax.kernels.threefry import example_words, shared_word
from cnnjax.keys import UNIT, positions
from cnnjax.shapes import Array, Bool, Float32, Index, Key


@partial(jax.jit, static_argnames="shape", inline=True)
def keep_mask(
    key: Key[Array, ""], shape: Shape, rate: Float32[Array, ""], first_example: Index = 0
) -> Bool[Array, "..."]:
    """See `cnnjax.dropout.keep_mask`: here as a comparison of 16-bit numbers, packed into bits."""
    elements = prod(shape[1:])
    blocks = -(-elements // 4)
    x, y = example_words(key, positions(shape, first_example), blocks)
    # u >= rate as a statement about the upper 16 bits, which one integer decides for all elements.
    low = (shared_word(key) >> 18).astype(jnp.int32)
    least = (jnp.round(rate * UNIT).astype(jnp.int32) - low + 2**14 - 1) >> 14
    quarter = jax.lax.broadcasted_iota(jnp.uint8, (4, 1, 1), 0)
    upper = jnp.where(quarter < 2, x, y) >> (16 * (quarter % 2)).astype(jnp.uint32) & jnp.uint32(0xFFFF)
    keep = (upper.astype(jnp.int32) >= least).astype(jnp.uint8) << quarter
    # A reduction, whose result XLA keeps in memory: else both passes would draw every word anew.
    packed = jax.lax.reduce(keep, jnp.uint8(0), jax.lax.bitwise_or, (0,))  # [blocks, n]
    keep = ((packed[:, None] >> quarter[None, :, 0]) & 1).astype(bool).reshape(4 * blocks, packed.shape[1])
    return keep[:elements].T.reshape(shape)


FAST: Mapping[DropoutFunction, DropoutFunction] = MappingProxyType(
    {
        dropout.inverted_dropout: dropout.as_dropout(partial(dropout.inverted_noise, keep=keep_mask)),
        dropout.classic_dropout: dropout.as_dropout(
            partial(dropout.classic_noise, keep=keep_mask), at_evaluation=lambda rate: 1 - rate
        ),
        dropout.spatial_dropout: dropout.as_dropout(partial(dropout.spatial_noise, keep=keep_mask)),
        dropout.gaussian_dropout: dropout.as_dropout(partial(dropout.gaussian_noise, words=example_words)),
    }
)
"""The fast equal of each definition."""
