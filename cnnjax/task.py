"""What is trained: a model and an optimizer."""

from collections.abc import Callable
from typing import NamedTuple

import flax.linen as nn
import jax.numpy as jnp
import optax

from cnnjax.config import HParams
from cnnjax.keys import Streams
from cnnjax.state import TrainState

MakeOptimizer = Callable[[HParams], optax.GradientTransformation]


class Task(NamedTuple):
    """A network and how it is optimized; everything that trains takes one."""

    model: nn.Module
    optimizer: MakeOptimizer  # from the traced hyperparameters


def init_state(task: Task, keys: Streams, image_shape: tuple[int, ...], hparams: HParams) -> TrainState:
    """Make the state before the first step.

    Args:
        task: what is trained; its model's `init(key, images)` gives `{"params": ...}`.
        keys: the named streams of the run.
        image_shape: (height, width, channels).
        hparams: traced hyperparameters.
    """
    params = task.model.init(keys.init, jnp.zeros((1, *image_shape)))["params"]
    opt_state = task.optimizer(hparams).init(params)
    return TrainState(jnp.zeros((), jnp.int32), params, opt_state, keys.dropout)
