"""Metrics as masked sums, divided once at the end, so that every example counts the same."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from cnnjax.shapes import Array, Float32, Int32


class MetricSums(NamedTuple):
    """Sums over examples; leading axes may count steps or members."""

    loss: Float32[Array, "..."]
    correct: Float32[Array, "..."]
    examples: Float32[Array, "..."]


def example_loss(logits: Float32[Array, "n classes"], labels: Int32[Array, " n"]) -> Float32[Array, " n"]:
    """Softmax cross-entropy in nats."""
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels)


def metric_sums(
    logits: Float32[Array, "n classes"],
    labels: Int32[Array, " n"],
    loss: Float32[Array, " n"],
    weight: Float32[Array, " n"],
) -> MetricSums:
    """Sum over a batch; `loss` is `example_loss(logits, labels)`, and `weight` is 0 for padding, else 1."""
    correct = (jnp.argmax(logits, axis=-1) == labels).astype(jnp.float32)
    return MetricSums(jnp.sum(loss * weight), jnp.sum(correct * weight), jnp.sum(weight))


def total(sums: MetricSums) -> MetricSums:
    """Add up the leading axis."""
    return jax.tree.map(lambda leaf: jnp.sum(leaf, axis=0), sums)


def means(sums: MetricSums) -> dict[str, jax.Array]:
    """Divide: `loss` (nats) and `accuracy` (fraction)."""
    return {"loss": sums.loss / sums.examples, "accuracy": sums.correct / sums.examples}
