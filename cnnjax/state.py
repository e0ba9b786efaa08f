"""The state of a training run: arrays only, so that it crosses jit, vmap, pmap and a checkpoint."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from cnnjax.shapes import Array, Int32, Key

Params = Any


class TrainState(NamedTuple):
    """Everything that changes during training, and the key of the dropout stream, which does not."""

    step: Int32[Array, ""]  # batches trained on so far
    params: Params
    opt_state: optax.OptState
    key: Key[Array, ""]  # the masks of a step follow from it and `step` alone, see `cnnjax.keys.Masks`
    collections: Mapping[str, Any] = {}  # other variables than parameters, such as batch_stats


def evaluation_state(params: Params, collections: Mapping[str, Any] = {}) -> TrainState:
    """Make a state of these variables that can be evaluated, but not trained."""
    return TrainState(jnp.zeros((), jnp.int32), params, (), jax.random.key(0), collections)
