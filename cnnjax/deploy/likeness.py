"""How like a data set a new image is, by its distance to the nearest training image.

A conformal p-value (Vovk, Gammerman & Shafer 2005), with that distance as the score: the share of validation
images that lie as far from the training images as the new one, or farther. Of images from the same source, at
most a share p gets a value of p or less, whatever their distribution. Of other things it promises nothing:
texture and filled shapes lie far from all digits, a few thin strokes of no meaning need not.
"""

import numpy as np
import numpy.typing as npt

from cnnjax.data import Dataset

UNLIKE = 0.01
"""A share so small means that an image is unlike the data set; one in a hundred true ones has it too."""
COMPARED = 1000
"""Validation images, evenly spread, that new images are compared with."""


def shares_as_far(images: npt.NDArray[np.uint8], train: Dataset, val: Dataset) -> npt.NDArray[np.float64]:
    """p-values f64[n] of uint8[n, height, width, channels]; the lower, the less like `train`."""
    compared = val.images[np.linspace(0, len(val.images) - 1, min(COMPARED, len(val.images))).astype(int)]
    usual = np.sort(distances(compared, train.images))
    as_far = len(usual) - np.searchsorted(usual, distances(images, train.images), side="left")
    return (1 + as_far) / (1 + len(usual))


def distances(
    images: npt.NDArray[np.uint8], known: npt.NDArray[np.uint8], chunk: int = 10_000
) -> npt.NDArray[np.float32]:
    """Euclidean distance f32[n], in brightness from 0 to 1, of each image to the nearest of `known`."""
    ours = _rows(images)
    nearest = np.full(len(ours), np.inf, np.float32)
    for start in range(0, len(known), chunk):
        theirs = _rows(known[start : start + chunk])
        squares = np.sum(theirs**2, axis=1)[None] - 2 * ours @ theirs.T
        np.minimum(nearest, squares.min(axis=1), out=nearest)
    nearest += np.sum(ours**2, axis=1)
    return np.sqrt(nearest.clip(0))


def _rows(images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    return images.reshape(len(images), -1).astype(np.float32) / np.float32(255)
