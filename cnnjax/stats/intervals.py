"""Intervals for a mean (t) and for a probability (Wilson)."""

import math
from statistics import NormalDist

import numpy as np
import scipy  # its parts are loaded when they are first used

from cnnjax.shapes import Floats, Int

FEWEST = 4
"""Values that an interval for a mean needs. Of fewer it is so wide that it says nothing."""


def t_interval(
    values: Floats, axis: int = -1, *, level: float = 0.05
) -> tuple[Floats, Floats, Int[np.ndarray, "..."]]:
    """Return the mean over an axis, half the width of its t interval, and n; NaNs are ignored.

    The mean of no values and the half width below `FEWEST` are NaN. The interval covers the true mean with
    probability 1 - level.
    """
    table = np.moveaxis(np.asarray(values, float), axis, -1)
    present = np.isfinite(table)
    n = np.asarray(present.sum(axis=-1))
    filled = np.where(present, table, 0)
    mean = np.where(n > 0, filled.sum(axis=-1) / np.maximum(n, 1), np.nan)
    squares = (np.where(present, table - mean[..., None], 0) ** 2).sum(axis=-1)
    freedom = np.maximum(n - 1, 1)
    half = scipy.stats.t.ppf(1 - level / 2, freedom) * np.sqrt(squares / freedom / np.maximum(n, 1))
    return mean, np.where(n >= FEWEST, half, np.nan), n


def wilson_interval(successes: int, n: int) -> tuple[float, float]:
    """Return Wilson's 95% score interval (1927) for a probability, from `successes` in `n` trials."""
    if not n:
        return math.nan, math.nan
    # Not scipy's: loading scipy.stats would take a third of the time of a short training.
    z = NormalDist().inv_cdf(0.975)
    middle, half = successes + z**2 / 2, z * math.sqrt(successes * (n - successes) / n + z**2 / 4)
    low, high = (middle - half) / (n + z**2), (middle + half) / (n + z**2)
    return (low if successes else 0.0), (high if successes < n else 1.0)  # there the formula only rounds
