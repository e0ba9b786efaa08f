"""Contrasts that are corrected together: Holm's correction, a primary contrast, and the levels they imply."""

import itertools
from collections.abc import Sequence

import numpy as np

from cnnjax.shapes import Float
from cnnjax.stats.signflip import smallest_p

ALPHA = 0.05

Ps = Sequence[float] | Float[np.ndarray, "m"]


def holm(p: Ps) -> Float[np.ndarray, "m"]:
    """Apply Holm's step-down correction (Holm 1979) to p-values, keeping their order."""
    raw = np.asarray(p, np.float64)
    order = np.argsort(raw, kind="stable")
    stepped = np.maximum.accumulate(raw[order] * np.arange(len(raw), 0, -1))
    corrected = np.empty_like(raw)
    corrected[order] = np.minimum(stepped, 1.0)
    return corrected


def corrected(p: Ps, primary: int | None = None) -> Float[np.ndarray, "m"]:
    """Correct the p-values of a family.

    Without a `primary` contrast this is `holm`. The primary one keeps its p; the others are corrected among
    themselves and have at least that p, so that they can only be significant if it is (serial gatekeeping,
    Bauer et al. 1998). Both keep the family-wise error at the level.
    """
    if primary is None:
        return holm(p)
    raw = np.array(p, np.float64)
    others = np.arange(len(raw)) != primary
    raw[others] = np.maximum(holm(raw[others]), raw[primary])
    return raw


def levels(p: Ps, primary: int | None = None, alpha: float = ALPHA) -> Float[np.ndarray, "m"]:
    """Return the level at which `corrected` tested each contrast: it is significant if p is at most that.

    Holm compares the smallest p with alpha / m, the next with alpha / (m - 1), and stops at the first one
    that is larger; that and all others were tested at the level where it stopped. Behind a primary contrast
    that is not significant nothing is tested, and the level is 0.
    """
    raw = np.asarray(p, np.float64)
    if primary is None:
        steps = alpha / np.arange(len(raw), 0, -1)
        order = np.argsort(raw, kind="stable")
        stopped = int(np.cumprod(raw[order] <= steps).sum())
        of_each = np.empty_like(raw)
        of_each[order] = steps[np.minimum(np.arange(len(raw)), stopped)]
        return of_each
    of_each = np.full_like(raw, alpha)
    others = np.arange(len(raw)) != primary
    of_each[others] = levels(raw[others], None, alpha) if raw[primary] <= alpha else 0.0
    return of_each


def floors(pairs: Sequence[int], primary: int | None = None) -> Float[np.ndarray, "m"]:
    """Return the smallest corrected p that contrasts of so many pairs can give.

    The most extreme of the 2^n sign patterns and its negative are equally extreme, so no p is below 2 / 2^n:
    a single contrast needs 6 pairs (5 give at least 0.0625). Corrections raise that: three contrasts of 6
    pairs have no corrected p below 3 * 2 / 64 = 0.094, so they need 7.
    """
    return corrected([smallest_p(n) for n in pairs], primary)


def needed(pairs: Sequence[int], contrast: int = 0, primary: int | None = None, alpha: float = ALPHA) -> int:
    """Return how many pairs one contrast needs to be significant, the others having as many or more."""

    def with_pairs(n: int) -> list[int]:
        return [n if i == contrast else max(n, have) for i, have in enumerate(pairs)]

    return next(n for n in itertools.count(1) if floors(with_pairs(n), primary)[contrast] <= alpha)
