"""The dense layer equals Flax's in value and gradient under every transformation used in training."""

from functools import partial
from typing import Any

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from cnnjax.kernels.dense import dense

Arrays = tuple[jax.Array, jax.Array, jax.Array]


def case(seed: int = 0, n: int = 8, inputs: int = 12, outputs: int = 5) -> Arrays:
    keys = jax.random.split(jax.random.key(seed), 3)
    shapes = ((n, inputs), (inputs, outputs), (outputs,))
    x, kernel, bias = (jax.random.normal(k, s) for k, s in zip(keys, shapes, strict=True))
    return x, kernel, bias


def flax_dense(x: jax.Array, kernel: jax.Array, bias: jax.Array) -> jax.Array:
    y: Any = nn.Dense(len(bias)).apply({"params": {"kernel": kernel, "bias": bias}}, x)
    return y


@partial(jax.jit, static_argnums=0)
def gradients(layer, x: jax.Array, kernel: jax.Array, bias: jax.Array) -> Arrays:
    """Of a loss that sums over examples."""
    return jax.grad(lambda *a: jnp.square(layer(*a)).sum(), argnums=(0, 1, 2))(x, kernel, bias)


@pytest.mark.parametrize("shape", [(8, 12, 5), (1, 3, 1), (7, 1, 4)])
def test_equals_flax(shape: tuple[int, int, int]) -> None:
    arguments = case(0, *shape)
    values = (jax.jit(layer)(*arguments) for layer in (dense, flax_dense))
    chex.assert_trees_all_close(*values, rtol=1e-5, atol=1e-5)
    ours, flax = (gradients(layer, *arguments) for layer in (dense, flax_dense))
    chex.assert_trees_all_close(ours, flax, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("x_axis", [0, None])
def test_a_population_equals_its_members(x_axis: int | None) -> None:
    xs, kernels, biases = (jnp.stack(a) for a in zip(*map(case, range(3)), strict=True))
    x = xs if x_axis == 0 else xs[0]
    mapped = jax.jit(jax.vmap(lambda *a: gradients(dense, *a), (x_axis, 0, 0)))(x, kernels, biases)
    for i in range(3):
        member = gradients(flax_dense, xs[i] if x_axis == 0 else x, kernels[i], biases[i])
        chex.assert_trees_all_close([m[i] for m in mapped], list(member), rtol=1e-5, atol=1e-5)


def test_descent_in_a_scan_equals_flax() -> None:
    x, *parameters = case()

    def descend(layer, parameters: list[jax.Array]) -> list[jax.Array]:
        def step(parameters, _):
            _, *slopes = gradients(layer, x, *parameters)
            return [p - 0.001 * g for p, g in zip(parameters, slopes, strict=True)], None

        return jax.jit(lambda p: jax.lax.scan(step, p, length=5)[0])(parameters)

    ours, flax = (descend(layer, parameters) for layer in (dense, flax_dense))
    chex.assert_trees_all_close(ours, flax, rtol=1e-4, atol=1e-4)


@pytest.mark.devices
def test_under_shard_map_gradients_of_shared_parameters_are_summed() -> None:
    arguments = case()
    mesh = jax.make_mesh((4,), ("data",), axis_types=(AxisType.Auto,))
    data, shared = PartitionSpec("data"), PartitionSpec()
    sharded = jax.shard_map(
        lambda *a: gradients(dense, *a),
        mesh=mesh,
        in_specs=(data, shared, shared),
        out_specs=(data, shared, shared),
    )
    expected = gradients(flax_dense, *arguments)
    chex.assert_trees_all_close(jax.jit(sharded)(*arguments), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.devices
def test_a_sharded_batch_gives_the_same() -> None:
    x, kernel, bias = case()
    mesh = jax.make_mesh((4,), ("data",), axis_types=(AxisType.Auto,))
    split = jax.device_put(x, NamedSharding(mesh, PartitionSpec("data")))
    ours = jax.jit(lambda *a: gradients(dense, *a))(split, kernel, bias)
    chex.assert_trees_all_close(ours, gradients(flax_dense, x, kernel, bias), rtol=1e-5, atol=1e-5)
