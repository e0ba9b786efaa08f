"""cnnjax as a peer: the functions behind `train`, with an epoch as one program that donates its state.

Each network has its tutorial's optimizer, as in the other peers.
"""

from functools import partial
from importlib.metadata import version

import jax
import jax.numpy as jnp
import protocol
from protocol import EpochResult, Peer, Settings, serve

import cnnjax
from cnnjax.config import HParams
from cnnjax.data import Dataset
from cnnjax.keys import streams
from cnnjax.metrics import MetricSums, means
from cnnjax.models import MODELS
from cnnjax.optimizers import OPTIMIZERS
from cnnjax.state import TrainState
from cnnjax.task import Task
from cnnjax.train import Arrays, make_training, to_device

OPTIMIZER = {"keras-cnn": "adam", "lenet-swish": "rmsprop"}


def build(settings: Settings, arrays: protocol.Arrays) -> Peer:
    """Build the compiled programs, their state and uint8 data on the default device."""
    task = Task(MODELS[settings.model], OPTIMIZERS[OPTIMIZER[settings.model]])
    hparams = HParams(jnp.float32(1e-3), jnp.float32(settings.rate))
    train = to_device(Dataset(arrays.train_images, arrays.train_labels))
    val = to_device(Dataset(arrays.val_images, arrays.val_labels))
    keys = streams(jax.random.key(settings.seed))
    run = make_training(task, train.images.shape[1:], len(train.labels), settings.batch_size)
    evaluate = jax.jit(run.evaluate)

    @partial(jax.jit, donate_argnums=0)
    def epoch(
        state: TrainState, train: Arrays, number: jax.Array, hparams: HParams
    ) -> tuple[TrainState, MetricSums]:
        return run.epoch(state, train, run.plan(keys.shuffle, number), hparams)

    state = jax.jit(run.init)(keys, hparams)
    done = 0

    def one_epoch() -> EpochResult:
        nonlocal state, done
        state, sums = epoch(state, train, jnp.int32(done), hparams)
        done += 1
        val_sums = evaluate(state, val, hparams)[0] if settings.validate else None
        fetched, val_fetched = jax.device_get((sums, val_sums))
        jax.block_until_ready(state)
        training = means(fetched)
        accuracy = None if val_fetched is None else float(means(val_fetched)["accuracy"])
        return EpochResult(float(training["loss"]), float(training["accuracy"]), accuracy)

    def validation_accuracy() -> float:
        return float(means(jax.device_get(evaluate(state, val, hparams)[0]))["accuracy"])

    return Peer(
        version={"cnnjax": cnnjax.__version__, **{name: version(name) for name in ("jax", "flax", "optax")}},
        parameters=sum(leaf.size for leaf in jax.tree.leaves(state.params)),
        train_epoch=one_epoch,
        evaluate=validation_accuracy,
    )


if __name__ == "__main__":
    serve(build)
