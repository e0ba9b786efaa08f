"""Metrics as masked sums, divided once at the end, so that every example counts the same."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax


class MetricSums(NamedTuple):
    """Sums over examples; each f32[], or f32 with leading axes of steps or members."""

    loss: jax.Array
    correct: jax.Array
    examples: jax.Array


def example_loss(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """Softmax cross-entropy in nats: f32[n, classes], i32[n] -> f32[n]."""
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels)


def metric_sums(logits: jax.Array, labels: jax.Array, loss: jax.Array, weight: jax.Array) -> MetricSums:
    """Sums over a batch: f32[n, classes], i32[n], f32[n], f32[n] of 0 (padding) and 1.

    `loss` is `example_loss(logits, labels)`, handed over because training has it already.
    """
    correct = (jnp.argmax(logits, axis=-1) == labels).astype(jnp.float32)
    return MetricSums(jnp.sum(loss * weight), jnp.sum(correct * weight), jnp.sum(weight))


def total(sums: MetricSums) -> MetricSums:
    """Add up the leading axis."""
    return jax.tree.map(lambda leaf: jnp.sum(leaf, axis=0), sums)


def means(sums: MetricSums) -> dict[str, jax.Array]:
    """`loss` (nats) and `accuracy` (fraction): the one division."""
    return {"loss": sums.loss / sums.examples, "accuracy": sums.correct / sums.examples}
