"""95% intervals for a mean (t, bootstrap), a probability, and the result of one more run."""

import math
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import stats

RESAMPLES = 9_999

Floats = npt.NDArray[np.floating[Any]]


def t_interval(values: npt.ArrayLike, axis: int = -1) -> tuple[Floats, Floats, npt.NDArray[np.integer[Any]]]:
    """Return the mean over an axis, half the width of its 95% t interval, and n; NaNs are ignored.

    The mean of no values and the half width below two values are NaN.
    """
    table = np.moveaxis(np.asarray(values, float), axis, -1)
    present = np.isfinite(table)
    n = present.sum(axis=-1)
    filled = np.where(present, table, 0)
    mean = np.where(n > 0, filled.sum(axis=-1) / np.maximum(n, 1), np.nan)
    squares = (np.where(present, table - mean[..., None], 0) ** 2).sum(axis=-1)
    freedom = np.maximum(n - 1, 1)
    half = stats.t.ppf(0.975, freedom) * np.sqrt(squares / freedom / np.maximum(n, 1))
    return mean, np.where(n > 1, half, np.nan), n


def bca_interval(differences: Floats, rng: np.random.Generator) -> tuple[float, float]:
    """Return the 95% BCa bootstrap interval (Efron 1987) for the mean of differences float[n].

    It is too narrow at small n: on normal data it covers about 86% at n = 6, 90% at n = 10 and 94% at n = 30.
    Equal differences give an interval of zero width; fewer than two give (NaN, NaN).
    """
    if len(differences) < 2:
        return math.nan, math.nan
    if np.ptp(differences) <= 1e-9 * np.abs(differences).max():
        return float(differences.mean()), float(differences.mean())
    interval = stats.bootstrap(
        (differences,), np.mean, method="BCa", n_resamples=RESAMPLES, rng=rng
    ).confidence_interval
    return float(interval.low), float(interval.high)


def wilson_interval(successes: int, n: int) -> tuple[float, float]:
    """Return Wilson's 95% score interval (1927) for a probability, from `successes` in `n` trials."""
    if not n:
        return math.nan, math.nan
    interval = stats.binomtest(successes, n).proportion_ci(method="wilson")
    return float(interval.low), float(interval.high)


def prediction_interval(values: npt.ArrayLike, most: float = math.inf) -> tuple[np.ndarray, np.ndarray]:
    """Return the 95% prediction interval (low, high) for one more run, from values float[n, ...], n >= 2.

    It is mean -+ t(0.975, n - 1) sd sqrt(1 + 1/n), clipped to [0, `most`]. For normal values it contains the
    next one with probability 0.95 (Hahn and Meeker 1991, chapter 4).
    """
    table = np.asarray(values, float)
    n = len(table)
    mean = table.mean(axis=0)
    half = stats.t.ppf(0.975, n - 1) * table.std(axis=0, ddof=1) * np.sqrt(1 + 1 / n)
    return np.maximum(mean - half, 0), np.minimum(mean + half, most)
