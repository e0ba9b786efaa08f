"""How much a new image resembles a data set, by its distance to the nearest training image.

The measure is a conformal p-value (Vovk, Gammerman & Shafer 2005) with that distance as its score: the
fraction of validation images that are at least as far from the training images as the new one. For images
from the same source, whatever their distribution, P(p-value <= p) is at most p. For other images nothing is
guaranteed: textures and filled shapes are far from all digits, but meaningless thin strokes may not be.
"""

import numpy as np

from cnnjax.data import Dataset
from cnnjax.shapes import Float32, Float64, UInt8

UNLIKE = 0.01
"""Images with a p-value up to this are reported as unlike the data set; so is 1% of genuine ones."""
COMPARED = 1000
"""Number of validation images, evenly spaced, to compare with."""


Images = UInt8[np.ndarray, "n height width channels"]


def shares_as_far(images: Images, train: Dataset, val: Dataset) -> Float64[np.ndarray, " n"]:
    """Return a p-value for each image; lower means less like `train`."""
    compared = val.images[np.linspace(0, len(val.images) - 1, min(COMPARED, len(val.images))).astype(int)]
    reference = np.sort(distances(compared, train.images))
    as_far = len(reference) - np.searchsorted(reference, distances(images, train.images), side="left")
    return (1 + as_far) / (1 + len(reference))


def distances(
    images: Images, known: UInt8[np.ndarray, "known height width channels"], chunk: int = 10_000 * 784
) -> Float32[np.ndarray, " n"]:
    """Return the Euclidean distance of each image, in brightness (0 to 1), to the nearest `known`.

    `chunk` pixels of those are compared at a time.
    """
    rows = _rows(images)
    step = max(1, chunk // rows.shape[1])
    nearest = np.full(len(rows), np.inf, np.float32)
    for start in range(0, len(known), step):
        others = _rows(known[start : start + step])
        squares = np.sum(others**2, axis=1)[None] - 2 * rows @ others.T
        np.minimum(nearest, squares.min(axis=1), out=nearest)
    nearest += np.sum(rows**2, axis=1)
    return np.sqrt(nearest.clip(0))


def _rows(images: Images) -> Float32[np.ndarray, "n pixels"]:
    return images.reshape(len(images), -1).astype(np.float32) / np.float32(255)
