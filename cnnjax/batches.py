"""From a data set in device memory to batches: index plans, and the gather that follows one row."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

PADDING = -1
"""The index of a place in a plan that holds no example."""


class Batch(NamedTuple):
    """One batch of static size; padding has weight 0."""

    images: jax.Array  # f32[b, height, width, channels] in [0, 1]
    labels: jax.Array  # i32[b]
    weight: jax.Array  # f32[b], 1 for an example and 0 for padding


def shuffled_plan(key: jax.Array, examples: int, batch_size: int) -> jax.Array:
    """An epoch: a permutation of all examples, cut into batches.

    Every example occurs exactly once. When `batch_size` does not divide `examples`, the last batch is
    smaller, as in Keras: its row is filled up with `PADDING`, which has no weight in loss and gradient.

    Args:
        key: threefry key scalar: fold_in(shuffle stream, epoch).
        examples: size of the data set; static.
        batch_size: static.

    Returns:
        i32[ceil(examples / batch_size), batch_size].
    """
    return _rows(jax.random.permutation(key, examples), batch_size)


def sequential_plan(examples: int, batch_size: int) -> jax.Array:
    """Every example exactly once, in order: the plan of an evaluation. Shape as `shuffled_plan`."""
    return _rows(jnp.arange(examples), batch_size)


def take(images: jax.Array, labels: jax.Array, plan: jax.Array) -> Batch:
    """The examples that a plan names, their images still uint8.

    Args:
        images: uint8[n, height, width, channels].
        labels: i32[n].
        plan: i32[..., batch_size], `PADDING` where there is no example.

    Returns:
        A `Batch` with the leading axes of `plan`.
    """
    index = jnp.maximum(plan, 0)
    return Batch(images[index], labels[index], (plan != PADDING).astype(jnp.float32))


def scaled(batch: Batch) -> Batch:
    """The batch with its pixels, uint8, divided by 255."""
    return batch._replace(images=batch.images.astype(jnp.float32) / 255.0)


def take_batch(images: jax.Array, labels: jax.Array, row: jax.Array) -> Batch:
    """The batch that one row of a plan, i32[batch_size], names: `take`, then `scaled`."""
    return scaled(take(images, labels, row))


def _rows(order: jax.Array, batch_size: int) -> jax.Array:
    missing = -order.shape[0] % batch_size
    order = jnp.pad(order.astype(jnp.int32), (0, missing), constant_values=PADDING)
    return order.reshape(-1, batch_size)
