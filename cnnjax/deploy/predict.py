"""Class probabilities from a trained run."""

import os
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy  # its parts are loaded when they are first used

from cnnjax import files
from cnnjax.data import DIGITS, Dataset, Loaded
from cnnjax.devices.layouts import require_backend
from cnnjax.errors import ArgumentError, UserError
from cnnjax.files.misspelt import did_you_mean
from cnnjax.keys import Masks, streams
from cnnjax.models import ConvNet
from cnnjax.runs import building, checkpoints, early_stopping, programs, result, resumption
from cnnjax.runs.building import NAMED, Custom
from cnnjax.runs.checkpoints import Checkpoint
from cnnjax.runs.manifest import Manifest
from cnnjax.runs.programs import Evaluation
from cnnjax.runs.resumption import Recorded
from cnnjax.runs.run_directory import CHECKPOINTS, holds_run
from cnnjax.runs.train_config import TrainConfig
from cnnjax.shapes import Array, Float32, UInt8
from cnnjax.state import TrainState
from cnnjax.stats.sentences import plural
from cnnjax.task import Task, forward, init_state, reads_rate
from cnnjax.train import EVAL_BATCH

MNIST_SHAPE = (28, 28, 1)
"""Shape of the images of runs whose checkpoints do not record it."""
PRUNED = 10
"""How often a checkpoint is looked for that a training process deletes before it is read."""


class Trained(NamedTuple):
    """The network in a run directory: after its last epoch or, with early stopping, after its best."""

    config: TrainConfig
    data_dir: Path | None  # --data-dir of the run
    task: Task
    hparams: Any
    state: TrainState  # to evaluate, not to train
    history: list[dict[str, float]]  # the rows of history.csv
    epochs: int
    image_shape: tuple[int, int, int] = MNIST_SHAPE
    class_names: tuple[str, ...] = DIGITS
    sha256: Mapping[str, str] = MappingProxyType({})  # of the data

    @property
    def classes(self) -> int:
        """Number of classes."""
        return len(self.class_names)

    @property
    def params(self) -> Any:
        """The parameters."""
        return self.state.params

    @property
    def convnet(self) -> ConvNet:
        """The model, where only a `ConvNet` will do; raise `ArgumentError` if it is another."""
        if not isinstance(self.task.model, ConvNet):
            raise ArgumentError(f"this needs a ConvNet, and the run trained {self.config.model}")
        return self.task.model


class Sampled(NamedTuple):
    """Mean and spread of class probabilities over dropout masks."""

    mean: Float32[np.ndarray, "n classes"]
    spread: Float32[np.ndarray, "n classes"]  # standard deviation


def description(network: Trained) -> str:
    """Describe a network in a few words: "keras-cnn after 5 epochs"."""
    return f"{network.config.model} after {plural(network.epochs, 'epoch')}"


def trained(run: Path, announce: Callable[[str], None] = print, custom: Custom = NAMED) -> Trained:
    """Load the network of a run directory.

    Args:
        run: the directory.
        announce: called with a line about each damaged file.
        custom: parts of the task that the configuration does not name, as in training.

    Raises:
        ArgumentError: the directory holds no run, or JAX computes in 64 bits.
        UserError: the run has no checkpoint yet, or none that can be read, or has lost those of its last
            epochs; or its custom parts were others.
    """
    require_backend()
    files.jax_settings()
    for _ in range(PRUNED):
        finished = result.whole(run)  # before the checkpoints, as a training process writes it after them
        recorded = resumption.recorded(run, announce)
        if recorded is None:
            near = did_you_mean(run, holds_run)
            if (run / "results.csv").exists():
                raise ArgumentError(
                    f"{run} holds an experiment and no run{near}; runs and report show experiments"
                )
            raise ArgumentError(f"{run} holds no run{near}; name the --out directory of a train command")
        if recorded.checkpoint is None:
            raise UserError(f"{run} has no checkpoint yet; run python -m cnnjax train --resume --out {run}")
        done = len(recorded.checkpoint.manifest.history)
        if finished is not None and done < finished["epochs"]:
            raise UserError(
                f"{run / result.RESULT} is of {finished['epochs']} epochs, and the last whole checkpoint of "
                f"{done}; python -m cnnjax train --resume --out {run} trains the rest"
            )
        try:
            network = _restored(run, recorded, recorded.checkpoint, custom)
            break
        except UserError:
            if os.path.lexists(recorded.checkpoint.path):
                raise
    else:
        raise UserError(f"{run} is being written too fast to be read; wait until its training has ended")
    _tell_other_settings(recorded.checkpoint.manifest, announce)
    return network


def _restored(run: Path, recorded: Recorded, last: Checkpoint, custom: Custom) -> Trained:
    config, history = recorded.config, last.manifest.history
    epoch = early_stopping.result_epoch(history, config.stop_early)
    checkpoint = last
    if epoch < len(history):
        checkpoint = checkpoints.of_epoch(run / CHECKPOINTS, epoch, last.manifest)
    custom = building.recognised(config, custom, run, building.EVALUATED)
    data = checkpoint.manifest.data
    height, width, channels = data.get("image_shape", MNIST_SHAPE)
    class_names = tuple(data.get("class_names", DIGITS))
    task, hparams = building.task(config, len(class_names), custom=custom), building.hparams(config, custom)
    shape = height, width, channels
    init = partial(init_state, task, streams(jax.random.key(0)), shape, hparams)
    state = checkpoints.restore_variables(checkpoint.path, jax.eval_shape(init))
    rows, sha256 = list(history), data["sha256"]
    return Trained(config, recorded.data_dir, task, hparams, state, rows, epoch, shape, class_names, sha256)


def _tell_other_settings(was: Manifest, announce: Callable[[str], None]) -> None:
    """Name the settings of JAX under which numbers differ from those of the training."""
    if differ := resumption.other_settings(was):
        announce(
            "numbers may differ from those of the training, which had other settings of JAX "
            f"({', '.join(differ)})"
        )


def evaluated(network: Trained, dataset: Dataset) -> Evaluation:
    """Compute loss, accuracy and logits on all images of `dataset`, without dropout."""
    refuse_other_data(network, dataset)
    return programs.evaluate_on(network.task, network.state, network.hparams, dataset)


def probabilities(network: Trained, dataset: Dataset) -> Float32[np.ndarray, "n classes"]:
    """Return class probabilities for the images of `dataset`."""
    return scipy.special.softmax(evaluated(network, dataset).logits, axis=1)


def same_data(network: Trained, loaded: Loaded) -> Loaded:
    """Return the data set if it is, byte for byte, the one that the network was trained on.

    Raises:
        UserError: it is another; the message names the first file that differs.
    """
    refuse_other_data(network, loaded.test)
    for file, digest in network.sha256.items():
        if loaded.sha256.get(file) != digest:
            raise UserError(
                f"the data differ from those that the network was trained on: the sha256 of {file} is "
                f"{str(loaded.sha256.get(file))[:12]}..., and was {digest[:12]}...; use the data set "
                "of the run"
            )
    return loaded


def refuse_other_data(network: Trained, dataset: Dataset) -> None:
    """Raise `UserError` unless the images have the shape and the classes that the network was trained on."""
    for what, trained_on, given in (
        ("images of", network.image_shape, dataset.image_shape),
        ("the classes", network.class_names, dataset.class_names),
    ):
        if trained_on != given:
            raise UserError(
                f"the network was trained on {what} {_listed(trained_on)}, and the data have {what} "
                f"{_listed(given)}; use the data set of the run"
            )


def sampled(network: Trained, dataset: Dataset, masks: int, seed: int = 0) -> Sampled:
    """Monte-Carlo dropout (Gal & Ghahramani 2016): average class probabilities over random masks.

    A mask of cnnjax's dropout depends only on the seed, the number of the mask and the row of the image.
    `masks` is at least 2, because the spread has `masks` - 1 degrees of freedom.

    Raises:
        ArgumentError: the network has no dropout, or its dropout rate is 0 or 1, or it has variables besides
            parameters: BatchNorm would use the statistics of these images.
    """
    refuse_other_data(network, dataset)
    rate = getattr(network.hparams, "dropout_rate", None)
    if network.state.collections:
        raise ArgumentError("--mc would let BatchNorm use the statistics of these images; leave out --mc")
    if rate == 1 and reads_rate(network.task.model):
        raise ArgumentError("--mc drops every feature at this run's dropout rate of 1; leave out --mc")
    task = network.task._replace(augment=None)
    draw = jax.jit(partial(_probabilities_under_masks, task, masks=masks))
    stream = streams(jax.random.key(seed)).dropout
    batches = []
    for start in range(0, len(dataset.labels), EVAL_BATCH):
        images = jnp.asarray(dataset.images[start : start + EVAL_BATCH])
        source = Masks(stream, first_example=jnp.uint32(start))
        drawn = np.asarray(draw(network.params, images, jax.tree.map(jnp.float32, network.hparams), source))
        if not start and (drawn == drawn[0]).all():
            raise ArgumentError("--mc needs dropout, and this network has none or a rate of 0; leave it out")
        batches.append((drawn.mean(axis=0), drawn.std(axis=0, ddof=1)))
    return Sampled(*map(np.concatenate, zip(*batches, strict=True)))


def _probabilities_under_masks(
    task: Task, params: Any, images: UInt8[Array, "n h w c"], hparams: Any, source: Masks, masks: int
) -> Float32[Array, "masks n classes"]:
    """Return class probabilities."""

    def one(mask: jax.Array) -> jax.Array:
        logits, _ = forward(task, params, {}, images, hparams, source._replace(step=mask))
        return jax.nn.softmax(logits)

    # Five at a time, because under vmap the layers before the first dropout are computed only once.
    return jax.lax.map(one, jnp.arange(masks), batch_size=min(5, masks))


def _listed(values: tuple[object, ...]) -> str:
    """Return the values in a few words: "28 x 28 x 1", or "0, 1, 2, ... (10)"."""
    if isinstance(values[0], int):
        return " x ".join(map(str, values))
    return ", ".join(map(str, values[:3])) + f", ... ({len(values)})" * (len(values) > 3)
