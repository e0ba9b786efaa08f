"""A convolution with its bias, activation and pooling as one layer, fast on the CPU.

``pool(activation(conv(x) + bias))`` needs the convolution at every offset of every pooling window.
The patches under one window overlap, so one larger patch holds them all, and the kernel placed at
each offset in turn makes the whole of it one product of matrices:

    values[offsets, Co, H', W', N] = placed[offsets, Co, taps] @ patches[taps, H', W', N]

followed by the reduction over offsets from ``cnnjax.pooling``. The images of the batch come last,
so that all that follows the product runs over whole rows of them instead of a few channels. A small
kernel on one channel is faster summed up tap by tap, in one loop with the pooling.
"""

from collections.abc import Callable
from functools import partial
from itertools import product
from math import prod
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.custom_derivatives import SymbolicZero

from cnnjax.errors import UserError
from cnnjax.pooling import POOLING, REDUCTIONS, PoolingName, first, maximum

Activation = Callable[[jax.Array], jax.Array]
Padding = Literal["SAME", "VALID"]
Offsets = tuple[tuple[int, int], ...]
Pair = tuple[jax.Array, jax.Array]

FEW_TAPS = 9
"""So many products a value, those of 3 x 3 on one channel, a CPU sums faster one by one; 25 as fast."""

MONOTONE: frozenset[Activation] = frozenset(
    {jax.nn.relu, jax.nn.leaky_relu, jax.nn.elu, jax.nn.sigmoid, jnp.tanh}
)
"""Activations that never fall: max(f(v)) = f(max(v)), so they can wait for the maximum."""


def conv_pool(
    x: jax.Array,
    kernel: jax.Array,
    bias: jax.Array,
    *,
    padding: Padding,
    activation: Activation,
    pooling: PoolingName,
    window: int = 2,
    stride: int = 1,
) -> jax.Array:
    """``pool(activation(conv(x) + bias))`` of ``x f[N, H, W, Ci]``, ``kernel f[kh, kw, Ci, Co]``.

    ``stride`` is the convolution's. Pooling windows do not overlap, what is left over at the far
    edges is dropped, and "none" ignores ``window``. Returns f[N, H', W', Co]: in value and gradient
    what ``flax.linen.Conv`` with these parameters, ``activation`` and ``flax.linen.max_pool`` or
    ``avg_pool`` give. Raises ``UserError`` where the image is too small for a single output.
    """
    window = 1 if pooling == "none" else window
    keeps_one = REDUCTIONS[pooling] is first
    offsets = ((0, 0),) if keeps_one else tuple(product(range(window), range(window)))
    size = rows, columns = _size(x, kernel, padding, window, stride)

    # Read in whole blocks of step x step pixels: few slices, of neighbouring values.
    step = window * stride
    high, wide = _blocks(kernel, offsets, stride, step)
    top, left = (before for before, _ in _pads(x, kernel, padding, stride))
    # Transposed before it is padded, and by a row where nothing else is: what a pad makes XLA keeps in
    # memory, instead of transposing the images anew for every slice.
    down, across = max(rows + high - 1, (top + x.shape[1]) // step + 1), columns + wide - 1
    image = _place(x.transpose(1, 2, 3, 0), top, left, down * step, across * step)
    image = image.reshape(down, step, across, step, *image.shape[2:])
    image = image.transpose(1, 3, 4, 0, 2, 5)  # [step, step, Ci, blocks, blocks, N]

    products = partial(_by_products, offsets=offsets, stride=stride, size=size)
    sums = partial(_by_sums, offsets=offsets, stride=stride, size=size)
    values = (
        jax.lax.platform_dependent(image, kernel, cpu=sums, default=products)
        # Not in bfloat16, which would round every partial sum.
        if prod(kernel.shape[:3]) <= FEW_TAPS and jnp.finfo(kernel.dtype).bits >= 32
        else products(image, kernel)
    )
    bias = bias[:, None, None, None]
    if pooling == "max":
        # A bias never changes which is largest, and only the winner's activation has a derivative.
        key = None if activation in MONOTONE else lambda v: activation(v + bias[None])
        pooled = activation(maximum(values, key) + bias)
    else:
        pooled = REDUCTIONS[pooling](activation(values + bias[None]))
    return pooled.transpose(3, 1, 2, 0)


def conv_pool_reference(
    x: jax.Array,
    kernel: jax.Array,
    bias: jax.Array,
    *,
    padding: Padding,
    activation: Activation,
    pooling: PoolingName,
    window: int = 2,
    stride: int = 1,
) -> jax.Array:
    """Compute ``conv_pool`` one step after the other by XLA's convolution and Flax's pooling."""
    _size(x, kernel, padding, 1 if pooling == "none" else window, stride)
    convolved = jax.lax.conv_general_dilated(
        x, kernel, (stride, stride), padding, dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    y, size = activation(convolved + bias[None, None, None]), (window, window)
    match pooling:
        case "max":
            return nn.max_pool(y, size, size)
        case "average":
            # Not nn.avg_pool, which mixes integers into floats and fails under strict promotion.
            return nn.pool(y, 0.0, jax.lax.add, size, size, "VALID") / window**2
        case "median" | "strided" | "none":
            return POOLING[pooling](y, window)


def _by_products(
    image: jax.Array, kernel: jax.Array, *, offsets: Offsets, stride: int, size: tuple[int, int]
) -> jax.Array:
    """``f[offsets, Co, H', W', N]``: the convolution at each offset, as one product of matrices."""
    (rows, columns), (step, _, channels, *_, n) = size, image.shape
    high, wide = _blocks(kernel, offsets, stride, step)
    # Row by row of blocks, or XLA copies all slices before it brings more than a few together.
    beside = [
        jnp.concatenate([image[..., i : i + rows, j : j + columns, :] for j in range(wide)])
        for i in range(high)
    ]
    patches = jnp.concatenate(jax.lax.optimization_barrier(beside))
    patches = patches.reshape(high * wide * step**2 * channels, rows, columns, n)

    placed = jnp.stack(
        [_place(kernel, stride * r, stride * c, high * step, wide * step) for r, c in offsets]
    ).reshape(len(offsets), high, step, wide, step, *kernel.shape[2:])
    placed = placed.transpose(0, 6, 1, 3, 2, 4, 5).reshape(len(offsets), kernel.shape[3], -1)

    # As matrices, XLA on the CPU copies no operand of the gradient. Elsewhere the axis of images must
    # stay one, or a batch that is sharded would be gathered.
    return jax.lax.platform_dependent(
        placed, patches, cpu=_matrix_product, default=partial(jnp.tensordot, axes=1)
    )


def _by_sums(
    image: jax.Array, kernel: jax.Array, *, offsets: Offsets, stride: int, size: tuple[int, int]
) -> jax.Array:
    """Compute `_by_products` tap by tap, which XLA fuses with the pooling: no value goes to memory."""
    products = partial(_by_products, offsets=offsets, stride=stride, size=size)
    step = len(image)

    @jax.custom_jvp
    def sums(image: jax.Array, kernel: jax.Array) -> jax.Array:
        def at(r: int, c: int) -> jax.Array:
            terms = []
            for u, v, channel in np.ndindex(*kernel.shape[:3]):
                (i, y), (j, z) = divmod(stride * r + u, step), divmod(stride * c + v, step)
                pixels = image[y, z, channel, i : i + size[0], j : j + size[1]]
                terms.append(kernel[u, v, channel][:, None, None, None] * pixels[None])
            return sum(terms[1:], start=terms[0])

        return jnp.stack([at(r, c) for r, c in offsets])

    def jvp(primals: Pair, tangents: tuple[Any, Any]) -> tuple[jax.Array, jax.Array]:
        # Products, for transposed these are products too, where each tap would read the whole gradient.
        pairs = (tangents[0], primals[1]), (primals[0], tangents[1])
        parts = [products(*pair) for pair in pairs if not any(isinstance(one, SymbolicZero) for one in pair)]
        return sums(*primals), sum(parts[1:], start=parts[0])

    sums.defjvp(jvp, symbolic_zeros=True)
    return sums(image, kernel)


def _blocks(kernel: jax.Array, offsets: Offsets, stride: int, step: int) -> tuple[int, int]:
    """Blocks of step x step pixels, down and across, that hold the patch under one pooling window."""
    far = stride * offsets[-1][0]
    return -(-(kernel.shape[0] + far) // step), -(-(kernel.shape[1] + far) // step)


def _matrix_product(a: jax.Array, b: jax.Array) -> jax.Array:
    product = a.reshape(-1, a.shape[-1]) @ b.reshape(b.shape[0], -1)
    return product.reshape(*a.shape[:-1], *b.shape[1:])


def _pads(x: jax.Array, kernel: jax.Array, padding: Padding, stride: int) -> tuple[tuple[int, int], ...]:
    return tuple(jax.lax.padtype_to_pads(x.shape[1:3], kernel.shape[:2], (stride, stride), padding))


def _size(x: jax.Array, kernel: jax.Array, padding: Padding, window: int, stride: int) -> tuple[int, int]:
    rows, columns = (
        ((image + before + after - patch) // stride + 1) // window
        for image, patch, (before, after) in zip(
            x.shape[1:3], kernel.shape[:2], _pads(x, kernel, padding, stride), strict=True
        )
    )
    if min(rows, columns) < 1:
        raise UserError(
            f"an image of {x.shape[1]} x {x.shape[2]} is too small for a {kernel.shape[0]} x "
            f"{kernel.shape[1]} {padding.lower()} convolution and {window} x {window} pooling: "
            "use larger images or fewer layers"
        )
    return rows, columns


def _place(x: jax.Array, top: int, left: int, height: int, width: int) -> jax.Array:
    """Put ``x f[H, W, ...]`` at (top, left) of f[height, width, ...] zeros, cut at the edges."""
    below, right = height - x.shape[0] - top, width - x.shape[1] - left
    others = ((0, 0, 0),) * (x.ndim - 2)
    return jax.lax.pad(x, jnp.zeros((), x.dtype), ((top, below, 0), (left, right, 0), *others))
