"""What a trained run says of images."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy.special import softmax

from cnnjax import checkpoints, programs, resumption
from cnnjax.artifacts import CHECKPOINTS
from cnnjax.config import TrainConfig
from cnnjax.data import Dataset
from cnnjax.errors import ArgumentError, UserError
from cnnjax.optimizers import OPTIMIZERS
from cnnjax.state import TrainState


class Trained(NamedTuple):
    """The network that a run directory holds, after its last epoch."""

    config: TrainConfig
    data_dir: Path | None  # the --data-dir of the run
    params: Any
    epochs: int


def trained(run: Path, announce: Callable[[str], None] = print) -> Trained:
    """Read the last whole checkpoint of a run directory.

    Raises:
        ArgumentError: there is no run.
        UserError: it has no checkpoint yet, or none that can be read.
    """
    known = resumption.recorded(run, announce)
    if known is None:
        raise ArgumentError(f"{run} holds no run; name the --out directory of a train command")
    config, data_dir = known
    found = checkpoints.newest(run / CHECKPOINTS, announce)
    if found is None:
        raise UserError(
            f"{run} has no checkpoint yet; go on with python -m cnnjax train --resume --out {run}"
        )
    state = checkpoints.restore(found.path, _like(config))
    return Trained(config, data_dir, state.params, len(found.manifest.history))


def probabilities(network: Trained, dataset: Dataset) -> np.ndarray:
    """Class probabilities f32[n, classes] of the images of `dataset`."""
    return softmax(programs.evaluate_on(network.config, network.params, dataset).logits, axis=1)


def _like(config: TrainConfig) -> TrainState:
    """The structure, shapes and dtypes of the state of such a run; only the key is an array."""
    model, image = programs.network(config), jax.ShapeDtypeStruct((1, 28, 28, 1), jnp.float32)
    params = jax.eval_shape(model.init, jax.random.key(0), image)["params"]
    opt_state = jax.eval_shape(OPTIMIZERS[config.optimizer](config.hparams).init, params)
    step: Any = jax.ShapeDtypeStruct((), jnp.int32)
    return TrainState(step, params, opt_state, jax.random.key(0))
