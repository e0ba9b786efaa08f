"""Augmentation: small functions that make an `augment` for `cnnjax.task.Task`.

    Task(model, optimizer, augment=chain(shift(2), rotation(10.0), cutout(8)))

An augment is a pure function (key of the example, image) -> image of the same shape and dtype. What comes in
from outside an image is black, 0.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from cnnjax.errors import ArgumentError
from cnnjax.shapes import Array, Key, Scalar, UInt8

Image = UInt8[Array, "h w c"]
Augment = Callable[[Key[Array, ""], Image], Image]


def shift(pixels: int) -> Augment:
    """Move an image down and across, each by a whole number drawn from -pixels to pixels.

    Raises:
        ArgumentError: `pixels` is negative.
    """
    _require_at_least(0, "shift", pixels)

    def augment(key: Key[Array, ""], image: Image) -> Image:
        padded = jnp.pad(image, ((pixels, pixels), (pixels, pixels), (0, 0)))
        top, left = jax.random.randint(key, (2,), 0, 2 * pixels + 1)
        return jax.lax.dynamic_slice(padded, (top, left, 0), image.shape)

    return augment


def crop(padding: int) -> Augment:
    """Pad an image on all sides and cut a window of its size out of it, as He et al. (2016) do for CIFAR-10.

    The same function as `shift`, under the name that papers use.

    Raises:
        ArgumentError: `padding` is negative.
    """
    _require_at_least(0, "crop", padding)
    return shift(padding)


def rotate(image: Image, degrees: Scalar) -> Image:
    """Turn an image about its centre, counter-clockwise as `np.rot90`, with bilinear interpolation."""
    height, width, _ = image.shape
    angle = jnp.deg2rad(jnp.asarray(degrees, jnp.float32))
    down, across = (jnp.arange(size, dtype=jnp.float32) - (size - 1) / 2 for size in (height, width))
    rows = jnp.cos(angle) * down[:, None] + jnp.sin(angle) * across[None, :] + (height - 1) / 2
    columns = jnp.cos(angle) * across[None, :] - jnp.sin(angle) * down[:, None] + (width - 1) / 2

    def channel(pixels: Array) -> Array:
        return jax.scipy.ndimage.map_coordinates(pixels, [rows, columns], order=1)

    # Values stay between those of the pixels around, so that nothing wraps.
    turned = jax.vmap(channel, in_axes=-1, out_axes=-1)(image.astype(jnp.float32))
    return jnp.round(turned).astype(image.dtype)


def rotation(degrees: float) -> Augment:
    """Turn an image by an angle drawn uniformly from -degrees to degrees, see `rotate`.

    Raises:
        ArgumentError: `degrees` is negative.
    """
    _require_at_least(0, "rotation", degrees)
    return lambda key, image: rotate(image, jax.random.uniform(key, minval=-degrees, maxval=degrees))


def cutout(size: int) -> Augment:
    """Blacken a square of size x size pixels (DeVries & Taylor 2017).

    Its centre is drawn from all pixels, so that a part of the square may lie outside the image.

    Raises:
        ArgumentError: `size` is below 1.
    """
    _require_at_least(1, "cutout", size)

    def augment(key: Key[Array, ""], image: Image) -> Image:
        corner = jax.random.randint(key, (2,), 0, jnp.asarray(image.shape[:2])) - size // 2
        down, across = (jnp.arange(side) - start for side, start in zip(image.shape, corner, strict=False))
        inside = ((down >= 0) & (down < size))[:, None] & ((across >= 0) & (across < size))[None, :]
        return jnp.where(inside[:, :, None], jnp.zeros_like(image), image)

    return augment


def flip() -> Augment:
    """Mirror left and right with probability 1/2; not for digits or letters."""
    return lambda key, image: jnp.where(jax.random.bernoulli(key), image[:, ::-1], image)


def chain(*augments: Augment) -> Augment:
    """Apply one augment after the other, each with a key of its own."""

    def augment(key: Key[Array, ""], image: Image) -> Image:
        for one, own in zip(augments, jax.random.split(key, len(augments)), strict=True):
            image = one(own, image)
        return image

    return augment


def _require_at_least(least: int, name: str, value: float) -> None:
    if not value >= least:
        raise ArgumentError(f"{name}({value}) must be at least {least}")
