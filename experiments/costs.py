"""The cost of a network: parameters, floating-point operations and memory traffic, and measured step times.

Operations are counted as XLA's cost analysis counts them (a test compares the two): a multiply-add is two,
products with the zeros of SAME padding are none, and neither is a transcendental such as the exponential in
swish. Only what the network needs is counted: a strided convolution computes a quarter of the positions,
however a program implements it.
"""

import math
import os
import statistics
import time
from collections.abc import Mapping, Sequence
from functools import partial
from types import MappingProxyType
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from common import launched

from cnnjax.batches import sequential_plan
from cnnjax.data import Dataset, subset
from cnnjax.deploy.layers import layers
from cnnjax.experiment import use_every_core
from cnnjax.keys import streams
from cnnjax.models import Activation, ConvNet
from cnnjax.shapes import Float
from cnnjax.state import TrainState, evaluation_state
from cnnjax.task import HParams, MakeOptimizer, Task, init_state
from cnnjax.train import Arrays, make_training, to_device

LAUNCHES, STEPS = 5, 50
ACTIVATION_FLOPS: Mapping[Activation | None, int] = MappingProxyType({nn.relu: 1, nn.swish: 4, None: 0})
POOLING_FLOPS: Mapping[str, int] = MappingProxyType({"none": 0, "max": 3, "average": 4, "median": 12})
"""Per window of 4: 3 comparisons; 3 sums and a division; 5 minima, 5 maxima, a sum and a division."""


class Cost(NamedTuple):
    """Of the forward pass on one image."""

    parameters: int
    flops: int  # floating-point operations
    activation_bytes: int  # the outputs of convolutions, poolings and dense layers, float32


def cost(model: ConvNet, shape: tuple[int, ...] = (28, 28, 1)) -> Cost:
    """Count the cost of `model` on an image of `shape` (height, width, channels).

    Raises:
        KeyError: the activation is not in `ACTIVATION_FLOPS`, or the pooling not in `POOLING_FLOPS`.
    """
    rows = layers(model, shape)
    flops, stored = sum(products(model, shape)), 0
    for layer in rows:
        if layer.operation in ("conv", "pool", "dense"):
            outputs = math.prod(layer.shape)
            stored += outputs
            flops += outputs * (POOLING_FLOPS[layer.pooling] + ACTIVATION_FLOPS[layer.activation])
            flops += outputs * (layer.operation != "pool")  # the bias
    return Cost(sum(layer.parameters for layer in rows), flops, 4 * stored)


def products(model: ConvNet, shape: tuple[int, ...] = (28, 28, 1)) -> list[int]:
    """Count the operations in the matrix product of each convolution and dense layer, forward, per image."""
    counts = []
    for layer in layers(model, shape):
        if layer.operation == "conv":
            taps = [_taps(side, layer.size, layer.padding, layer.stride) for side in layer.inputs[:2]]
            counts.append(2 * math.prod(taps) * layer.inputs[2] * layer.shape[2])
        elif layer.operation == "dense":
            counts.append(2 * layer.inputs[0] * layer.shape[0])
    return counts


class StepCost(NamedTuple):
    """A lower bound on one training step."""

    flops: int  # of its products
    bytes: int  # read from and written to memory


def step_cost(model: ConvNet, batch_size: int, shape: tuple[int, ...] = (28, 28, 1)) -> StepCost:
    """Count the cost of an Adam step on a batch of float32 images of `shape`.

    Operations are those of the matrix products: the forward pass, and as many again for the gradients of the
    weights and of the inputs, which the first layer does not need. Bytes assume that no cache survives from
    one pass to the next. Each parameter costs 10 transfers of 4 bytes: read in the forward pass, the backward
    pass and the update, and written; its gradient and Adam's two moments written and read. An activation is
    written and read in the forward pass and read in the backward pass, and its gradient written and read.
    """
    forward, of_image = products(model, shape), cost(model, shape)
    flops = batch_size * (3 * sum(forward) - forward[0])
    stored = math.prod(shape) + 5 * of_image.activation_bytes
    return StepCost(flops, 40 * of_image.parameters + batch_size * stored)


def narrowed(model: ConvNet, parameters: int) -> ConvNet:
    """Return `model` with its hidden layer resized to bring it closest to this number of parameters."""
    (width,) = model.hidden
    here = cost(model).parameters
    per_unit = here - cost(model.clone(hidden=(width - 1,))).parameters
    return model.clone(hidden=(max(1, width + round((parameters - here) / per_unit)),))


def milliseconds_per_step(
    models: Sequence[tuple[nn.Module, HParams]],
    make_optimizer: MakeOptimizer,
    train: Arrays,
    *,
    batch_size: int = 32,
    steps: int = STEPS,
    rounds: int = 9,
) -> list[float]:
    """Return the median time of a training step of each model on one device.

    The models alternate, `steps` steps at a time for `rounds` rounds, so that other load on the machine
    affects all of them. The first call of each, which compiles, is excluded.
    """
    plan = sequential_plan(min(steps * batch_size, train.labels.shape[0]), batch_size)
    runs = []
    for model, hparams in models:
        traced = jax.tree.map(jnp.float32, hparams)
        task = Task(model, make_optimizer)
        training = make_training(task, train.images.shape[1:], train.labels.shape[0], batch_size)
        run = partial(jax.jit(training.epoch), some_state(task, train, traced), train, plan, traced)
        jax.block_until_ready(run())
        runs.append(run)
    times: list[list[float]] = [[] for _ in runs]
    for _ in range(rounds):
        for run, measured in zip(runs, times, strict=True):
            began = time.perf_counter()
            jax.block_until_ready(run())
            measured.append(1000 * (time.perf_counter() - began) / len(plan))
    return [statistics.median(measured) for measured in times]


def milliseconds_by_launch(
    models: Sequence[tuple[nn.Module, HParams]],
    make_optimizer: MakeOptimizer,
    train: Dataset,
    *,
    batch_size: int = 32,
    launches: int = LAUNCHES,
) -> Float[np.ndarray, "models launches"]:
    """Measure `milliseconds_per_step` in several new processes, each of which compiles anew.

    Of the images, only as many are used as the steps need.
    """
    few = subset(train, STEPS * batch_size)
    arguments = (models, make_optimizer, few, batch_size)
    return np.transpose(list(launched(_milliseconds, [arguments] * launches)))


def launch_range(milliseconds: Float[np.ndarray, "launches"], digits: int) -> str:
    """Format the median over launches, with the least and the greatest if there are several."""
    middle = f"{np.median(milliseconds):.{digits}f}"
    if len(milliseconds) == 1:
        return middle
    return f"{middle} ({np.min(milliseconds):.{digits}f} to {np.max(milliseconds):.{digits}f})"


def some_state(task: Task, data: Arrays, hparams: HParams) -> TrainState:
    """Return a state with random weights, which saves the seconds it takes to compile the initialisers."""
    init = partial(init_state, task, streams(jax.random.key(0)), data.images.shape[1:], hparams)
    shapes, rng = jax.eval_shape(init).params, np.random.default_rng(0)
    params = jax.tree.map(lambda leaf: jnp.asarray(rng.normal(0, 0.05, leaf.shape), leaf.dtype), shapes)
    return evaluation_state(params)._replace(opt_state=task.optimizer(hparams).init(params))


def _milliseconds(
    models: Sequence[tuple[nn.Module, HParams]],
    make_optimizer: MakeOptimizer,
    train: Dataset,
    batch_size: int,
) -> list[float]:
    """Measure in a process of its own; the one that waits for it may hold most of a GPU's memory."""
    os.environ["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"
    use_every_core()
    return milliseconds_per_step(models, make_optimizer, to_device(train), batch_size=batch_size)


def _taps(size: int, kernel: int, padding: str, stride: int) -> int:
    """Count the products of a one-dimensional convolution that fall inside the image."""
    outputs = size if padding == "SAME" else size - kernel + 1
    before = (kernel - 1) // 2 if padding == "SAME" else 0
    starts = np.arange(0, outputs // stride * stride, stride) - before
    return int(np.sum(np.minimum(starts + kernel, size) - np.maximum(starts, 0)))
