"""The state of a training run: arrays only, so that it crosses jit, vmap, pmap and a checkpoint."""

from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from cnnjax.config import HParams
from cnnjax.keys import Streams

Params = Any
MakeOptimizer = Callable[[HParams], optax.GradientTransformation]


class TrainState(NamedTuple):
    """Everything that changes during training, and the key of its dropout stream, which does not."""

    step: jax.Array  # i32[], batches seen so far
    params: Params
    opt_state: optax.OptState
    key: jax.Array  # the dropout stream; a step's masks follow from it and `step` alone


def init_state(
    model: nn.Module,
    make_optimizer: MakeOptimizer,
    keys: Streams,
    images: jax.Array,
    hparams: HParams,
) -> TrainState:
    """The state before the first step.

    Args:
        model: a Linen module whose `init(key, images)` gives `{"params": ...}`.
        make_optimizer: builds the optimizer from the traced hyperparameters.
        keys: the run's named streams.
        images: f32[n, height, width, channels]; only the shape matters.
        hparams: traced hyperparameters.
    """
    params = model.init(keys.init, images)["params"]
    opt_state = make_optimizer(hparams).init(params)
    return TrainState(jnp.zeros((), jnp.int32), params, opt_state, keys.dropout)
