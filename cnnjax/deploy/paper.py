"""Leave out what else is on the paper around a digit: ruled lines, specks, other drawings."""

from typing import NamedTuple

import numpy as np
import scipy  # its parts are loaded when they are first used

from cnnjax.deploy import digits
from cnnjax.deploy.digits import Grey
from cnnjax.shapes import Bool, Int32

PART = 0.01
"""Separate shapes with less of the main shape's ink are specks, wherever they are."""
SPECK = 0.05
"""So are groups of shapes apart from it with less of its ink; groups with more are other drawings."""
GAP = 0.15
"""Shapes at most this far from it, as a share of its longer side, are parts of the same digit."""
WIDEST = 1.3
"""Width of a digit at most, as a share of its height."""
EIGHT = np.ones((3, 3), bool)
"""Pixels that touch at a corner are connected."""


class Cleaned(NamedTuple):
    """A picture of one digit."""

    pixels: Grey
    remarks: tuple[str, ...] = ()  # what was left out, and what makes the picture doubtful


def cleaned(pixels: Grey) -> Cleaned:
    """Replace everything but the digit, which is the largest drawing, by the background.

    Lines are left out if they are straight and cross the whole picture along its rows or columns; where they
    cross the digit, it is interpolated.

    Args:
        pixels: brightness from 0 (black) to 1.
    """
    plain = _without_lines(_without_lines(pixels).T).T
    remarks = [] if np.array_equal(plain, pixels) else ["ruled lines were left out"]
    ink = digits.ink(plain)
    if not ink.any():
        return Cleaned(plain, tuple(remarks))
    digit, specks, others = _parted(ink)
    if specks:
        remarks.append(f"{specks} speck{'s' * (specks > 1)} left out")
    if others:
        remarks.append("there are other drawings beside the one that is read; crop the picture to one digit")
    rows, columns = np.nonzero(digit)
    if np.ptp(columns) + 1 > WIDEST * (np.ptp(rows) + 1):
        remarks.append("the drawing is wider than digits are; crop the picture to one digit")
    if digit[[0, -1]].any() or digit[:, [0, -1]].any():
        remarks.append("the drawing reaches the edge of the picture, where parts of it may be missing")
    background, _ = digits.background(plain)
    return Cleaned(np.where((ink == 0) | digit, plain, background), tuple(remarks))


def _parted(ink: Grey) -> tuple[Bool[np.ndarray, "height width"], int, int]:
    """Return where the digit is, and the numbers of specks and of other drawings."""
    shapes, number = _labelled(ink > digits.FAINT * ink.max())
    mass = scipy.ndimage.sum_labels(ink, shapes, range(number + 1))
    mass[0] = 0
    main = np.argmax(mass)
    longer = max(side.stop - side.start for side in scipy.ndimage.find_objects(shapes)[main - 1])
    parts = (mass >= PART * mass[main])[shapes]
    near = digits.distance_from(parts) <= GAP * longer / 2
    groups, number = _labelled(near)
    of_group = scipy.ndimage.sum_labels(np.where(parts, ink, 0), groups, range(number + 1))
    drawn = groups[shapes == main][0]
    small = of_group < SPECK * of_group[drawn]
    small[0] = False
    specks = np.sum(mass[1:] < PART * mass[main]) + np.sum(small)
    # With the faint ink around it.
    digit = scipy.ndimage.binary_propagation(
        parts & (groups == drawn), EIGHT, mask=(ink > 0) & (parts | (shapes == 0))
    )
    return digit, int(specks), number - 1 - int(np.sum(small))


def _labelled(where: Bool[np.ndarray, "height width"]) -> tuple[Int32[np.ndarray, "height width"], int]:
    """Number the connected parts from 1; the rest is 0. Also return how many there are."""
    labels = np.zeros(where.shape, np.int32)
    return labels, int(scipy.ndimage.label(where, EIGHT, output=labels))


def _without_lines(pixels: Grey) -> Grey:
    """Interpolate the rows that differ from those around them from edge to edge, in the same direction."""
    height = len(pixels)
    level = scipy.ndimage.median_filter(np.median(pixels, axis=1), 2 * (height // 20) + 1, mode="nearest")
    apart = pixels - level[:, None]
    least = max(2 * digits.FAINTEST, 3 * digits.fine_noise(pixels))
    apart = np.stack([-apart, apart]) > least  # darker, lighter
    lines = (apart.mean(axis=2) > 0.9) & apart[:, :, 0] & apart[:, :, -1]
    lines = lines.any(axis=0)
    if not 0 < lines.sum() < height / 4:
        return pixels
    rows = np.arange(height)
    kept = rows[np.logical_not(scipy.ndimage.binary_dilation(lines))]
    return np.apply_along_axis(lambda column: np.interp(rows, kept, column[kept]), 0, pixels)
