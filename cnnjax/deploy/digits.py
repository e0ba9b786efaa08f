"""A picture of a digit, brought into the form of MNIST's images.

Y. LeCun, C. Cortes and C. Burges, "The MNIST database of handwritten digits": the originals "were size
normalized to fit in a 20x20 pixel box while preserving their aspect ratio", grey levels coming from the
anti-aliasing, and "centered in a 28x28 image by computing the center of mass of the pixels, and translating
the image so as to position this point at the center of the 28x28 field".
"""

import numpy as np
import numpy.typing as npt

from cnnjax.errors import UserError

Floats = npt.NDArray[np.floating]

SIDE, BOX = 28, 20
FAINTEST = 0.5 / 255
"""What departs from the paper by no more is paper, however little noise there is."""
FAINT = 0.06
"""Rows and columns with no ink above this share of the strongest do not count: JPEG leaves such."""


def digit(pixels: Floats, box: int = BOX) -> npt.NDArray[np.uint8]:
    """Size-normalise and centre what is drawn in a picture, light on black.

    The paper is as bright as the picture's border. Ink is what departs from it, to the side (darker or
    lighter) with more of it, by more than the noise of the border; the strongest becomes 255.
    An image of MNIST's comes back as it was but for the stretching of its range, which is 254 or 255 already,
    whether it is inverted, enlarged by whole factors, or put anywhere on a larger plain canvas.

    Args:
        pixels: f[height, width], brightness from 0 (black) to 1.
        box: longer side of what is drawn, in pixels of the result: 20 for MNIST; 28 for the data sets whose
            objects reach the edge.

    Returns:
        uint8[28, 28].

    Raises:
        UserError: nothing stands out.
    """
    ink = _ink(pixels)
    if not ink.any():
        raise UserError("blank: nothing stands out from the background")
    rows, columns = (np.flatnonzero(ink.max(axis=axis) > FAINT * ink.max()) for axis in (1, 0))
    ink = ink[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    height, width = (max(1, round(side * box / max(ink.shape))) for side in ink.shape)
    small = _averages(ink.shape[0], height) @ ink @ _averages(ink.shape[1], width).T
    top, left = (_offset(small.sum(axis=axis)) for axis in (1, 0))
    field = np.zeros((SIDE, SIDE), np.uint8)
    field[top : top + height, left : left + width] = np.round(small * (255 / small.max()))
    return field


def _ink(pixels: Floats) -> Floats:
    """f[height, width]: how far each pixel departs from the paper, 0 where that may be noise."""
    paper, noise = _paper(pixels)
    # Six standard deviations, which normal noise passes once in 10^9 pixels.
    departs = np.where(np.abs(pixels - paper) > max(FAINTEST, 6 * noise), pixels - paper, 0)
    light, dark = np.maximum(departs, 0), np.maximum(-departs, 0)
    return light if light.sum() > dark.sum() else dark


def _paper(pixels: Floats) -> tuple[Floats, float]:
    """f[height, width], the brightness of the paper, a plane because light falls unevenly; and its noise.

    Fitted to the border, without what is drawn there: that lies on the other side of the middle brightness.
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
    # 1.4826 times the median absolute deviation is the standard deviation, if the noise is normal.
    return plane, 1.4826 * float(np.median(np.abs(values - plane[y, x])))


def _averages(size: int, cells: int) -> Floats:
    """f[cells, size]: the matrix that averages `size` pixels over the area that each of `cells` covers."""
    edges = np.arange(cells + 1)[:, None] * (size / cells)
    place = np.arange(size)[None]
    overlap = np.minimum(edges[1:], place + 1) - np.maximum(edges[:-1], place)
    return np.maximum(overlap, 0) * (cells / size)


def _offset(mass: Floats) -> int:
    """Where a row of so much mass in each pixel begins, so that its centre of mass comes to the middle.

    Rounded so, it is where MNIST has it in all but one of 20,000 images.
    """
    centre = np.arange(mass.size) @ mass / mass.sum()
    # A little less, so that where the middle lies between two pixels it is not rounding errors that decide.
    return int(np.clip(round(SIDE / 2 - centre - 1e-6), 0, SIDE - mass.size))
