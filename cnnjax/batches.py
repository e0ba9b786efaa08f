"""From a data set in device memory to batches: index plans, and the gather that follows one row."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from cnnjax.shapes import Array, Float32, Int32, Key, UInt8


class Batch(NamedTuple):
    """One batch of static size; padding has weight 0."""

    images: UInt8[Array, "n height width channels"]
    labels: Int32[Array, " n"]
    weight: Float32[Array, " n"]  # 1 for an example and 0 for padding


def shuffled_plan(key: Key[Array, ""], examples: int, batch_size: int) -> Int32[Array, "steps batch"]:
    """Cut a permutation of all examples into batches: an epoch.

    Every example occurs exactly once. When `batch_size` does not divide `examples`, the last batch is
    smaller, as in Keras: its row is filled up with examples of the epoch that have no weight in loss and
    gradient, but are there for BatchNorm. Such an example i is written as -1 - i.
    """
    return _rows(jax.random.permutation(key, examples), batch_size)


def sequential_plan(examples: int, batch_size: int) -> Int32[Array, "steps batch"]:
    """Cut all examples, in order, into batches: an evaluation."""
    return _rows(jnp.arange(examples), batch_size)


def take(
    images: UInt8[Array, "n height width channels"], labels: Int32[Array, " n"], plan: Int32[Array, "*batch"]
) -> Batch:
    """Gather the examples of a plan, whose leading axes the batch has."""
    index = jnp.where(plan < 0, -1 - plan, plan)
    return Batch(images[index], labels[index], (plan >= 0).astype(jnp.float32))


def _rows(order: Int32[Array, " n"], batch_size: int) -> Int32[Array, "steps batch"]:
    missing = -order.shape[0] % batch_size
    return jnp.concatenate([order, -1 - jnp.resize(order, (missing,))]).reshape(-1, batch_size)
