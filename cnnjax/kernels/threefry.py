"""Threefry fast on the CPU: equal, to the bit, to `cnnjax.keys.example_words` and `shared_word`."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from cnnjax.keys import require_threefry
from cnnjax.shapes import Array, Key, UInt32

_ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))
Words = tuple[jax.Array, jax.Array]


def threefry_2x32(key: Words, counter: Words) -> Words:
    """Threefry-2x32, 20 rounds (Salmon et al. 2011), on broadcastable uint32 arrays.

    The same function as JAX's own primitive, written with `jax.numpy` so that XLA fuses its rounds into one
    loop. The primitive runs them as a loop over memory on the CPU, where it takes about six times as long.
    """
    schedule = (key[0], key[1], key[0] ^ key[1] ^ np.uint32(0x1BD11BDA))
    x, y = counter[0] + schedule[0], counter[1] + schedule[1]
    for group in range(5):
        for rotation in _ROTATIONS[group % 2]:
            x = x + y
            y = (y << np.uint32(rotation)) | (y >> np.uint32(32 - rotation))
            y = y ^ x
        x = x + schedule[(group + 1) % 3]
        y = y + schedule[(group + 2) % 3] + np.uint32(group + 1)
    return x, y


@partial(jax.jit, static_argnames="blocks", inline=True)
def example_words(
    key: Key[Array, ""], examples: UInt32[Array, " n"], blocks: int
) -> tuple[UInt32[Array, "blocks n"], UInt32[Array, "blocks n"]]:
    """See `cnnjax.keys.example_words`.

    Examples come last, where `conv_pool` has them: whoever reads both then reads rows of both.
    """
    shape = (blocks, examples.shape[0])
    example = jnp.broadcast_to(examples[None, :], shape)
    block = jnp.broadcast_to(jnp.arange(blocks, dtype=jnp.uint32)[:, None], shape)
    return threefry_2x32(_words_of(key), (example, block))


def shared_word(key: Key[Array, ""]) -> UInt32[Array, ""]:
    """See `cnnjax.keys.shared_word`."""
    last = jnp.full((), jnp.iinfo(jnp.uint32).max, jnp.uint32)
    return threefry_2x32(_words_of(key), (last, last))[0]


def _words_of(key: jax.Array) -> Words:
    require_threefry(key)
    data = jax.random.key_data(key)
    return data[0], data[1]
