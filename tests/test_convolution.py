"""The fused layer equals Flax's convolution, activation and pooling, one after the other."""

from functools import partial
from typing import Any, get_args

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, PartitionSpec

from cnnjax.errors import UserError
from cnnjax.kernels.convolution import ELEMENTWISE, MONOTONE, conv_pool
from cnnjax.kernels.layers import Conv
from cnnjax.pooling import POOLING, PoolingName

Arrays = tuple[jax.Array, jax.Array, jax.Array]
# In one order in every process, for pytest-xdist.
MONOTONES = sorted(MONOTONE, key=lambda activation: activation.__name__)
SAME_RELU = {"padding": "SAME", "activation": nn.relu}


def case(x_shape: tuple[int, ...], kernel_shape: tuple[int, ...], whole: bool = False) -> Arrays:
    """Input, kernel and bias; small whole numbers make sums exact, so that ties are ties to all."""
    keys = jax.random.split(jax.random.key(sum(x_shape)), 3)
    shapes = (x_shape, kernel_shape, kernel_shape[3:])
    if whole:
        draws = (jax.random.randint(k, s, -1, 2) for k, s in zip(keys, shapes, strict=True))
        x, kernel, bias = (draw.astype(jnp.float32) for draw in draws)
    else:
        x, kernel, bias = (jax.random.normal(k, s) for k, s in zip(keys, shapes, strict=True))
    return x, kernel, bias


def flax_layer(x, kernel, bias, *, padding, activation, pooling, window=2) -> jax.Array:
    """What a Flax user writes."""
    conv = nn.Conv(kernel.shape[3], kernel.shape[:2], 1, padding)
    convolved: Any = conv.apply({"params": {"kernel": kernel, "bias": bias}}, x)
    y = activation(convolved)
    if pooling not in ("max", "average"):
        return POOLING[pooling](y, window)
    pool = {"max": nn.max_pool, "average": nn.avg_pool}[pooling]
    with jax.numpy_dtype_promotion("standard"):  # nn.avg_pool divides by an integer
        return pool(y, (window, window), (window, window))


def reference(x, kernel, bias, *, padding, activation, pooling) -> jax.Array:
    """The definition, as a network with `reference=True` computes it."""
    layer = Conv(kernel.shape[3], kernel.shape[0], padding, activation, pooling, reference=True)
    y: Any = layer.apply({"params": {"kernel": kernel, "bias": bias}}, x)
    return y


def assert_equals_flax(arguments: Arrays, layer=conv_pool, **settings) -> None:
    # Optimizing the compiled code would take most of the time of these tests.
    @partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})
    def values_and_gradients(*arguments: jax.Array) -> list[tuple[jax.Array, Arrays]]:
        results = []
        for one in (layer, flax_layer):
            out, back = jax.vjp(partial(one, **settings), *arguments)
            results.append((out, back(jax.random.normal(jax.random.key(99), out.shape))))
        return results

    ours, flax = values_and_gradients(*arguments)
    chex.assert_trees_all_close(ours, flax, rtol=1e-4, atol=1e-4)


WINDOWS = [
    ((8, 8, 2), (3, 3), "SAME", 2),
    ((9, 7, 2), (5, 5), "VALID", 2),
    ((11, 10, 1), (2, 3), "SAME", 3),
]
SLOW = pytest.mark.slow


@pytest.mark.parametrize(
    ("pooling", "size", "kernel", "padding", "window"),
    [
        pytest.param(name, *case, marks=() if name == "max" or case is WINDOWS[1] else SLOW)
        for name in POOLING
        for case in WINDOWS
    ],
)
def test_equals_flax(pooling: PoolingName, size, kernel, padding, window) -> None:
    arguments = case((2, *size), (*kernel, size[2], 3))
    settings = {"padding": padding, "window": window, "pooling": pooling}
    assert_equals_flax(arguments, activation=nn.swish, **settings)


@pytest.mark.parametrize("pooling", POOLING)
def test_the_reference_equals_flax(pooling: PoolingName) -> None:
    arguments = case((2, 9, 7, 2), (3, 3, 2, 3))
    assert_equals_flax(arguments, reference, pooling=pooling, **SAME_RELU)


@pytest.mark.parametrize(
    ("activation", "channels"),  # of one channel summed tap by tap, of two as a product
    [(nn.relu, 1), (jnp.tanh, 1), (jnp.square, 1), (nn.relu, 2), (nn.swish, 2)],
)
def test_equals_flax_under_ties(activation, channels: int) -> None:
    arguments = case((3, 7, 8, channels), (3, 3, channels, 4), whole=True)
    assert_equals_flax(arguments, padding="SAME", activation=activation, pooling="max")


@pytest.mark.parametrize("activation", MONOTONES)
def test_monotone_activations_never_fall(activation) -> None:
    # Tiny falls are rounding.
    assert jnp.diff(activation(jnp.linspace(-30, 30, 10_001))).min() > -1e-6


def test_elementwise_activations_see_one_element_at_a_time() -> None:
    """So the order of axes is nothing to them."""
    x = jax.random.normal(jax.random.key(0), (3, 4, 5))
    for activation in ELEMENTWISE:
        whole, moved = jax.jit(lambda x, f=activation: (f(x), f(x.transpose(2, 0, 1)).transpose(1, 2, 0)))(x)
        np.testing.assert_allclose(moved, whole, rtol=1e-6, err_msg=activation.__name__)


def test_strided_is_the_convolution_with_larger_strides() -> None:
    x, kernel, bias = case((2, 8, 8, 2), (3, 3, 2, 3))

    @jax.jit
    def both(x, kernel, bias) -> tuple[jax.Array, jax.Array]:
        conv = nn.Conv(3, (3, 3), 2, ((1, 1), (1, 1)))
        expected: Any = conv.apply({"params": {"kernel": kernel, "bias": bias}}, x)
        return conv_pool(x, kernel, bias, pooling="strided", **SAME_RELU), nn.relu(expected)

    chex.assert_trees_all_close(*both(x, kernel, bias), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("pooling", "channels", "share_x"),
    [("max", 1, True), ("max", 2, False), ("median", 1, False), ("median", 2, True)],
)
def test_a_population_equals_its_members(pooling: PoolingName, channels: int, share_x: bool) -> None:
    members = [case((2 + i, 8, 8, channels), (3, 3, channels, 4)) for i in range(3)]
    x, kernel, bias = (jnp.stack(a) for a in zip(*[(m[0][:2], *m[1:]) for m in members], strict=True))
    if share_x:
        x = jnp.broadcast_to(x[:1], x.shape)

    @jax.jit
    @jax.grad
    def gradient(parameters, x):
        return jnp.square(conv_pool(x, *parameters, pooling=pooling, **SAME_RELU)).sum()

    axes = (0, None if share_x else 0)
    mapped = jax.jit(jax.vmap(gradient, axes))((kernel, bias), x[0] if share_x else x)
    for i in range(3):
        alone = gradient((kernel[i], bias[i]), x[i])
        chex.assert_trees_all_close([m[i] for m in mapped], list(alone), rtol=1e-4, atol=1e-4)


def test_gradients_in_a_scan_equal_those_outside() -> None:
    x, kernel, bias = case((4, 8, 8, 1), (3, 3, 1, 4))

    @jax.jit
    @jax.grad
    def gradient(kernel, x):
        return conv_pool(x[None], kernel, bias, pooling="max", **SAME_RELU).sum()

    total, _ = jax.jit(lambda: jax.lax.scan(lambda s, x: (s + gradient(kernel, x), None), 0 * kernel, x))()
    chex.assert_trees_all_close(total, sum(gradient(kernel, one) for one in x), rtol=1e-4, atol=1e-4)


@pytest.mark.devices
@pytest.mark.parametrize("channels", [1, 2])
def test_gradients_under_shard_map(channels: int) -> None:
    x, kernel, bias = case((8, 8, 8, channels), (3, 3, channels, 4))

    def gradient(kernel, bias, x):
        def total(parameters):
            return jnp.square(conv_pool(x, *parameters, pooling="max", **SAME_RELU)).sum()

        return jax.grad(total)((kernel, bias))

    mesh = jax.make_mesh((2,), ("data",), axis_types=(AxisType.Auto,))
    # The gradient of replicated parameters is already summed over the devices.
    shape = {"in_specs": (PartitionSpec(), PartitionSpec(), PartitionSpec("data")), "mesh": mesh}
    sharded = jax.jit(jax.shard_map(gradient, out_specs=PartitionSpec(), **shape))
    whole = jax.jit(gradient)(kernel, bias, x)
    chex.assert_trees_all_close(sharded(kernel, bias, x), whole, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("pooling", "channels"), [("max", 1), ("max", 2), ("average", 1), ("median", 2)])
def test_the_derivative_forward_equals_the_reference(pooling: PoolingName, channels: int) -> None:
    primals = case((2, 6, 6, channels), (3, 3, channels, 2))
    tangents = case((3, 6, 6, channels), (3, 3, channels, 2))
    tangents = (tangents[0][:2], *tangents[1:])
    settings = {"padding": "SAME", "activation": jnp.tanh, "pooling": pooling}
    ours, theirs = (
        jax.jit(partial(jax.jvp, partial(layer, **settings)))(primals, tangents)
        for layer in (conv_pool, reference)
    )
    chex.assert_trees_all_close(ours, theirs, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("pooling", POOLING)
def test_the_value_alone_is_that_beside_a_gradient(pooling: PoolingName) -> None:
    """They are computed in different ways."""
    arguments = case((2, 7, 6, 1), (3, 3, 1, 4))
    layer = partial(conv_pool, pooling=pooling, **SAME_RELU)
    alone, (beside, _) = jax.jit(layer)(*arguments), jax.jit(partial(jax.vjp, layer))(*arguments)
    chex.assert_trees_all_close(alone, beside, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("pooling", ["max", "none"])
def test_the_reference_has_no_derivative_of_its_own(pooling: PoolingName) -> None:
    for plain in (False, True):
        layer = Conv(2, 3, "SAME", nn.tanh, pooling, reference=plain)
        program = jax.make_jaxpr(layer.init_with_output)(jax.random.key(0), jnp.zeros((1, 6, 6, 1)))
        assert ("custom" in str(program)) != plain


@pytest.mark.parametrize("layer", [conv_pool, reference])
def test_an_image_too_small_says_so(layer) -> None:
    x, kernel, bias = case((1, 5, 8, 1), (5, 5, 1, 2))
    with pytest.raises(UserError, match="5 x 8 is too small for a 5 x 5 valid"):
        layer(x, kernel, bias, padding="VALID", activation=nn.relu, pooling="max")
    whole = partial(layer, padding="VALID", activation=nn.relu, pooling="none")
    assert jax.eval_shape(whole, x, kernel, bias).shape == (1, 1, 4, 2)


def test_every_pooling_name_is_known() -> None:
    assert set(POOLING) == set(get_args(PoolingName))
