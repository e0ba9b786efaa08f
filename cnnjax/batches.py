"""From a data set in device memory to batches: index plans, and the gather that follows one row."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from cnnjax.shapes import Array, Float32, Int32, Key, UInt8

PADDING = -1
"""The index of a place in a plan that holds no example."""


class Batch(NamedTuple):
    """One batch of static size; padding has weight 0."""

    images: Float32[Array, "n height width channels"]  # in [0, 1]
    labels: Int32[Array, " n"]
    weight: Float32[Array, " n"]  # 1 for an example and 0 for padding


def shuffled_plan(key: Key[Array, ""], examples: int, batch_size: int) -> Int32[Array, "steps batch"]:
    """Cut a permutation of all examples into batches: an epoch.

    Every example occurs exactly once. When `batch_size` does not divide `examples`, the last batch is
    smaller, as in Keras: its row is filled up with `PADDING`, which has no weight in loss and gradient.
    """
    return _rows(jax.random.permutation(key, examples), batch_size)


def sequential_plan(examples: int, batch_size: int) -> Int32[Array, "steps batch"]:
    """Cut all examples, in order, into batches: an evaluation."""
    return _rows(jnp.arange(examples), batch_size)


def take(
    images: UInt8[Array, "n height width channels"], labels: Int32[Array, " n"], plan: Int32[Array, "*batch"]
) -> Batch:
    """Gather the examples of a plan; the batch has its leading axes, and its images are still uint8."""
    index = jnp.maximum(plan, 0)
    return Batch(images[index], labels[index], (plan != PADDING).astype(jnp.float32))


def scaled(batch: Batch) -> Batch:
    """Divide the pixels of a batch, uint8, by 255."""
    return batch._replace(images=batch.images.astype(jnp.float32) / 255.0)


def take_batch(
    images: UInt8[Array, "n height width channels"], labels: Int32[Array, " n"], row: Int32[Array, " batch"]
) -> Batch:
    """Gather and scale the batch of one row of a plan."""
    return scaled(take(images, labels, row))


def _rows(order: Int32[Array, " n"], batch_size: int) -> Int32[Array, "steps batch"]:
    missing = -order.shape[0] % batch_size
    return jnp.pad(order, (0, missing), constant_values=PADDING).reshape(-1, batch_size)
