"""The sign-flip test of paired differences, and the confidence interval that inverts it.

If the differences are symmetric about theta, every pattern of signs of `differences - theta` is equally
likely. Flipping the signs of a subset lowers the sum if and only if the mean of the subset exceeds theta. The
means of all non-empty subsets therefore decide the test of every theta (Hartigan 1969, "typical values"), and
p and interval come from the same numbers: the interval excludes 0 if and only if p is at most its level.

The test is exact under symmetry only. For exponential differences of mean zero, about 6% of tests at n = 6
and 9 to 10% at n = 8 to 10 have p <= 0.05.
"""

import math

import numpy as np

from cnnjax.shapes import Float, Floats

EXACT_UP_TO = 20
SUBSETS = 2**17 - 1
"""Random subsets above `EXACT_UP_TO` differences; with the observed signs they are a power of two, as all
subsets are, so that no p can lie within rounding of a level."""


def subset_means(
    differences: Float[np.ndarray, "*sets n"],
    rng: np.random.Generator,
    *,
    exact_up_to: int = EXACT_UP_TO,
    subsets: int = SUBSETS,
) -> Float[np.ndarray, "*sets subsets"]:
    """Return the mean of every non-empty subset of the differences; of random ones above `exact_up_to`.

    Random subsets give an exact test too: it is one of the observed signs and `subsets` others (Phipson and
    Smyth 2010). All sets of differences share the random subsets.
    """
    n = differences.shape[-1]
    if n <= exact_up_to:
        sums, sizes = np.zeros((*differences.shape[:-1], 1)), np.zeros(1)
        for i in range(n):
            sums = np.concatenate([sums, sums + differences[..., i, None]], axis=-1)
            sizes = np.concatenate([sizes, sizes + 1])
        sums, sizes = sums[..., 1:], sizes[1:]
    else:
        sums, sizes = np.zeros((*differences.shape[:-1], subsets)), np.zeros(subsets)
        for part in np.array_split(differences, -(-n // 32), axis=-1):
            chosen = (rng.random((part.shape[-1], subsets)) < 0.5).astype(float)
            sums, sizes = sums + part @ chosen, sizes + chosen.sum(axis=0)
    # A sum that is 0 but for rounding must count as 0 in the test and in the interval.
    sums[np.abs(sums) <= 1e-9 * np.abs(differences).sum(axis=-1, keepdims=True)] = 0
    return sums / np.maximum(sizes, 1)


def p_value(means: Float[np.ndarray, "*sets subsets"]) -> Floats:
    """Return the two-sided p of the test against 0, from `subset_means`; without differences it is 1.

    It is the share of sign patterns whose |sum| is at least the observed one. The observed pattern is one of
    them, so that p is never 0.
    """
    tails = ((means <= 0).sum(axis=-1), (means >= 0).sum(axis=-1))
    return np.minimum(2 * (1 + np.minimum(*tails)) / (1 + means.shape[-1]), 1.0)


def bounds(means: Float[np.ndarray, "*sets subsets"], level: float) -> tuple[Floats, Floats]:
    """Return the ends of the closed interval of all values that the test does not reject at `level`.

    They are the k-th smallest and k-th largest subset mean, k = floor(level * 2^n / 2). If k is 0, nothing
    can be rejected, and the ends are infinite.
    """
    count = means.shape[-1]
    k = math.floor(level * (count + 1) / 2)
    if not k:
        infinite = np.full(means.shape[:-1], np.inf)
        return -infinite, infinite
    ends = np.partition(means, (k - 1, count - k), axis=-1)
    return ends[..., k - 1], ends[..., count - k]


def sign_flip_p(differences: Float[np.ndarray, "n"], rng: np.random.Generator) -> float:
    """Return the two-sided p of the sign-flip test, see `p_value`."""
    return float(p_value(subset_means(differences, rng)))


def sign_flip_interval(
    differences: Float[np.ndarray, "n"], rng: np.random.Generator, level: float = 0.05
) -> tuple[float, float]:
    """Return the interval that inverts the sign-flip test, see `bounds`; at 0.05 it needs 6 differences."""
    low, high = bounds(subset_means(differences, rng), level)
    return float(low), float(high)


def worst_rank_p(differences: Float[np.ndarray, "n"], rng: np.random.Generator) -> float:
    """Return the two-sided p of the sign-flip test on signed ranks (Wilcoxon 1945).

    An infinite difference, of a pair in which one run diverged, has the highest rank: the worst-rank analysis
    of Lachin (1999). A NaN, of a pair in which both diverged, is a tie.
    """
    size = np.abs(np.nan_to_num(differences, nan=0.0, posinf=np.inf, neginf=-np.inf))
    ordered = np.sort(size)
    # The mean of the first and the last rank of equal sizes.
    first, last = (np.searchsorted(ordered, size, side) for side in ("left", "right"))
    return sign_flip_p(np.sign(np.nan_to_num(differences)) * (first + 1 + last) / 2, rng)


def smallest_p(n: int) -> float:
    """Return the smallest p that `sign_flip_p` can give for n pairs."""
    return min(1.0, 2.0 ** (1 - n)) if n <= EXACT_UP_TO else 2 / (SUBSETS + 1)
