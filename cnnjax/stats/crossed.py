"""The difference of two arms' accuracies over seeds and images at once.

The same networks classify the same images, so the differences form a table of seeds and images, both of them
random. The model is that of two crossed random effects, d[s, i] = mean + seed[s] + image[i] + rest[s, i],
whose variances follow from mean squares (Searle, Casella and McCulloch 1992, chapter 4). Resampling rows and
columns, the pigeonhole bootstrap of Owen (2007), estimates the same variance and is biased upwards.
"""

import math
from typing import NamedTuple

import numpy as np
import scipy

from cnnjax.shapes import Floats
from cnnjax.stats.intervals import FEWEST


class Crossed(NamedTuple):
    """A mean difference with a 95% interval; leading axes of the differences are kept in every field."""

    difference: Floats
    low: Floats
    high: Floats
    seeds: Floats  # standard error of the difference that is due to seeds, on these images
    images: Floats  # and to images, for these seeds


def crossed(differences: Floats) -> Crossed:
    """Return the interval of the mean of float[..., seeds, images], for new seeds and new images.

    Its degrees of freedom are those of Satterthwaite (1946). Below `FEWEST` seeds or images it is NaN.
    """
    *_, seeds, images = differences.shape
    mean = differences.mean(axis=(-2, -1))
    if min(seeds, images) < FEWEST:
        nothing = np.full_like(mean, math.nan)
        return Crossed(mean, nothing, nothing, nothing, nothing)
    of_seed, of_image = differences.mean(axis=-1), differences.mean(axis=-2)
    rest = differences - of_seed[..., None] - of_image[..., None, :] + mean[..., None, None]
    cells, freedom = seeds * images, np.array([seeds - 1, images - 1, (seeds - 1) * (images - 1)])
    squares = np.stack(
        [
            images * ((of_seed - mean[..., None]) ** 2).sum(axis=-1),
            seeds * ((of_image - mean[..., None]) ** 2).sum(axis=-1),
            (rest**2).sum(axis=(-2, -1)),
        ],
        axis=-1,
    )
    by_seed, by_image, by_rest = np.moveaxis(squares / freedom / cells, -1, 0)
    # A variance is at least 0, so the sum is at least either part.
    variance = np.maximum(by_seed + by_image - by_rest, np.maximum(by_seed, by_image))
    parts = by_seed**2 / freedom[0] + by_image**2 / freedom[1] + by_rest**2 / freedom[2]
    effective = np.clip(variance**2 / np.maximum(parts, np.finfo(float).tiny), freedom[0], None)
    half = scipy.stats.t.ppf(0.975, effective) * np.sqrt(variance)
    return Crossed(mean, mean - half, mean + half, np.sqrt(by_seed), np.sqrt(by_image))
