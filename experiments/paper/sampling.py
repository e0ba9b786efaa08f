"""Monte-Carlo model averaging: mean class probabilities under sampled masks (section 7.5 of the paper)."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from cnnjax.data import Dataset
from cnnjax.keys import Masks
from cnnjax.shapes import Float
from cnnjax.state import TrainState
from cnnjax.task import Task, forward

BATCH = 500
Errors = Float[np.ndarray, " samples"]


def error_by_samples(task: Task, samples: int) -> Callable[[TrainState, Any, Dataset], Errors]:
    """Make the function (state, hparams, data) -> errors of averages over 1, 2, ... `samples` masks.

    Errors are fractions. The masks are those of the run's steps from 2^31 on, which no training has used.
    """
    wrong = jax.jit(partial(_wrong, task, samples=samples))

    def errors(state: TrainState, hparams: Any, data: Dataset) -> Errors:
        traced, total = jax.tree.map(jnp.float32, hparams), np.zeros(samples)
        for first in range(0, len(data.labels), BATCH):
            images, labels = (jnp.asarray(part[first : first + BATCH]) for part in (data.images, data.labels))
            total += np.asarray(wrong(state, traced, images, labels, jnp.uint32(first)))
        return total / len(data.labels)

    return errors


def _wrong(
    task: Task,
    state: TrainState,
    hparams: Any,
    images: jax.Array,
    labels: jax.Array,
    first: jax.Array,
    *,
    samples: int,
) -> jax.Array:
    def add(total: jax.Array, sample: jax.Array) -> tuple[jax.Array, jax.Array]:
        masks = Masks(state.key, sample, first)
        logits, _ = forward(task, state.params, state.collections, images, hparams, masks)
        total = total + jax.nn.softmax(logits)
        return total, jnp.sum(total.argmax(1) != labels)

    start = jnp.zeros((len(images), task.model.classes))  # pyright: ignore[reportAttributeAccessIssue]
    return jax.lax.scan(add, start, jnp.uint32(2**31) + jnp.arange(samples, dtype=jnp.uint32))[1]
