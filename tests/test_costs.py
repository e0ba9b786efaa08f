"""Counted costs agree with XLA, and a narrowed network has the requested size."""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest
from costs import cost, narrowed

from cnnjax.kernels import layers
from cnnjax.kernels.pooling import median
from cnnjax.models import MODELS, ConvNet
from cnnjax.pooling import POOLING, PoolingName, pool


@pytest.fixture(autouse=True)
def fast_median(monkeypatch: pytest.MonkeyPatch) -> None:
    """Count the median that trains, not its definition, which sorts."""
    fast = {**POOLING, "median": partial(pool, median)}
    monkeypatch.setattr(layers, "POOLING", fast)
    monkeypatch.setitem(globals(), "POOLING", fast)


SHAPE = (1, 28, 28, 1)


class Plain(nn.Module):
    """The network `like`, built from Flax's own layers and strided convolutions."""

    like: ConvNet

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        size, stride = self.like.kernel_size, 2 if self.like.pooling == "strided" else 1
        before = (size - 1) // 2 if self.like.padding == "SAME" else 0
        # With strides Flax places SAME windows differently; this keeps those of stride 1.
        pads = [(before, size - stride - before if before else 0)] * 2
        for features in self.like.features:
            x = self.like.activation(nn.Conv(features, (size, size), strides=stride, padding=pads)(x))
            if self.like.pooling == "max":
                x = nn.max_pool(x, (2, 2), (2, 2))
            elif stride == 1:
                x = POOLING[self.like.pooling](x)  # pyright: ignore[reportArgumentType]
        x = x.reshape(1, -1)
        for width in self.like.hidden:
            x = self.like.activation(nn.Dense(width)(x))
        return nn.Dense(self.like.classes)(x)


def analysis(model: nn.Module, shape: tuple[int, ...] = SHAPE) -> dict[str, float]:
    """XLA's cost analysis of the forward pass on one image."""
    image = jax.ShapeDtypeStruct(shape, jnp.float32)
    variables = jax.eval_shape(model.init, jax.random.key(0), image)
    return jax.jit(model.apply).lower(variables, image).compile().cost_analysis() or {}


@pytest.mark.parametrize("pooling", sorted(set(POOLING) - {"strided"}))
@pytest.mark.parametrize("name", MODELS)
def test_operations_match_xla(name: str, pooling: PoolingName) -> None:
    model = MODELS[name].clone(pooling=pooling)
    assert cost(model).flops == analysis(model.clone(reference=True))["flops"]


@pytest.mark.parametrize("pooling", POOLING)
@pytest.mark.parametrize("name", MODELS)
def test_operations_and_bytes_match_flax_layers(name: str, pooling: PoolingName) -> None:
    """XLA writes the output of every layer once, or twice if an activation follows."""
    model = MODELS[name].clone(pooling=pooling)
    counted, xla = cost(model), analysis(Plain(model))
    assert counted.flops == xla["flops"]
    assert counted.activation_bytes <= xla["bytes accessedout{}"] <= 2 * counted.activation_bytes


@pytest.mark.parametrize("name", MODELS)
def test_parameters(name: str) -> None:
    params = jax.eval_shape(MODELS[name].init, jax.random.key(0), jnp.zeros(SHAPE))
    assert cost(MODELS[name]).parameters == sum(leaf.size for leaf in jax.tree.leaves(params))


def test_activations_of_the_first_tutorial() -> None:
    """By hand: convolution, pooling, dense, logits."""
    assert cost(MODELS["keras-cnn"]).activation_bytes == 4 * (28 * 28 * 10 + 14 * 14 * 10 + 100 + 10)


def test_odd_image_sizes_and_larger_padding() -> None:
    model = ConvNet(features=(2, 3), kernel_size=5, padding="SAME", hidden=(7, 5))
    assert cost(model, (15, 11, 1)).flops == analysis(model.clone(reference=True), (1, 15, 11, 1))["flops"]


@pytest.mark.parametrize("name", MODELS)
def test_a_narrowed_network_comes_closest_to_the_requested_parameters(name: str) -> None:
    wanted = cost(MODELS[name]).parameters
    none = MODELS[name].clone(pooling="none")
    narrow = narrowed(none, wanted)
    (width,) = narrow.hidden
    far = [abs(cost(none.clone(hidden=(w,))).parameters - wanted) for w in (width - 1, width, width + 1)]
    assert far[1] == min(far)
    assert narrow == none.clone(hidden=(width,))
