"""The table of layers of any Linen module."""

from typing import Any

import flax.linen as nn
import jax
import pytest
from flax import nnx

from cnnjax.config import HParams
from cnnjax.deploy.layers import layers
from cnnjax.deploy.modules import Row, modules
from cnnjax.errors import ArgumentError
from cnnjax.models import MODELS


class Block(nn.Module):
    """Has layers, and a parameter of its own."""

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        x = nn.BatchNorm(use_running_average=not train)(nn.Conv(4, (3, 3))(x))
        scale = self.param("scale", nn.initializers.ones, (1, 1, 1, 4))
        return nn.Dropout(0.2, deterministic=not train)(x * scale)


class Network(nn.Module):
    """Calls one layer twice, and asks for a hyperparameter."""

    @nn.compact
    def __call__(self, x: jax.Array, train: bool, dropout_rate: float) -> jax.Array:
        x, twice = Block(name="first")(x, train).mean((1, 2)), nn.Dense(4, name="twice")
        return nn.Dense(10)(twice(twice(x) * dropout_rate))


class Linear(nnx.Module):
    """Of Flax's newer interface."""

    def __init__(self, rngs: nnx.Rngs) -> None:
        self.dense = nnx.Linear(64, 10, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.dense(x.reshape(len(x), -1))


def test_rows_are_in_the_order_of_the_layers() -> None:
    block = [
        Row("first/Conv_0", "Conv", (8, 8, 4), 9 * 4 + 4, 0),
        Row("first/BatchNorm_0", "BatchNorm", (8, 8, 4), 8, 8),
        Row("first/Dropout_0", "Dropout", (8, 8, 4), 0, 0),
        Row("first", "Block", (8, 8, 4), 4, 0),
    ]
    dense = [Row("twice", "Dense", (4,), 20, 0), Row("Dense_0", "Dense", (10,), 50, 0)]
    assert modules(Network(), (8, 8, 1)) == block + dense


def test_a_module_of_nnx_has_its_name() -> None:
    assert modules(nnx.bridge.to_linen(Linear), (8, 8, 1)) == [Row("Linear", "Linear", (10,), 650, 0)]


@pytest.mark.parametrize("name", MODELS)
def test_a_convnet_has_the_parameters_that_the_walk_over_its_layers_has(name: str) -> None:
    counts = {row.name: row.parameters for row in layers(MODELS[name]) if row.parameters}
    rows: list[Any] = modules(MODELS[name], (28, 28, 1), HParams())
    assert {row.name: row.parameters for row in rows if row.parameters} == counts
    init = jax.eval_shape(MODELS[name].init, jax.random.key(0), jax.ShapeDtypeStruct((1, 28, 28, 1), "f4"))
    assert sum(row.parameters for row in rows) == sum(leaf.size for leaf in jax.tree.leaves(init))


def test_images_that_the_network_does_not_take_are_named() -> None:
    with pytest.raises(ArgumentError, match="fails on images of 4 x 4 x 1"):
        modules(nnx.bridge.to_linen(Linear), (4, 4, 1))
