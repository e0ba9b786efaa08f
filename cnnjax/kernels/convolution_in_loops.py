"""`jax.lax.conv_general_dilated` with gradients that are fast inside loops on the CPU.

XLA's CPU compiler has a fast routine for convolutions of the form `b01f_01io->b01f`, and a pass that rewrites
others into that form. The pass sees the entry computation alone. In the body of `lax.scan`, `lax.map` or any
other loop, the gradient with respect to the kernel stays `f01b_i01o->01bf` and is computed naively: 9 to 41
times as slow (JAX 0.10.2 and 0.12; jax issue 12868 is one report). Here both gradients are written in the
fast form from the start. The kernel's is a sum over parts of the batch: as one convolution, it takes twice as
long where the batch does not fit the caches.

For the few channels of a network's first layer, that routine itself is slow; there the convolution is the
product of patches that `cnnjax.kernels.convolution` has. A depthwise convolution is a sum over taps
(`cnnjax.kernels.depthwise`).
"""

from collections.abc import Callable, Sequence
from functools import partial
from math import prod
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from cnnjax.kernels.convolution import conv_pool
from cnnjax.kernels.depthwise import depthwise
from cnnjax.kernels.parts import part_size

LAYOUT = ("NHWC", "HWIO", "NHWC")
Pads = tuple[tuple[int, int], ...]
Pair = tuple[int, int]

FEW_TAPS = 27
"""Up to so many products a value (3 x 3 on three channels), patches are faster, gradients included."""
DEPTHWISE_TAPS = 25
"""Up to so many, the kernels of a depthwise convolution become a sum over their taps."""
PART_BYTES = 2**21
"""Of images and gradient, so much at a time is read for a kernel's gradient; all, if up to twice that."""


def conv_general_dilated(
    lhs: jax.Array,
    rhs: jax.Array,
    window_strides: Sequence[int],
    padding: str | Sequence[tuple[int, int]],
    lhs_dilation: Sequence[int] | None = None,
    rhs_dilation: Sequence[int] | None = None,
    dimension_numbers: Any = None,
    feature_group_count: int = 1,
    batch_group_count: int = 1,
    precision: Any = None,
    preferred_element_type: Any = None,
) -> jax.Array:
    """See `jax.lax.conv_general_dilated`, to which it is equal in value and gradient, to rounding.

    For `flax.linen.Conv(conv_general_dilated=...)`. Two-dimensional convolutions of f[n, h, w, in] with
    f[h, w, in / groups, out] have fast gradients: any strides, kernel dilation, padding and feature groups.
    Others are passed on as they are.
    """
    numbers = jax.lax.conv_dimension_numbers(lhs.shape, rhs.shape, dimension_numbers)
    plain = (
        lhs.ndim == 4
        and numbers == jax.lax.conv_dimension_numbers(lhs.shape, rhs.shape, LAYOUT)
        and all(d == 1 for d in lhs_dilation or ())
        and batch_group_count == 1
        and precision is None
        and preferred_element_type is None
    )
    if not plain:
        return jax.lax.conv_general_dilated(
            lhs,
            rhs,
            window_strides,
            padding,
            lhs_dilation,
            rhs_dilation,
            dimension_numbers,
            feature_group_count,
            batch_group_count,
            precision,
            preferred_element_type,
        )
    strides, dilation = _pair(window_strides), _pair(rhs_dilation or (1, 1))
    if isinstance(padding, str):
        taps = [(k - 1) * d + 1 for k, d in zip(rhs.shape[:2], dilation, strict=True)]
        padding = jax.lax.padtype_to_pads(lhs.shape[1:3], taps, strides, padding)
    pads = tuple((int(low), int(high)) for low, high in padding)
    settings = strides, pads, dilation, feature_group_count
    fast = _for_cpu(lhs, rhs, *settings)
    if fast is None:
        return _convolution(lhs, rhs, *settings)
    return jax.lax.platform_dependent(
        lhs, rhs, cpu=fast, default=lambda x, kernel: _convolution(x, kernel, *settings)
    )


def _for_cpu(
    x: jax.Array, kernel: jax.Array, strides: Pair, pads: Pads, dilation: Pair, groups: int
) -> Callable[[jax.Array, jax.Array], jax.Array] | None:
    """Return what is faster on the CPU than a convolution of these shapes, if anything is."""
    taps, channels = kernel.shape[:2], x.shape[3]
    floating = x.dtype == kernel.dtype and jnp.issubdtype(x.dtype, jnp.floating)
    if not floating or (*strides, *dilation) != (1, 1, 1, 1):
        return None
    if groups == 1 and prod(taps) * channels <= FEW_TAPS:
        return partial(_by_patches, pads=pads)
    inside = all(0 <= pad < k for k, each in zip(taps, pads, strict=True) for pad in each)
    # Not in bfloat16, which would round every partial sum.
    exact = jnp.finfo(x.dtype).bits >= 32
    if groups == channels == kernel.shape[3] and prod(taps) <= DEPTHWISE_TAPS and inside and exact:
        return partial(depthwise, pads=pads)
    return None


def fast_in_loops(model: nn.Module, axis_name: str | None = None) -> Callable[..., Any]:
    """Make `model.apply` one in which every `flax.linen.Conv` uses `conv_general_dilated` of this module.

    The model is not changed; layers that were given a convolution of their own keep it. Along a mapped axis
    `axis_name`, BatchNorm layers that name none take their statistics over all of it.
    """

    def use_ours(next_call: Any, args: Any, kwargs: Any, context: Any) -> Any:
        layer = context.module
        # A copy that Flax made for this call, frozen to everyone else.
        if isinstance(layer, nn.Conv) and layer.conv_general_dilated is None:
            object.__setattr__(layer, "conv_general_dilated", conv_general_dilated)
        if isinstance(layer, nn.BatchNorm) and layer.axis_name is None:
            object.__setattr__(layer, "axis_name", axis_name)
        return next_call(*args, **kwargs)

    def apply(*args: Any, **kwargs: Any) -> Any:
        with nn.intercept_methods(use_ours):
            return model.apply(*args, **kwargs)

    return apply


def _by_patches(x: jax.Array, kernel: jax.Array, *, pads: Pads) -> jax.Array:
    x = jax.lax.pad(x, jnp.zeros((), x.dtype), ((0, 0, 0), *((*pad, 0) for pad in pads), (0, 0, 0)))
    bias = jnp.zeros(kernel.shape[3], x.dtype)
    return conv_pool(x, kernel, bias, padding="VALID", activation=lambda values: values, pooling="none")


@partial(jax.custom_vjp, nondiff_argnums=(2, 3, 4, 5))
def _convolution(
    x: jax.Array, kernel: jax.Array, strides: Pair, pads: Pads, dilation: Pair, groups: int
) -> jax.Array:
    return jax.lax.conv_general_dilated(
        x,
        kernel,
        strides,
        pads,
        rhs_dilation=dilation,
        dimension_numbers=LAYOUT,
        feature_group_count=groups,
    )


def _forward(
    x: jax.Array, kernel: jax.Array, *settings: Any
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return _convolution(x, kernel, *settings), (x, kernel)


def _backward(
    strides: Pair, pads: Pads, dilation: Pair, groups: int, saved: tuple[jax.Array, jax.Array], g: jax.Array
) -> tuple[jax.Array, jax.Array]:
    x, kernel = saved
    sizes = zip(x.shape[1:3], kernel.shape[:2], g.shape[1:3], strides, dilation, pads, strict=True)
    x_pads, kernel_pads = [], []
    for size, taps, out, stride, dilated, (low, _) in sizes:
        reach, steps = (taps - 1) * dilated + 1, (out - 1) * stride + 1
        x_pads.append((reach - 1 - low, size + low - steps))
        kernel_pads.append((low, reach + steps - 1 - size - low))
    kh, kw, per_group, features = kernel.shape
    # The kernel flipped, its channels exchanged within each group.
    flipped = kernel[::-1, ::-1].reshape(kh, kw, per_group, groups, features // groups)
    flipped = flipped.transpose(0, 1, 4, 3, 2).reshape(kh, kw, features // groups, groups * per_group)
    dx = jax.lax.conv_general_dilated(
        g,
        flipped,
        (1, 1),
        x_pads,
        lhs_dilation=strides,
        rhs_dilation=dilation,
        dimension_numbers=LAYOUT,
        feature_group_count=groups,
    )

    def kernel_gradient(x: jax.Array, g: jax.Array) -> jax.Array:
        # Without the barrier XLA folds the transposes into the convolution, in the slow form again.
        images, gradient = jax.lax.optimization_barrier((x.transpose(3, 1, 2, 0), g.transpose(1, 2, 0, 3)))
        dkernel = jax.lax.conv_general_dilated(
            images,
            gradient,
            dilation,
            kernel_pads,
            rhs_dilation=strides,
            dimension_numbers=LAYOUT,
            batch_group_count=groups,
        )
        return dkernel.transpose(1, 2, 0, 3)

    def in_parts(x: jax.Array, g: jax.Array) -> jax.Array:
        parts = tuple(leaf.reshape(-1, size, *leaf.shape[1:]) for leaf in (x, g))
        return jnp.sum(jax.lax.map(lambda part: kernel_gradient(*part), parts), 0)

    size, whole = len(x), x.nbytes + g.nbytes
    # Not in bfloat16, which would round every part.
    if whole > 2 * PART_BYTES and jnp.finfo(x.dtype).bits >= 32:
        size = part_size(len(x), PART_BYTES * len(x) // whole)
    if size == len(x):
        return dx, kernel_gradient(x, g)
    return dx, jax.lax.platform_dependent(x, g, cpu=in_parts, default=kernel_gradient)


_convolution.defvjp(_forward, _backward)


def _pair(values: Sequence[int]) -> Pair:
    first, second = (int(v) for v in values)
    return first, second
