"""A depthwise convolution fast on the CPU: a sum of shifted images, each times a row of the kernel.

XLA's CPU compiler has no fast routine for a convolution of every channel by itself. Written as a sum over the
taps of the kernel, it is one loop over the images that the compiler vectorises over channels, and so are its
gradients.
"""

from functools import partial, reduce
from typing import Any

import jax
import jax.numpy as jnp

from cnnjax.shapes import Array, Float

Pads = tuple[tuple[int, int], ...]


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def depthwise(
    x: Float[Array, "n h w c"], kernel: Float[Array, "kh kw 1 c"], pads: Pads
) -> Float[Array, "n h2 w2 c"]:
    """Convolve each channel with its own kernel, with strides of 1.

    Args:
        x: images.
        kernel: one for each channel.
        pads: rows before and after, columns before and after; none is negative or exceeds the kernel.
    """
    return _sum_over_taps(_padded(x, pads), kernel)


def _forward(x: jax.Array, kernel: jax.Array, pads: Pads) -> tuple[jax.Array, Any]:
    return depthwise(x, kernel, pads), (x, kernel)


def _backward(pads: Pads, saved: tuple[jax.Array, jax.Array], g: jax.Array) -> tuple[jax.Array, jax.Array]:
    x, kernel = saved
    full = tuple(
        (taps - 1 - low, taps - 1 - high) for taps, (low, high) in zip(kernel.shape[:2], pads, strict=True)
    )
    dx = _sum_over_taps(_padded(g, full), kernel[::-1, ::-1])
    shifted = _shifted(_padded(x, pads), kernel.shape[:2])
    dkernel = jnp.stack([jnp.sum(image * g, axis=(0, 1, 2)) for image in shifted])
    return dx, dkernel.reshape(kernel.shape)


depthwise.defvjp(_forward, _backward)


def _sum_over_taps(padded: jax.Array, kernel: jax.Array) -> jax.Array:
    rows = kernel.reshape(-1, 1, 1, 1, kernel.shape[-1])
    pairs = zip(_shifted(padded, kernel.shape[:2]), rows, strict=True)
    return reduce(jnp.add, (image * row for image, row in pairs))


def _shifted(padded: jax.Array, taps: tuple[int, ...]) -> list[jax.Array]:
    """Return the part of the images under each tap, row by row of the kernel."""
    height, width = (size - k + 1 for size, k in zip(padded.shape[1:3], taps, strict=True))
    return [padded[:, u : u + height, v : v + width] for u in range(taps[0]) for v in range(taps[1])]


def _padded(x: jax.Array, pads: Pads) -> jax.Array:
    return jax.lax.pad(x, jnp.zeros((), x.dtype), ((0, 0, 0), *((*pad, 0) for pad in pads), (0, 0, 0)))
