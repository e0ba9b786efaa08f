"""The cost of a network: parameters, floating-point operations and memory traffic.

Operations are counted as XLA's cost analysis counts them (a test compares the two): a multiply-add is two,
products with the zeros of SAME padding are none, and neither is a transcendental such as the exponential in
swish. Only what the network needs is counted: a strided convolution computes a quarter of the positions,
however a program implements it.
"""

import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

import flax.linen as nn
import numpy as np

from cnnjax.deploy.layers import layers
from cnnjax.models import Activation, ConvNet

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


def _taps(size: int, kernel: int, padding: str, stride: int) -> int:
    """Count the products of a one-dimensional convolution that fall inside the image."""
    outputs = size if padding == "SAME" else size - kernel + 1
    before = (kernel - 1) // 2 if padding == "SAME" else 0
    starts = np.arange(0, outputs // stride * stride, stride) - before
    return int(np.sum(np.minimum(starts + kernel, size) - np.maximum(starts, 0)))
