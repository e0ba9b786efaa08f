"""The spread of a measure when one source of randomness varies, and its share of the whole variance."""

import math
from typing import NamedTuple

import numpy as np
import scipy

from cnnjax.shapes import Float


class Spread(NamedTuple):
    """The standard deviation of n values, and its share in variance of that of all sources together.

    The 95% intervals are chi-squared's and F's, for normal values. All is NaN where either has fewer than
    two values.
    """

    n: int
    sd: float
    low: float
    high: float
    share: float
    share_low: float
    share_high: float

    @classmethod
    def of(cls, values: Float[np.ndarray, "n"], everything: Float[np.ndarray, "m"]) -> "Spread":
        """Compare values of one source with those of all sources; what is not finite is left out."""
        values, everything = (part[np.isfinite(part)] for part in (values, everything))
        n, m = len(values), len(everything)
        if min(n, m) < 2 or not np.ptp(everything):
            return cls(n, *[math.nan] * 6)
        sd, ratio = float(values.std(ddof=1)), float(values.var(ddof=1) / everything.var(ddof=1))
        most, least = (float(q) for q in scipy.stats.f.ppf((0.975, 0.025), n - 1, m - 1))
        return cls(n, sd, *sd_interval(sd, n), ratio, ratio / most, ratio / least)


def sd_interval(sd: float, n: int) -> tuple[float, float]:
    """Return the 95% interval of a normal sd from its estimate of n values (chi-squared); NaN below two."""
    if n < 2:
        return math.nan, math.nan
    low, high = scipy.stats.chi2.ppf((0.025, 0.975), n - 1)
    return sd * math.sqrt((n - 1) / high), sd * math.sqrt((n - 1) / low)
