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

import jax
import jax.numpy as jnp
import numpy as np
from jax.custom_derivatives import SymbolicZero

from cnnjax.errors import UserError
from cnnjax.kernels.pooling import REDUCTIONS, maximum
from cnnjax.pooling import PoolingName, first
from cnnjax.shapes import Array, Float

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

ELEMENTWISE: tuple[Activation, ...] = (
    *MONOTONE,
    *(jax.nn.silu, jax.nn.gelu, jax.nn.celu, jax.nn.selu, jax.nn.relu6, jax.nn.softplus, jax.nn.soft_sign),
    *(jax.nn.log_sigmoid, jax.nn.hard_sigmoid, jax.nn.hard_silu, jax.nn.hard_tanh),
)
"""Activations that are known to be elementwise, and so do not see in which order the axes are."""


def is_elementwise(activation: Activation) -> bool:
    """Tell whether `conv_pool` may be used with an activation: it is one of `ELEMENTWISE` itself."""
    # Not `in`: a module that holds parameters has no hash, and other objects may compare as they like.
    return any(activation is known for known in ELEMENTWISE)


def conv_pool(
    x: Float[Array, "n h w in"],
    kernel: Float[Array, "kh kw in out"],
    bias: Float[Array, " out"],
    *,
    padding: Padding,
    activation: Activation,
    pooling: PoolingName,
    window: int = 2,
) -> Float[Array, "n h2 w2 out"]:
    """Compute pool(activation(conv(x) + bias)), in value and gradient as Flax's layers one after the other.

    Pooling windows do not overlap, what is left over at the far edges is dropped, and "none" ignores
    `window`.

    Args:
        x: images.
        kernel: of the convolution, whose stride is 1.
        bias: of the convolution.
        padding: "SAME" or "VALID".
        activation: elementwise, see `is_elementwise`: it sees the axes in another order.
        pooling: a name in `cnnjax.pooling.POOLING`.
        window: height and width of a pooling window.

    Raises:
        UserError: the image is too small for a single output.
    """
    window = 1 if pooling == "none" else window
    keeps_one = REDUCTIONS[pooling] is first
    offsets = ((0, 0),) if keeps_one else tuple(product(range(window), range(window)))
    size = rows, columns = output_size(x.shape, kernel.shape, padding, window)

    # Read in whole blocks of step x step pixels: few slices, of neighbouring values.
    step = window
    high, wide = _blocks(kernel, offsets, step)
    top, left = (before for before, _ in _pads(x.shape, kernel.shape, padding))
    # Transposed before it is padded, and by a row where nothing else is: what a pad makes XLA keeps in
    # memory, instead of transposing the images anew for every slice.
    down, across = max(rows + high - 1, (top + x.shape[1]) // step + 1), columns + wide - 1
    image = _place(x.transpose(1, 2, 3, 0), top, left, down * step, across * step)
    image = image.reshape(down, step, across, step, *image.shape[2:])
    image = image.transpose(1, 3, 4, 0, 2, 5)  # [step, step, Ci, blocks, blocks, N]

    products = partial(_by_products, offsets=offsets, size=size)
    sums = partial(_by_sums, offsets=offsets, size=size)
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


def _by_products(
    image: jax.Array, kernel: jax.Array, *, offsets: Offsets, size: tuple[int, int]
) -> jax.Array:
    """``f[offsets, Co, H', W', N]``: the convolution at each offset, as one product of matrices."""
    (rows, columns), (step, _, channels, *_, n) = size, image.shape
    high, wide = _blocks(kernel, offsets, step)
    # Row by row of blocks, or XLA copies all slices before it brings more than a few together.
    beside = [
        jnp.concatenate([image[..., i : i + rows, j : j + columns, :] for j in range(wide)])
        for i in range(high)
    ]
    patches = jnp.concatenate(jax.lax.optimization_barrier(beside))
    patches = patches.reshape(high * wide * step**2 * channels, rows, columns, n)

    placed = jnp.stack([_place(kernel, r, c, high * step, wide * step) for r, c in offsets]).reshape(
        len(offsets), high, step, wide, step, *kernel.shape[2:]
    )
    placed = placed.transpose(0, 6, 1, 3, 2, 4, 5).reshape(len(offsets), kernel.shape[3], -1)

    # As matrices, XLA on the CPU copies no operand of the gradient. Elsewhere the axis of images must
    # stay one, or a batch that is sharded would be gathered.
    return jax.lax.platform_dependent(
        placed, patches, cpu=_matrix_product, default=partial(jnp.tensordot, axes=1)
    )


def _by_sums(image: jax.Array, kernel: jax.Array, *, offsets: Offsets, size: tuple[int, int]) -> jax.Array:
    """Compute `_by_products` tap by tap, which XLA fuses with the pooling: no value goes to memory."""
    products = partial(_by_products, offsets=offsets, size=size)
    step = len(image)

    @jax.custom_jvp
    def sums(image: jax.Array, kernel: jax.Array) -> jax.Array:
        def at(r: int, c: int) -> jax.Array:
            terms = []
            for u, v, channel in np.ndindex(*kernel.shape[:3]):
                (i, y), (j, z) = divmod(r + u, step), divmod(c + v, step)
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


def output_size(
    image: tuple[int, ...], kernel: tuple[int, ...], padding: Padding, window: int
) -> tuple[int, int]:
    """Height and width after convolution and pooling of an image f[n, h, w, in].

    Raises:
        UserError: they would be zero.
    """
    rows, columns = (
        (size + before + after - taps + 1) // window
        for size, taps, (before, after) in zip(
            image[1:3], kernel[:2], _pads(image, kernel, padding), strict=True
        )
    )
    if min(rows, columns) < 1:
        raise UserError(
            f"an image of {image[1]} x {image[2]} is too small for a {kernel[0]} x {kernel[1]} "
            f"{padding.lower()} convolution and {window} x {window} pooling: use larger images or fewer "
            "layers"
        )
    return rows, columns


def _pads(image: tuple[int, ...], kernel: tuple[int, ...], padding: Padding) -> tuple[tuple[int, int], ...]:
    return tuple(jax.lax.padtype_to_pads(image[1:3], kernel[:2], (1, 1), padding))


def _blocks(kernel: jax.Array, offsets: Offsets, step: int) -> tuple[int, int]:
    """Blocks of step x step pixels, down and across, that hold the patch under one pooling window."""
    far = offsets[-1][0]
    return -(-(kernel.shape[0] + far) // step), -(-(kernel.shape[1] + far) // step)


def _matrix_product(a: jax.Array, b: jax.Array) -> jax.Array:
    product = a.reshape(-1, a.shape[-1]) @ b.reshape(b.shape[0], -1)
    return product.reshape(*a.shape[:-1], *b.shape[1:])


def _place(x: jax.Array, top: int, left: int, height: int, width: int) -> jax.Array:
    """Put ``x f[H, W, ...]`` at (top, left) of f[height, width, ...] zeros, cut at the edges."""
    below, right = height - x.shape[0] - top, width - x.shape[1] - left
    others = ((0, 0, 0),) * (x.ndim - 2)
    return jax.lax.pad(x, jnp.zeros((), x.dtype), ((top, below, 0), (left, right, 0), *others))
