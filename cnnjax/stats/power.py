"""How many paired seeds find a difference: the power of the sign-flip test with Holm's correction.

Effects are in standard deviations of the paired differences, which are simulated as normal. Of several
contrasts, the power is that of one at Holm's first level, alpha / contrasts: what it is when the other arms
do not differ. It is higher where they do. A primary contrast is tested alone, so its `contrasts` is 1.
"""

import math
from bisect import bisect_left
from collections.abc import Iterator
from functools import lru_cache

import numpy as np
import scipy

from cnnjax.errors import ArgumentError
from cnnjax.shapes import Float64
from cnnjax.stats.families import ALPHA, needed
from cnnjax.stats.signflip import bounds, subset_means

POWER = 0.8
TRIALS = 4_000
"""Simulated experiments: a power of 0.8 has a standard error of 0.6 points."""
CHUNK = 500
EXACT_UP_TO = 11
SUBSETS = 2**11 - 1
MOST = 1_000_000
"""Largest number of seeds that is an answer."""
SIMULATED_UP_TO = 24
"""Above it the power of the t test is used, which is higher by a point at most."""


def power(effect_in_sd: float, n: int, contrasts: int = 1, *, alpha: float = ALPHA) -> float:
    """Return the probability that n paired seeds show a true difference of this size to be significant.

    Args:
        effect_in_sd: the true difference, in standard deviations of the paired differences.
        n: paired seeds.
        contrasts: number that are corrected together.
        alpha: family-wise level.
    """
    effect, level = abs(effect_in_sd), alpha / contrasts
    if n > SIMULATED_UP_TO:
        return _t_power(effect, n, level)
    low, high = _bounds(n, level)
    return float(np.mean((low + effect > 0) | (high + effect < 0)))


def detectable(n: int, contrasts: int = 1, *, power: float = POWER, alpha: float = ALPHA) -> float:
    """Return the effect, in standard deviations, that n paired seeds find with this power; NaN if none."""
    level = alpha / contrasts
    if n > SIMULATED_UP_TO:
        # The noncentral t is close to a shifted normal distribution at this n.
        return float((scipy.stats.t.ppf(1 - level / 2, n - 1) + scipy.stats.norm.ppf(power)) / math.sqrt(n))
    effect = float(np.quantile(-_bounds(n, level)[0], power, method="inverted_cdf")) if n else math.inf
    return effect if math.isfinite(effect) else math.nan


def seeds_for(effect_in_sd: float, contrasts: int = 1, power: float = POWER, *, alpha: float = ALPHA) -> int:
    """Return how many paired seeds find a true difference of this size with this power.

    Raises:
        ArgumentError: the effect is not above 0, there is no contrast, the power is not between 0 and 1, or
            `MOST` seeds are too few.
    """
    if not effect_in_sd > 0:
        raise ArgumentError(f"an effect of {effect_in_sd:g} sd cannot be found; give one above 0")
    if contrasts < 1:
        raise ArgumentError(f"{contrasts} contrasts cannot be tested; give at least 1")
    if not 0 < power < 1:
        raise ArgumentError(f"the power {power:g} must lie between 0 and 1")

    def enough(n: int) -> bool:
        return _power(effect_in_sd, n, contrasts, alpha=alpha) >= power

    # The t test, whose power grows with n and is a little higher, leads to the neighbourhood.
    level, numbers = alpha / contrasts, range(needed([0] * contrasts, alpha=alpha), MOST + 1)
    first = bisect_left(numbers, power, key=lambda n: _t_power(effect_in_sd, n, level))
    return found_among(filter(enough, numbers[first:]), f"an effect of {effect_in_sd:g} sd")


def found_among(numbers: Iterator[int], what: str) -> int:
    """Return the first of the numbers of seeds that suffice; raise `ArgumentError` if there is none."""
    for n in numbers:
        return n
    raise ArgumentError(f"{what} needs more than {MOST:,} paired seeds; give a larger one")


_power = power


def _t_power(effect: float, n: int, level: float) -> float:
    critical = scipy.stats.t.ppf(1 - level / 2, n - 1)
    return float(scipy.stats.nct.sf(critical, n - 1, effect * math.sqrt(n)))


@lru_cache
def _bounds(n: int, level: float) -> tuple[Float64[np.ndarray, "trials"], Float64[np.ndarray, "trials"]]:
    """Return the test's intervals for simulated differences of mean 0 and sd 1.

    With a true difference they are shifted by it, so that they hold the power for every effect.
    """
    rng, ends = np.random.default_rng(n), []
    for _ in range(TRIALS // CHUNK):
        noise = rng.normal(size=(CHUNK, n))
        ends.append(bounds(subset_means(noise, rng, exact_up_to=EXACT_UP_TO, subsets=SUBSETS), level))
    low, high = (np.concatenate(side) for side in zip(*ends, strict=True))
    return low, high
