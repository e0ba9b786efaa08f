"""What a network costs: counted from its fields, and timed.

One image goes forward. A product and its sum are two operations; products with the zeros of a SAME
padding are not counted, and the exponential in swish, a transcendental, is not either: all as XLA's
cost analysis has it, which a test compares. Only what the network needs is counted: a strided
convolution computes a quarter of the positions, whichever way a program gets there.
"""

import math
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

from cnnjax.batches import sequential_plan
from cnnjax.config import HParams
from cnnjax.deploy.layers import layers
from cnnjax.models import Activation, ConvNet
from cnnjax.pooling import PoolingName
from cnnjax.state import MakeOptimizer, TrainState
from cnnjax.train import Arrays, make_train_step, train_epoch

ACTIVATION_FLOPS: Mapping[Activation, int] = MappingProxyType({nn.relu: 1, nn.swish: 4})
POOLING_FLOPS: Mapping[PoolingName, int] = MappingProxyType(
    # An output of 4 values: 3 comparisons; 3 sums, 1 division; 5 minima, 5 maxima, 1 sum, 1 division.
    {"max": 3, "average": 4, "median": 12, "strided": 0, "none": 0}
)


class Cost(NamedTuple):
    """Of one image, forward."""

    parameters: int
    flops: int  # floating-point operations
    activation_bytes: int  # the outputs of convolutions, poolings and dense layers, float32


def cost(model: ConvNet, shape: tuple[int, ...] = (28, 28, 1)) -> Cost:
    """Count what `model` needs for an image of `shape` (height, width, channels).

    Raises:
        KeyError: the activation is not in `ACTIVATION_FLOPS`.
    """
    activation = ACTIVATION_FLOPS[model.activation]
    rows = layers(model, shape)
    flops = sum(products(model, shape))
    for row in rows:
        values = math.prod(row.shape)
        if row.kind.endswith("Pooling2D"):
            flops += values * POOLING_FLOPS[model.pooling]
        elif row.kind in ("Conv2D", "Dense"):
            flops += values * (1 if row is rows[-1] else 1 + activation)
    stored = sum(
        math.prod(row.shape)
        for row in rows
        if row.kind in ("Conv2D", "Dense") or row.kind.endswith("Pooling2D")
    )
    return Cost(sum(row.parameters for row in rows), flops, 4 * stored)


def products(model: ConvNet, shape: tuple[int, ...] = (28, 28, 1)) -> list[int]:
    """Operations in the product of each convolution and dense layer, of one image going forward."""
    counted, flat = [], 0
    stride = 2 if model.pooling == "strided" else 1
    for row in layers(model, shape):
        values = math.prod(row.shape)
        if row.kind == "Conv2D":
            taps = [_taps(size, model.kernel_size, model.padding, stride) for size in shape[:2]]
            counted.append(2 * math.prod(taps) * shape[2] * row.shape[2])
        elif row.kind == "Dense":
            counted.append(2 * values * flat)
        if row.kind == "Conv2D" or row.kind.endswith("Pooling2D"):
            shape = row.shape
        flat = values
    return counted


class StepCost(NamedTuple):
    """Of one training step: what it cannot do without."""

    flops: int  # of its products
    bytes: int  # read from and written to memory


def step_cost(model: ConvNet, batch_size: int, shape: tuple[int, ...] = (28, 28, 1)) -> StepCost:
    """Count a step of Adam on a batch of images of `shape`, float32.

    Products: forward, and the same again for the gradient of the weights and for that of the input, which
    the first layer does not need. Bytes, as if nothing stayed in a cache from one pass to the next: the
    parameters are read forward, backward and by the update, the gradient is written and read, each of Adam's
    two moments too, and the parameters are written: 10 times 4 bytes each. An activation is written and read
    forward, read backward, and its gradient written and read.
    """
    forward, of_image = products(model, shape), cost(model, shape)
    flops = batch_size * (3 * sum(forward) - forward[0])
    stored = math.prod(shape) + 5 * of_image.activation_bytes
    return StepCost(flops, 40 * of_image.parameters + batch_size * stored)


def narrowed(model: ConvNet, parameters: int) -> ConvNet:
    """`model` with its one hidden dense layer as wide as comes closest to so many parameters."""
    (width,) = model.hidden
    here = cost(model).parameters
    per_unit = here - cost(model.clone(hidden=(width - 1,))).parameters
    return model.clone(hidden=(max(1, width + round((parameters - here) / per_unit)),))


def milliseconds_per_step(
    models: Sequence[tuple[ConvNet, HParams]],
    make_optimizer: MakeOptimizer,
    train: Arrays,
    *,
    batch_size: int = 32,
    steps: int = 50,
    rounds: int = 9,
) -> list[float]:
    """Median time of a training step of each model, alone on one device.

    The models take turns, `steps` steps each and `rounds` times, so that what else the machine does
    meets all of them. The first turn of each, which compiles, does not count.
    """
    plan = sequential_plan(min(steps * batch_size, train.labels.shape[0]), batch_size)
    runs = []
    for model, hparams in models:
        traced = jax.tree.map(jnp.float32, hparams)
        state = some_state(model, make_optimizer, train, traced)
        epoch = jax.jit(partial(train_epoch, make_train_step(model, make_optimizer)))
        run = partial(epoch, state, train, plan, traced)
        jax.block_until_ready(run())
        runs.append(run)
    times: list[list[float]] = [[] for _ in runs]
    for _ in range(rounds):
        for run, seen in zip(runs, times, strict=True):
            began = time.perf_counter()
            jax.block_until_ready(run())
            seen.append(1000 * (time.perf_counter() - began) / len(plan))
    return [statistics.median(seen) for seen in times]


def some_state(model: ConvNet, make_optimizer: MakeOptimizer, data: Arrays, hparams: HParams) -> TrainState:
    """A state with random weights, which takes seconds less than to compile the true initialisers."""
    sample = jax.ShapeDtypeStruct((1, *data.images.shape[1:]), jnp.float32)
    shapes = jax.eval_shape(model.init, jax.random.key(0), sample)["params"]
    rng = np.random.default_rng(0)
    params = jax.tree.map(lambda leaf: jnp.asarray(rng.normal(0, 0.05, leaf.shape), leaf.dtype), shapes)
    opt_state = make_optimizer(hparams).init(params)
    return TrainState(jnp.zeros((), jnp.int32), params, opt_state, jax.random.key(0))


def _taps(size: int, kernel: int, padding: str, stride: int) -> int:
    """Products of a one-dimensional convolution whose partner is inside the image."""
    outputs = size if padding == "SAME" else size - kernel + 1
    before = (kernel - 1) // 2 if padding == "SAME" else 0
    starts = np.arange(0, outputs // stride * stride, stride) - before
    return int(np.sum(np.minimum(starts + kernel, size) - np.maximum(starts, 0)))
