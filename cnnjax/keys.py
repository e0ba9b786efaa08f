"""Keys: the named streams of a run, the key of a mask, and the random bits that belong to an element.

A child key is named by `split`'s position or by `fold_in`'s number, never both from one parent:

    root = jax.random.key(seed)
    |- split 0: init
    |- split 1: shuffle --- fold_in(epoch) ------------------------> permutation of the epoch
    '- split 2: dropout --- fold_in(step) --- fold_in(layer) ------> threefry(counter = (example, block))
                       '- fold_in(2^32 - 1) --- fold_in(step) --- fold_in(example) ---> augmentation
"""

from functools import partial
from math import prod
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.extend.random import threefry_2x32

from cnnjax.shapes import Array, Index, Int32, Key, UInt32

FOREIGN = 2**32 - 1
"""In place of a layer's number."""
AUGMENT = 2**32 - 1
"""In place of a step's number."""
UNIT = 2**30
"""`uniform_bits` are whole numbers in [0, UNIT)."""


class Streams(NamedTuple):
    """The three independent keys of one run."""

    init: Key[Array, ""]
    shuffle: Key[Array, ""]
    dropout: Key[Array, ""]


def require_threefry(key: jax.Array) -> None:
    """Refuse every key but a typed threefry key.

    Under `vmap`, an `rbg` key draws the bits of its first member for all members, so paired populations would
    silently share masks. Raw uint32 keys carry no implementation to check.

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


def streams(root: Key[Array, ""]) -> Streams:
    """Split the root key of a run into its named streams.

    Raises:
        TypeError, ValueError: see `require_threefry`.
    """
    require_threefry(root)
    return Streams(*jax.random.split(root, 3))


class StreamSeeds(NamedTuple):
    """Seeds of single streams, to vary one source of randomness at a time; None: the run's own seed."""

    init: int | None = None
    order: int | None = None
    masks: int | None = None


FROM_RUN = StreamSeeds()


def run_streams(seed: Index, own: StreamSeeds = FROM_RUN) -> Streams:
    """Return the streams of a run: `streams(jax.random.key(seed))`, but for those with a seed of their own.

    A stream with a seed of its own comes from the root `jax.random.key(own seed)`.
    """
    roots = [jax.random.key(seed if given is None else given) for given in own]
    return Streams(*(streams(root)[place] for place, root in enumerate(roots)))


class Masks(NamedTuple):
    """What a network needs to know to draw the masks of one batch."""

    stream: Key[Array, ""]  # `streams(root).dropout`
    step: Index = 0  # number of the training step, from 0
    first_example: Index = 0  # position of the batch's first example in the global batch

    def key(self, layer: Index) -> Key[Array, ""]:
        """Return the key of one dropout layer, counted from the input."""
        return jax.random.fold_in(jax.random.fold_in(self.stream, self.step), layer)

    def foreign_key(self) -> Key[Array, ""]:
        """Return the key for dropout layers that know nothing of positions, such as Flax's own.

        It differs between the parts of a batch, so that no two devices share a mask; their masks therefore
        depend on the number of devices.
        """
        return jax.random.fold_in(self.key(FOREIGN), self.first_example)

    def example_keys(self, examples: int) -> Key[Array, " n"]:
        """Return a key for each example, for augmentation: a function of step and position alone."""
        key = jax.random.fold_in(jax.random.fold_in(self.stream, AUGMENT), self.step)
        return jax.vmap(partial(jax.random.fold_in, key))(positions((examples,), self.first_example))


def mask_key(root: Key[Array, ""], layer: Index, step: Index) -> Key[Array, ""]:
    """Return the key of one layer's dropout mask at one training step.

    This is the project's promise: the mask of example i is a function of `mask_key(root, layer, step)` and i
    alone. It does not depend on the number of devices, nor on how the program is run.

    Args:
        root: the root key of the run, `jax.random.key(seed)`.
        layer: number of the dropout layer, counted from the input.
        step: number of the training step, counted from 0.
    """
    return Masks(streams(root).dropout, step).key(layer)


def example_words(
    key: Key[Array, ""], examples: UInt32[Array, " n"], blocks: int
) -> tuple[UInt32[Array, "blocks n"], UInt32[Array, "blocks n"]]:
    """Draw two random words for each block of each example: threefry(key, (example, block)).

    The words of an example do not depend on how many examples are drawn together, nor on the device.

    Args:
        key: used for nothing else.
        examples: positions of the examples in the global batch.
        blocks: pairs of words per example, below 2^32 - 1.
    """
    require_threefry(key)
    example = jnp.broadcast_to(examples, (blocks, len(examples)))
    block = jnp.broadcast_to(jnp.arange(blocks, dtype=jnp.uint32)[:, None], example.shape)
    x, y = threefry_2x32(jax.random.key_data(key), jnp.stack([example, block]))
    return x, y


def shared_word(key: Key[Array, ""]) -> UInt32[Array, ""]:
    """Draw one word for all examples together, independent of `example_words`."""
    require_threefry(key)
    return threefry_2x32(jax.random.key_data(key), jnp.full(2, 2**32 - 1, jnp.uint32))[0]


def positions(shape: tuple[int, ...], first_example: Index = 0) -> UInt32[Array, " n"]:
    """Positions in the global batch of the examples of f[n, ...]."""
    return jnp.asarray(first_example, jnp.uint32) + jnp.arange(shape[0] if shape else 1, dtype=jnp.uint32)


def uniform_bits(
    key: Key[Array, ""], shape: tuple[int, ...], first_example: Index = 0
) -> Int32[Array, "..."]:
    """Draw a whole number, uniform in [0, 2^30), for each element of f[n, ...].

    The upper 16 bits of element j of an example are quarter j % 4 of the example's block j // 4. The lower 14
    are drawn once for all elements of a key, at a cost of 16 bits an element instead of 30. Over keys every
    number is equally likely; within one mask, the sharing correlates two elements by at most
    2^-34 / (rate (1 - rate)).
    """
    elements = prod(shape[1:])
    x, y = example_words(key, positions(shape, first_example), -(-elements // 4))
    quarters = jnp.stack([x & 0xFFFF, x >> 16, y & 0xFFFF, y >> 16], axis=1)
    upper = quarters.reshape(-1, x.shape[1])[:elements].T.reshape(shape)
    return (upper << 14 | shared_word(key) >> 18).astype(jnp.int32)
