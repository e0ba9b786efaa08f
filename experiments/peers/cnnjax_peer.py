"""cnnjax as a peer: the functions behind `train` and behind experiments, with an epoch as one program.

The tutorials' networks are cnnjax's own, with their tutorials' optimizers, as in the other peers. The other
networks are plain Flax modules, which cnnjax trains as they are. With several members, they are a population.
"""

from collections.abc import Callable
from functools import partial
from importlib.metadata import version
from typing import Any

import flax_networks
import jax
import jax.numpy as jnp
import numpy as np
import protocol
from protocol import EpochResult, Peer, Settings, serve

import cnnjax
from cnnjax.config import HParams
from cnnjax.data import Dataset
from cnnjax.devices.layouts import cores, host_devices
from cnnjax.keys import streams
from cnnjax.metrics import MetricSums, means
from cnnjax.models import MODELS
from cnnjax.optimizers import OPTIMIZERS
from cnnjax.population import make_population, stack
from cnnjax.state import TrainState
from cnnjax.task import Task
from cnnjax.train import Arrays, make_training, to_device

OPTIMIZER = {"lenet-swish": "rmsprop"}  # of the others, Adam
HPARAMS = HParams(1e-3)


def build(settings: Settings, arrays: protocol.Arrays) -> Peer:
    """Build the compiled programs, their state and uint8 data: a population is spread over all cores."""
    if settings.members > 1:
        host_devices(cores())
    foreign = flax_networks.MODELS[settings.model][0](settings.rate)
    model = MODELS.get(settings.model, foreign)
    task = Task(model, OPTIMIZERS[OPTIMIZER.get(settings.model, "adam")])
    train = to_device(Dataset(arrays.train_images, arrays.train_labels))
    val = to_device(Dataset(arrays.val_images, arrays.val_labels))
    hparams = HPARAMS._replace(dropout_rate=settings.rate)
    make = single if settings.members == 1 else population
    params, epoch, evaluate = make(task, hparams, train, val, settings)
    done = 0

    def one_epoch() -> EpochResult:
        nonlocal done
        sums = epoch(done)
        done += 1
        training = means(sums)
        accuracy = evaluate() if settings.validate else None
        return EpochResult(float(np.mean(training["loss"])), float(np.mean(training["accuracy"])), accuracy)

    return Peer(
        version={"cnnjax": cnnjax.__version__, **{name: version(name) for name in ("jax", "flax", "optax")}},
        parameters=sum(leaf.size for leaf in jax.tree.leaves(params)) // settings.members,
        train_epoch=one_epoch,
        evaluate=evaluate,
        networks=settings.members,
    )


Programs = tuple[Any, Callable[[int], MetricSums], Callable[[], float]]  # parameters, epoch, evaluation


def single(task: Task, hparams: HParams, train: Arrays, val: Arrays, settings: Settings) -> Programs:
    """One network, whose program donates its state."""
    hparams = jax.tree.map(jnp.float32, hparams)
    keys = streams(jax.random.key(settings.seed))
    run = make_training(task, train.images.shape[1:], len(train.labels), settings.batch_size)
    evaluate = jax.jit(run.evaluate)

    @partial(jax.jit, donate_argnums=0)
    def program(
        state: TrainState, train: Arrays, number: jax.Array, hparams: HParams
    ) -> tuple[TrainState, MetricSums]:
        return run.epoch(state, train, run.plan(keys.shuffle, number), hparams)

    state = jax.jit(run.init)(keys, hparams)

    def epoch(number: int) -> MetricSums:
        nonlocal state
        state, sums = program(state, train, jnp.int32(number), hparams)
        jax.block_until_ready(state)
        return jax.device_get(sums)

    def accuracy() -> float:
        return float(means(jax.device_get(evaluate(state, val, hparams)[0]))["accuracy"])

    return state.params, epoch, accuracy


def population(task: Task, hparams: HParams, train: Arrays, val: Arrays, settings: Settings) -> Programs:
    """As many networks as there are members, in one program."""
    # A population measures itself after every epoch, here on one image, because the peers do not.
    one = Arrays(val.images[:1], val.labels[:1])
    program = make_population(task, train, one, batch_size=settings.batch_size)
    seeds = np.arange(settings.members, dtype=np.uint32)
    members = program.start(seeds, stack([hparams] * settings.members))

    def epoch(number: int) -> MetricSums:
        nonlocal members
        members, sums = program.epoch(members, number)
        jax.block_until_ready(members)
        return jax.device_get(sums.optimized)

    def accuracy() -> float:
        return float(np.mean(means(jax.device_get(program.evaluate(members, val)[0]))["accuracy"]))

    return members.state.params, epoch, accuracy


if __name__ == "__main__":
    serve(build)
