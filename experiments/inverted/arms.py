"""Arms of `inverted_dropout.py`: forms of dropout, started and trained with rescaled weights and steps."""

import re
import time
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from cnnjax.config import HParams
from cnnjax.models import ConvNet
from cnnjax.optimizers import keras_adam
from cnnjax.task import MakeOptimizer
from cnnjax.train import Arrays
from inverted.record import store, stored
from inverted.rescaling import TrainedArm, first_weights, make_training

RATE = 0.5
"""The tutorial's rate; p is then a power of two, and rescaling by it is exact."""
KEEP = 1 - RATE
BATCH = 32
MODEL = {kind: ConvNet(dropout=kind) for kind in ("inverted", "classic")}


class DropoutArm(NamedTuple):
    """A form of dropout, with the scale of the initial kernel and of gradient and step."""

    name: str
    kind: str
    start: float
    steps: float


INVERTED, CLASSIC, STARTED, RESCALED = (
    DropoutArm("inverted", "inverted", 1.0, 1.0),
    DropoutArm("classic as it is", "classic", 1.0, 1.0),
    DropoutArm("classic, start rescaled", "classic", 1 / KEEP, 1.0),
    DropoutArm("classic, start and steps rescaled", "classic", 1 / KEEP, 1 / KEEP),
)
ARMS = (INVERTED, CLASSIC, STARTED, RESCALED)


def sgd(hparams: HParams) -> optax.GradientTransformation:
    """Plain stochastic gradient descent, without momentum."""
    return optax.sgd(hparams.learning_rate)


OPTIMIZERS: dict[str, tuple[MakeOptimizer, float]] = {"SGD": (sgd, 0.1), "Adam": (keras_adam, 1e-3)}
"""Optimizers and their learning rates."""


def train_all(
    out: Path, stamp: str, seeds: jax.Array, train: Arrays, test: Arrays, epochs: int
) -> dict[str, dict[str, TrainedArm]]:
    """Train every arm with every optimizer, except those stored in `out` with the same stamp."""
    networks: dict[str, dict[str, TrainedArm]] = {}
    for name, (make_optimizer, rate) in OPTIMIZERS.items():
        hparams = HParams(jnp.float32(rate), jnp.float32(RATE))
        programs = {
            kind: make_training(model, make_optimizer, batch_size=BATCH, epochs=epochs)
            for kind, model in MODEL.items()
        }
        networks[name] = {}
        for arm in ARMS:
            path = _path(out, name, arm)
            trained = stored(path, stamp)
            if trained is None:
                began = time.perf_counter()
                weights = first_weights(MODEL["inverted"], seeds)
                factors = (jnp.float32(arm.start), jnp.float32(arm.steps))
                trained = programs[arm.kind](seeds, weights, *factors, hparams, train, test)
                trained = jax.device_get(trained)
                store(path, stamp, trained)
                print(f"trained {name}, {arm.name} ({time.perf_counter() - began:.1f} s)", flush=True)
            networks[name][arm.name] = trained
    return networks


def count_epochs(out: Path, seeds: range) -> int:
    """Count the epochs of networks with these seeds that are stored in `out`, of any configuration."""
    arms = (stored(_path(out, name, arm), None) for name in OPTIMIZERS for arm in ARMS)
    return sum(trained.loss[seeds.start : seeds.stop].size for trained in arms if trained is not None)


def _path(out: Path, optimizer: str, arm: DropoutArm) -> Path:
    return out / f"{re.sub('[^a-z]+', '-', f'{optimizer} {arm.name}'.lower())}.npz"
