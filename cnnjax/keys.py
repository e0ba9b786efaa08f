"""Keys: the named streams of a run, and random bits as a function of where an example is.

The key tree, wide and shallow (a child is named by `split`'s position or `fold_in`'s number, never both
from one parent):

    root = jax.random.key(seed)
    |- split 0: init
    |- split 1: shuffle --- fold_in(epoch) ------------------------> permutation of the epoch
    '- split 2: dropout --- fold_in(step) --- fold_in(layer) ------> threefry(counter = (example, block))
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

_ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))


class Streams(NamedTuple):
    """The three independent keys of one run, each a key scalar."""

    init: jax.Array
    shuffle: jax.Array
    dropout: jax.Array


def require_threefry(key: jax.Array) -> None:
    """Refuse every key but a typed threefry key.

    Under `vmap`, an `rbg` key draws the bits of its first member for all members, so paired populations
    would silently share masks; raw uint32 keys carry no implementation to check.

    Raises:
        TypeError: `key` is not a typed key.
        ValueError: `key` is of another implementation.
    """
    if not isinstance(key, jax.Array) or not jnp.issubdtype(key.dtype, jax.dtypes.prng_key):
        raise TypeError("a typed key is needed: make it with jax.random.key(seed)")
    if str(jax.random.key_impl(key)) != "threefry2x32":
        raise ValueError(
            f"{jax.random.key_impl(key)} keys are refused: under vmap they draw the same bits for every "
            "member; make the key with jax.random.key(seed, impl='threefry2x32')"
        )


def streams(root: jax.Array) -> Streams:
    """The named streams of a run from its root key (a threefry key scalar)."""
    require_threefry(root)
    return Streams(*jax.random.split(root, 3))


def threefry_2x32(
    key: tuple[jax.Array, jax.Array], counter: tuple[jax.Array, jax.Array]
) -> tuple[jax.Array, jax.Array]:
    """Threefry-2x32, 20 rounds (Salmon et al. 2011), on broadcastable uint32 arrays.

    The same function as JAX's own primitive (a test compares them), written with `jax.numpy` so that XLA
    fuses its rounds into one loop; the primitive runs them as a loop over memory on the CPU, where it
    costs about six times as much.
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
def example_blocks(key: jax.Array, example: jax.Array, blocks: int) -> tuple[jax.Array, jax.Array]:
    """Random words for each example, as a pure function of `key` and the example's number.

    An example's words do not depend on how many examples are drawn together, nor on the device that
    draws them: those of block b are threefry(key, (example, b)).

    Args:
        key: threefry key scalar, used for nothing else.
        example: uint32[n], the places of the examples in the global batch.
        blocks: how many pairs of words each example gets, below 2^32 - 1.

    Returns:
        Two arrays, uint32[blocks, n]. Examples come last, where `conv_pool` has them: whoever reads both
        then reads rows of both.
    """
    shape = (blocks, example.shape[0])
    place = jnp.broadcast_to(example.astype(jnp.uint32)[None, :], shape)
    block = jnp.broadcast_to(jnp.arange(blocks, dtype=jnp.uint32)[:, None], shape)
    return threefry_2x32(_words_of(key), (place, block))


def shared_word(key: jax.Array) -> jax.Array:
    """One uint32 for all examples together, independent of what `example_blocks` draws from `key`."""
    last = jnp.full((), jnp.iinfo(jnp.uint32).max, jnp.uint32)
    return threefry_2x32(_words_of(key), (last, last))[0]


def _words_of(key: jax.Array) -> tuple[jax.Array, jax.Array]:
    require_threefry(key)
    data = jax.random.key_data(key)
    return data[0], data[1]
