"""The recipe of `speedrun.py`: a network and a schedule that reach 99% on MNIST soon, as a task of cnnjax."""

from collections.abc import Callable
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from cnnjax.config import HParams
from cnnjax.kernels.layers import Conv, Dense
from cnnjax.keys import streams
from cnnjax.metrics import MetricSums
from cnnjax.optimizers import keras_adam
from cnnjax.optimizers.schedules import one_cycle
from cnnjax.shapes import Array, Float32, UInt8
from cnnjax.state import TrainState
from cnnjax.task import Task
from cnnjax.train import Arrays, make_training

BATCH_SIZE = 128
STEPS = 750  # 96,000 images, 1.6 epochs
HPARAMS = HParams(learning_rate=0.005)
BETAS = 0.7, 0.9
MEAN, DEVIATION = 0.1307, 0.3081


class Net(nn.Module):
    """Two convolutions, the first with max pooling and the second with strides of 2, and two dense layers."""

    @nn.compact
    def __call__(self, x: Float32[Array, "n h w c"]) -> Float32[Array, "n classes"]:
        """Return logits."""
        x = Conv(16, 5, "VALID", nn.relu, "max")(x)
        x = Conv(32, 5, "VALID", nn.relu, "strided")(x)
        x = nn.relu(Dense(128)(x.reshape(len(x), -1)))
        return Dense(10)(x)


def normalized(images: UInt8[Array, "n h w c"]) -> Float32[Array, "n h w c"]:
    """Pixels with the mean and the deviation of MNIST's training images."""
    return (images.astype(jnp.float32) / 255 - MEAN) / DEVIATION


def adam_in_one_cycle(hparams: HParams) -> optax.GradientTransformation:
    """Adam whose learning rate rises and falls once over `STEPS`."""
    factor = optax.scale_by_schedule(one_cycle(STEPS))
    return optax.chain(keras_adam(hparams, *BETAS), factor)


TASK = Task(Net(), adam_in_one_cycle, preprocess=normalized)


class Run(NamedTuple):
    """Compiled programs; the data are arguments, so that they are not copied into the programs."""

    train: Callable[[int], TrainState]  # seed -> the state after the last step
    evaluate: Callable[[TrainState], MetricSums]  # on the test images


def compile_run(train: Arrays, test: Arrays) -> Run:
    """Compile a whole run: initial weights, the order of the images, and all steps."""
    training = make_training(TASK, train.images.shape[1:], len(train.labels), BATCH_SIZE)
    hparams = jax.tree.map(jnp.float32, HPARAMS)

    def whole(seed: jax.Array, data: Arrays) -> TrainState:
        keys = streams(jax.random.key(seed))
        epochs = -(-STEPS * BATCH_SIZE // len(data.labels))
        plan = jnp.concatenate([training.plan(keys.shuffle, epoch) for epoch in range(epochs)])[:STEPS]
        return training.epoch(training.init(keys, hparams), data, plan, hparams)[0]

    compiled = jax.jit(whole).lower(jnp.uint32(0), train).compile()
    evaluate = jax.jit(lambda state, data: training.evaluate(state, data, hparams)[0])
    return Run(lambda seed: compiled(jnp.uint32(seed), train), lambda state: evaluate(state, test))
