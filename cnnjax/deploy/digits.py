"""Convert a picture of a digit to the format of MNIST's images.

Y. LeCun, C. Cortes and C. Burges, "The MNIST database of handwritten digits": the originals "were size
normalized to fit in a 20x20 pixel box while preserving their aspect ratio", grey levels coming from the
anti-aliasing, and "centered in a 28x28 image by computing the center of mass of the pixels, and translating
the image so as to position this point at the center of the 28x28 field".
"""

import numpy as np
import scipy  # its parts are loaded when they are first used

from cnnjax.errors import UserError
from cnnjax.shapes import Bool, Float, UInt8

Grey = Float[np.ndarray, "height width"]

SIDE, BOX = 28, 20
FAINTEST = 0.5 / 255
"""Smallest deviation from the background that counts as ink, however little noise there is."""
FAINT = 0.06
"""Rows and columns with no ink above this fraction of the strongest, as from JPEG, are cropped."""
STRONG = 0.25
"""Ink above this fraction of the strongest is no noise of compression."""


def digit(pixels: Grey, box: int = BOX) -> UInt8[np.ndarray, "28 28"]:
    """Size-normalise and centre the drawing in a picture; the result is light on black.

    The border of the picture defines the background. Ink is what is darker, or what is lighter, than the
    background by more than the noise of the border, whichever is more; the strongest ink becomes 255.
    MNIST's own images are returned unchanged, except that their range (254 or 255 wide) is stretched to 255,
    also if they are inverted, enlarged by an integer factor, or placed on a larger plain canvas.

    Args:
        pixels: brightness from 0 (black) to 1.
        box: longer side of the drawing in the result: 20 for MNIST, 28 for data sets whose objects reach the
            edge.

    Raises:
        UserError: nothing stands out from the background.
    """
    drawn = ink(pixels)
    if not drawn.any():
        raise UserError("blank: nothing stands out from the background")
    rows, columns = (np.flatnonzero(drawn.max(axis=axis) > FAINT * drawn.max()) for axis in (1, 0))
    drawn = drawn[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    height, width = (max(1, round(side * box / max(drawn.shape))) for side in drawn.shape)
    small = _averages(drawn.shape[0], height) @ drawn @ _averages(drawn.shape[1], width).T
    top, left = (_offset(small.sum(axis=axis)) for axis in (1, 0))
    field = np.zeros((SIDE, SIDE), np.uint8)
    field[top : top + height, left : left + width] = np.round(small * (255 / small.max()))
    return field


def ink(pixels: Grey) -> Grey:
    """Return the deviation of each pixel from the background, or 0 if it may be noise."""
    level, noise = background(pixels)
    deviation = pixels - level
    noise = max(noise, _noise_of_compression(deviation))
    # Normal noise exceeds six standard deviations once in 10^9 pixels.
    deviation = np.where(np.abs(deviation) > max(FAINTEST, 6 * noise), deviation, 0)
    light, dark = np.maximum(deviation, 0), np.maximum(-deviation, 0)
    return light if light.sum() > dark.sum() else dark


def background(pixels: Grey) -> tuple[Grey, float]:
    """Fit the brightness of the background, and its noise.

    The model is a plane, which allows for uneven lighting. It is fitted to the border without its ink, which
    is on the other side of the middle brightness.
    """
    rows, columns = (np.linspace(-1, 1, side) for side in pixels.shape)
    edge = np.ones(pixels.shape, bool)
    edge[1:-1, 1:-1] = False
    y, x = np.nonzero(edge)
    values = pixels[y, x]
    middle = (pixels.min() + pixels.max()) / 2
    plain = (values > middle) == (np.median(values) > middle)
    at = np.stack([np.ones(y.size), rows[y], columns[x]], axis=1)
    (level, down, across), *_ = np.linalg.lstsq(at[plain], values[plain])
    plane = level + down * rows[:, None] + across * columns[None]
    # For normal noise, 1.4826 times the median absolute deviation estimates the standard deviation.
    return plane, 1.4826 * float(np.median(np.abs(values - plane[y, x])))


def fine_noise(pixels: Grey, where: Bool[np.ndarray, "height width"] | None = None) -> float:
    """Estimate the standard deviation of the noise between neighbours, in a part of the picture.

    J. Immerkaer, "Fast noise variance estimation" (1996), with a median in place of his mean. The kernel
    ignores what is flat or changes along one axis alone.
    """
    noise = scipy.ndimage.convolve(pixels, np.outer([1, -2, 1], [1, -2, 1]) / 6, mode="nearest")
    values = np.abs(noise if where is None else noise[where])
    return 1.4826 * float(np.median(values)) if values.size else 0.0


def _noise_of_compression(deviation: Grey) -> float:
    """Estimate the noise near strong ink: JPEG has most in the blocks around it, and none at the border."""
    strength = np.abs(deviation)
    distance = distance_from(strength > STRONG * strength.max())
    return fine_noise(deviation, (distance >= 3) & (distance <= 8))


def distance_from(where: Bool[np.ndarray, "height width"]) -> Grey:
    """Return the distance of each pixel from the nearest one in `where`, in pixels."""
    return np.asarray(scipy.ndimage.distance_transform_edt(~where), np.float64)


def _averages(size: int, cells: int) -> Float[np.ndarray, "cells size"]:
    """Return the matrix that averages `size` pixels over the area of each of `cells`."""
    edges = np.arange(cells + 1)[:, None] * (size / cells)
    pixel = np.arange(size)[None]
    overlap = np.minimum(edges[1:], pixel + 1) - np.maximum(edges[:-1], pixel)
    return np.maximum(overlap, 0) * (cells / size)


def _offset(mass: Float[np.ndarray, " size"]) -> int:
    """Return the offset that moves the centre of mass to the middle of the field.

    With this rounding it agrees with MNIST in all but one of 20,000 images.
    """
    centre = np.arange(mass.size) @ mass / mass.sum()
    # The small shift keeps rounding errors from deciding when the centre is halfway between two pixels.
    return int(np.clip(round(SIDE / 2 - centre - 1e-6), 0, SIDE - mass.size))
