"""How many paired seeds show that a difference is too small to matter, and how far to trust a pilot's sd."""

import math

import numpy as np
import scipy

from cnnjax.errors import ArgumentError
from cnnjax.stats.families import ALPHA
from cnnjax.stats.power import MOST, found_among

QUANTILES = 1_000
CAUTION = 0.8


def equivalence_power(margin_in_sd: float, n: int, contrasts: int = 1, *, alpha: float = ALPHA) -> float:
    """Return the probability that n paired seeds show no difference to be within a margin.

    The true difference is 0, the test that of `Equivalence`, at Holm's first level. The mean m of n normal
    differences passes if |m| + t s / sqrt(n) is below the margin: averaged over the quantiles of s.

    Args:
        margin_in_sd: the margin, in standard deviations of the paired differences.
        n: paired seeds, at least 2.
        contrasts: number that are corrected together.
        alpha: family-wise level.
    """
    middles = (np.arange(QUANTILES) + 0.5) / QUANTILES
    sd = np.sqrt(scipy.stats.chi2.ppf(middles, n - 1) / (n - 1))
    room = math.sqrt(n) * margin_in_sd - scipy.stats.t.ppf(1 - alpha / contrasts, n - 1) * sd
    return float(np.mean(2 * scipy.stats.norm.cdf(np.maximum(room, 0)) - 1))


def seeds_for_equivalence(
    margin_in_sd: float, contrasts: int = 1, power: float = 0.8, *, alpha: float = ALPHA
) -> int:
    """Return how many paired seeds show with this power that there is no difference beyond a margin.

    Raises:
        ArgumentError: the margin is not above 0, there is no contrast, the power is not between 0 and 1, or
            `MOST` seeds are too few.
    """
    if not (margin_in_sd > 0 and contrasts >= 1 and 0 < power < 1):
        raise ArgumentError("give a margin above 0, a contrast or more and a power between 0 and 1")
    # No fewer pass even if the sd is known.
    level = float(scipy.stats.norm.ppf(1 - alpha / contrasts) + scipy.stats.norm.ppf((1 + power) / 2))
    least = max(2, math.floor(min(level / margin_in_sd, MOST) ** 2))
    numbers = range(least, MOST + 1)
    enough = (n for n in numbers if equivalence_power(margin_in_sd, n, contrasts, alpha=alpha) >= power)
    return found_among(enough, f"a margin of {margin_in_sd:g} sd")


def cautious_sd(sd: float, n: int) -> float:
    """Return the upper 80% confidence limit of a standard deviation that n values gave, as Browne 1995 does.

    A study planned with the estimate itself has too few seeds about half of the time.
    """
    return sd * math.sqrt((n - 1) / scipy.stats.chi2.ppf(1 - CAUTION, n - 1))
