"""The convolution that is fast in loops is `jax.lax.conv_general_dilated`, in value and gradient."""

from functools import partial
from typing import Any

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cnnjax.kernels import convolution_in_loops
from cnnjax.kernels.convolution_in_loops import LAYOUT, conv_general_dilated, fast_in_loops
from cnnjax.kernels.parts import part_size

SMALL = st.integers(1, 3)
PADDINGS = st.sampled_from(["SAME", "VALID", ((1, 2), (0, 3)), ((0, 0), (2, 1)), ((-1, 1), (0, -1))])


@settings(max_examples=15)  # each is compiled
@given(
    groups=st.sampled_from([1, 2, 4]),
    channels=st.tuples(st.integers(1, 4), st.integers(1, 2)),
    kernel=st.tuples(SMALL, SMALL),
    strides=st.tuples(SMALL, SMALL),
    dilation=st.tuples(st.integers(1, 2), st.integers(1, 2)),
    size=st.tuples(st.integers(6, 9), st.integers(6, 9)),
    padding=PADDINGS,
)
def test_equals_lax(
    groups: int,
    channels: tuple[int, int],
    kernel: tuple[int, int],
    strides: tuple[int, int],
    dilation: tuple[int, int],
    size: tuple[int, int],
    padding: Any,
) -> None:
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=(2, *size, groups * channels[0])), jnp.float32)
    weights = jnp.asarray(rng.normal(size=(*kernel, channels[0], groups * channels[1])), jnp.float32)

    @jax.jit
    def results(x: jax.Array, weights: jax.Array) -> list[Any]:
        pairs = []
        for convolve in (conv_general_dilated, jax.lax.conv_general_dilated):
            layer = partial(
                convolve,
                window_strides=strides,
                padding=padding,
                rhs_dilation=dilation,
                dimension_numbers=LAYOUT,
                feature_group_count=groups,
            )
            y, back = jax.vjp(layer, x, weights)
            pairs.append((y, back(jnp.cos(jnp.arange(y.size, dtype=jnp.float32)).reshape(y.shape))))
        return pairs

    ours, lax = results(x, weights)
    chex.assert_trees_all_close(ours, lax, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("fitting", "parts"), [(8, 1), (4, 1), (3, 4), (2, 4), (1, 8), (0, 8)])
def test_the_gradient_of_a_kernel_is_a_sum_over_parts(
    monkeypatch: pytest.MonkeyPatch, fitting: int, parts: int
) -> None:
    x, weights = jax.random.normal(jax.random.key(0), (8, 6, 5, 4)), jnp.cos(jnp.arange(144.0))
    weights = weights.reshape(3, 3, 4, 4)
    monkeypatch.setattr(convolution_in_loops, "PART_BYTES", fitting * 2 * 6 * 5 * 4 * 4)

    @partial(jax.grad, argnums=(0, 1))
    def gradients(x: jax.Array, weights: jax.Array, convolve: Any) -> jax.Array:
        return jnp.sum(jnp.sin(convolve(x, weights, (1, 1), "SAME", dimension_numbers=LAYOUT)))

    compiled = jax.jit(partial(gradients, convolve=conv_general_dilated)).lower(x, weights)
    lax = gradients(x, weights, jax.lax.conv_general_dilated)
    chex.assert_trees_all_close(compiled.compile()(x, weights), lax, rtol=1e-4, atol=1e-4)
    assert ("while" in compiled.as_text()) == (parts > 1)
    assert parts == 1 or 8 // part_size(8, fitting) == parts


def test_no_images_have_a_gradient_of_zero() -> None:
    kernel = jnp.ones((3, 3, 4, 4))
    gradient = jax.grad(
        lambda k: jnp.sum(
            conv_general_dilated(jnp.ones((0, 6, 5, 4)), k, (1, 1), "SAME", dimension_numbers=LAYOUT)
        )
    )(kernel)
    chex.assert_trees_all_equal(gradient, jnp.zeros_like(kernel))


def test_a_part_divides_the_batch_and_is_not_much_smaller_than_it_may_be() -> None:
    sizes = {(128, 20): 16, (96, 20): 16, (97, 20): 97, (100, 20): 20, (12, 20): 12, (32, 1): 1, (32, 0): 1}
    assert {given: part_size(*given) for given in sizes} == sizes


CPU_FORMS = {
    "patches of few channels": ((3, 2, 3, 4), 1),
    "depthwise": ((3, 2, 1, 6), 6),
    "depthwise, 5 x 5": ((5, 5, 1, 3), 3),
    "depthwise, more taps": ((5, 6, 1, 2), 2),
    "depthwise, two outputs each": ((3, 3, 1, 4), 2),
}


@pytest.mark.parametrize("padding", ["SAME", ((-1, 0), (3, 0))])
@pytest.mark.parametrize("form", CPU_FORMS)
def test_forms_for_the_cpu_equal_lax(form: str, padding: Any) -> None:
    shape, groups = CPU_FORMS[form]
    x = jax.random.normal(jax.random.key(0), (2, 7, 6, shape[2] * groups))
    weights = jnp.cos(jnp.arange(float(np.prod(shape)))).reshape(shape)

    @jax.jit
    def results(x: jax.Array, weights: jax.Array) -> list[Any]:
        pairs = []
        for convolve in (conv_general_dilated, jax.lax.conv_general_dilated):
            y, back = jax.vjp(
                lambda *a, f=convolve: f(
                    *a, (1, 1), padding, dimension_numbers=LAYOUT, feature_group_count=groups
                ),
                x,
                weights,
            )
            pairs.append((y, back(jnp.cos(y))))
        return pairs

    ours, lax = results(x, weights)
    chex.assert_trees_all_close(ours, lax, rtol=1e-4, atol=1e-4)


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="forms for the CPU")
@pytest.mark.parametrize(
    ("shape", "groups", "dtype", "strides", "padding", "fast"),
    [
        ((3, 3, 1, 8), 1, "float32", 1, "SAME", True),
        ((3, 3, 3, 2), 1, "float32", 1, "VALID", True),
        ((2, 7, 2, 2), 1, "float32", 1, "SAME", False),
        ((3, 3, 1, 8), 1, "bfloat16", 1, "SAME", True),
        ((3, 3, 1, 8), 1, "float32", 2, "SAME", False),
        ((5, 5, 1, 6), 6, "float32", 1, "SAME", True),
        ((2, 13, 1, 6), 6, "float32", 1, "SAME", False),
        ((3, 3, 1, 6), 6, "float32", 1, ((0, 2), (2, 0)), True),
        ((3, 3, 1, 6), 6, "float32", 1, ((0, 3), (0, 0)), False),
        ((3, 3, 1, 6), 6, "float32", 1, ((0, 0), (-1, 0)), False),
        ((3, 3, 1, 12), 6, "float32", 1, "SAME", False),
        ((3, 3, 1, 6), 6, "bfloat16", 1, "SAME", False),
    ],
)
def test_what_is_slow_on_the_cpu_has_another_form_there(
    shape: tuple[int, ...], groups: int, dtype: str, strides: int, padding: Any, fast: bool
) -> None:
    x, kernel = jnp.zeros((2, 7, 6, shape[2] * groups), dtype), jnp.zeros(shape, dtype)

    def convolve(x: jax.Array, kernel: jax.Array) -> jax.Array:
        options = {"dimension_numbers": LAYOUT, "feature_group_count": groups}
        return conv_general_dilated(x, kernel, (strides, strides), padding, **options)

    assert ("convolution" not in jax.jit(convolve).lower(x, kernel).as_text()) == fast


@pytest.mark.parametrize("groups", [1, 4])
def test_a_value_in_bfloat16_is_rounded_once(groups: int) -> None:
    """Rounding each partial sum, as adding up tap by tap would, is off by many times as much."""
    x = jax.random.normal(jax.random.key(0), (2, 8, 7, groups), jnp.bfloat16)
    weights = jax.random.normal(jax.random.key(1), (3, 3, 1, 4), jnp.bfloat16)
    # Not compiled as a whole, where XLA may keep more bits than it is asked to.
    ours, exact = (
        conv_general_dilated(
            *each, (1, 1), "SAME", dimension_numbers=LAYOUT, feature_group_count=groups
        ).astype(jnp.float32)
        for each in ((x, weights), (x.astype(jnp.float32), weights.astype(jnp.float32)))
    )
    np.testing.assert_allclose(ours, exact, rtol=2.0**-8, atol=1e-5)


@pytest.mark.parametrize(
    ("numbers", "shape", "kernel"),
    [
        (("NWC", "WIO", "NWC"), (1, 6, 5), (3, 5, 2)),
        (("NCHW", "OIHW", "NCHW"), (1, 3, 6, 5), (2, 3, 3, 3)),
        (("NHWC", "OIHW", "NHWC"), (1, 6, 5, 3), (2, 3, 3, 3)),
    ],
)
def test_others_are_passed_on(
    numbers: tuple[str, str, str], shape: tuple[int, ...], kernel: tuple[int, ...]
) -> None:
    x, weights = jnp.cos(jnp.arange(90.0)[: np.prod(shape)]), jnp.sin(jnp.arange(float(np.prod(kernel))))
    ours, lax = (
        convolve(
            x.reshape(shape),
            weights.reshape(kernel),
            (1,) * (len(shape) - 2),
            "SAME",
            dimension_numbers=numbers,
        )
        for convolve in (conv_general_dilated, jax.lax.conv_general_dilated)
    )
    chex.assert_trees_all_equal(ours, lax)


class Net(nn.Module):
    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x = nn.relu(nn.Conv(4, (3, 3))(x))
        return nn.Conv(2, (1, 1), strides=2, conv_general_dilated=jax.lax.conv_general_dilated)(x)


def test_modules_use_it_without_being_changed() -> None:
    """Layers with a convolution of their own keep it; the compiled gradient has no slow form left."""
    net, x = Net(), jax.random.normal(jax.random.key(0), (3, 8, 8, 4))
    params = jax.jit(net.init)(jax.random.key(1), x)

    def loss(apply: Any, params: Any) -> jax.Array:
        return jnp.sum(apply(params, x) ** 2)

    plain, fast = (partial(loss, apply) for apply in (net.apply, fast_in_loops(net)))
    ours, flax = (jax.jit(jax.grad(f))(params) for f in (fast, plain))
    chex.assert_trees_all_close(ours, flax, rtol=1e-4, atol=1e-4)
    assert [str(jax.make_jaxpr(f)(params)).count("custom_vjp_call") for f in (plain, fast)] == [0, 1]
