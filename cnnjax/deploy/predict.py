"""Class probabilities from a trained run."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from scipy.special import softmax

from cnnjax.config import TrainConfig
from cnnjax.data import Dataset
from cnnjax.errors import ArgumentError, UserError
from cnnjax.keys import Masks, streams
from cnnjax.runs import checkpoints, programs, resumption
from cnnjax.runs.run_directory import CHECKPOINTS
from cnnjax.state import TrainState
from cnnjax.task import to_unit_interval
from cnnjax.train import EVAL_BATCH, Arrays


class Trained(NamedTuple):
    """The network in a run directory, after its last epoch."""

    config: TrainConfig
    data_dir: Path | None  # --data-dir of the run
    params: Any
    epochs: int


class Sampled(NamedTuple):
    """Mean and spread of class probabilities over dropout masks."""

    mean: np.ndarray  # f32[n, classes]
    spread: np.ndarray  # f32[n, classes], standard deviation


def description(network: Trained) -> str:
    """Describe a network in a few words: "keras-cnn after 5 epochs"."""
    return f"{network.config.model} after {network.epochs} epoch{'s' * (network.epochs > 1)}"


def trained(run: Path, announce: Callable[[str], None] = print) -> Trained:
    """Load the last complete checkpoint of a run directory.

    Raises:
        ArgumentError: the directory holds no run.
        UserError: the run has no checkpoint yet, or none that can be read.
    """
    recorded = resumption.recorded(run, announce)
    if recorded is None:
        raise ArgumentError(f"{run} holds no run; name the --out directory of a train command")
    config, data_dir = recorded
    checkpoint = checkpoints.newest(run / CHECKPOINTS, announce)
    if checkpoint is None:
        raise UserError(f"{run} has no checkpoint yet; run python -m cnnjax train --resume --out {run}")
    state = checkpoints.restore(checkpoint.path, _like(config))
    return Trained(config, data_dir, state.params, len(checkpoint.manifest.history))


def probabilities(network: Trained, dataset: Dataset) -> np.ndarray:
    """Return class probabilities f32[n, classes] for the images of `dataset`."""
    return softmax(programs.evaluate_on(network.config, network.params, dataset).logits, axis=1)


def sampled(network: Trained, dataset: Dataset, masks: int, seed: int = 0) -> Sampled:
    """Monte-Carlo dropout (Gal & Ghahramani 2016): average class probabilities over random masks.

    A mask depends only on the seed, the number of the mask and the row of the image. `masks` is at least 2,
    because the spread has `masks` - 1 degrees of freedom.

    Raises:
        ArgumentError: the run's model has no dropout, or its dropout rate is 0 or 1.
    """
    model, rate = programs.network(network.config), network.config.dropout_rate
    if model.dropout == "none" or rate == 0:
        raise ArgumentError(
            "--mc needs dropout, and this run has none (its dropout rate is 0); leave out --mc"
        )
    if rate == 1:
        raise ArgumentError("--mc drops every feature at this run's dropout rate of 1; leave out --mc")
    draw = jax.jit(partial(_probabilities_under_masks, model, masks=masks))
    stream = streams(jax.random.key(seed)).dropout
    batches = []
    for start in range(0, len(dataset.labels), EVAL_BATCH):
        rows = slice(start, start + EVAL_BATCH)
        arrays = programs.to_device(Dataset(dataset.images[rows], dataset.labels[rows]))
        source = Masks(stream, first_example=jnp.uint32(start))
        drawn = np.asarray(draw(network.params, arrays, jnp.float32(rate), source))
        batches.append((drawn.mean(axis=0), drawn.std(axis=0, ddof=1)))
    return Sampled(*map(np.concatenate, zip(*batches, strict=True)))


def _probabilities_under_masks(
    model: nn.Module, params: Any, data: Arrays, rate: jax.Array, source: Masks, masks: int
) -> jax.Array:
    """Return class probabilities f32[masks, n, classes]."""
    images = to_unit_interval(data.images)

    def one(mask: jax.Array) -> jax.Array:
        logits: Any = model.apply({"params": params}, images, True, rate, source._replace(step=mask))
        return jax.nn.softmax(logits)

    # Five at a time, because under vmap the layers before the first dropout are computed only once.
    return jax.lax.map(one, jnp.arange(masks), batch_size=min(5, masks))


def _like(config: TrainConfig) -> TrainState:
    """Return the structure, shapes and dtypes of the state of such a run; only the key is an array."""
    model, image = programs.network(config), jax.ShapeDtypeStruct((1, 28, 28, 1), jnp.float32)
    params = jax.eval_shape(model.init, jax.random.key(0), image)["params"]
    opt_state = jax.eval_shape(programs.task(config, total_steps=1).optimizer(config.hparams).init, params)
    step: Any = jax.ShapeDtypeStruct((), jnp.int32)
    return TrainState(step, params, opt_state, jax.random.key(0))
