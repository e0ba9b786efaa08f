"""Contrasts: paired differences with their intervals, tests, power and equivalence, corrected together."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from cnnjax.shapes import Float
from cnnjax.stats import families, power, signflip
from cnnjax.stats.equivalence import Equivalence
from cnnjax.stats.families import ALPHA
from cnnjax.stats.intervals import t_interval
from cnnjax.stats.variance import sd_interval


class Contrast(NamedTuple):
    """One arm minus the reference, over the `n` seeds that are finite in both (`dropped` are not).

    There are two intervals. `low` to `high` describes the difference: a t interval. `test_low` to
    `test_high` goes with the test: it holds every difference that the test does not reject at the level at
    which it decided, so that it excludes 0 if and only if the contrast is significant. By itself each
    interval covers the true difference with at least the confidence 1 - alpha; the t intervals of a
    family do so together.

    What is undefined at this n is NaN; an interval of a test that cannot reject is infinite.
    """

    arm: str
    reference: str
    n: int
    dropped: int
    difference: float  # mean of the paired differences
    sd: float  # of the paired differences
    low: float  # t interval at the level alpha / family (Bonferroni)
    high: float
    p: float  # two-sided sign-flip test
    p_holm: float  # after Holm's correction
    level: float  # at which p was tested
    test_low: float  # inverts that test
    test_high: float
    alpha: float  # level of the family
    family: int  # contrasts that are corrected together
    p_floor: float  # smallest `p_holm` that this design can give
    needed: int  # pairs at which it could be significant, see `families.needed`
    improvement: float  # share of seeds on which the arm beats the reference
    detectable: float  # true difference that n pairs find with 80% power, for the estimated sd
    detectable_low: float  # the same at the ends of the 95% interval of the sd
    detectable_high: float
    p_worst: float  # corrected p of the worst-rank analysis; NaN if no run diverged
    correlation: float = math.nan  # of the arm with the reference, over seeds
    variance_ratio: float = math.nan  # of an unpaired difference to a paired one: what pairing gains
    equivalence: Equivalence | None = None
    p_equivalent: float = math.nan  # `equivalence.p` after Holm's correction over all contrasts

    @property
    def can_claim(self) -> bool:
        """Whether this design could give a significant result at all, see `families.floors`."""
        return self.p_floor <= self.alpha

    @property
    def significant(self) -> bool:
        """Whether the corrected p is at most the level of the family."""
        return self.p_holm <= self.alpha

    @property
    def equivalent(self) -> bool:
        """Whether the difference is shown to be within the margin."""
        return self.p_equivalent <= self.alpha

    @property
    def disagree(self) -> bool:
        """Whether the t interval says something else than the test."""
        return self.can_claim and self.significant != (self.low > 0 or self.high < 0)

    def as_dict(self) -> dict[str, Any]:
        """Convert to a dictionary for strict JSON, with None for what is not finite."""
        decided = {"can_claim": self.can_claim, "significant": self.significant}
        if self.equivalence is None:
            return plain(self._asdict() | decided)
        same = plain(self.equivalence._asdict())
        return plain(self._asdict() | decided | {"equivalence": same, "equivalent": self.equivalent})


def compare(
    differences: Sequence[Float[np.ndarray, "seeds"]],
    arms: Sequence[str],
    references: Sequence[str],
    *,
    higher_is_better: bool = True,
    primary: int | None = None,
    margin: float | None = None,
    alpha: float = ALPHA,
    seed: int = 0,
) -> tuple[Contrast, ...]:
    """Test paired differences, corrected together.

    Args:
        differences: of each contrast. A pair without a difference is infinite with the sign of the run that
            did not diverge (minus if the reference did not), and NaN if neither or nothing is known.
        arms: names of the arms, one a contrast.
        references: names of what they are compared with.
        higher_is_better: the direction that counts as an improvement.
        primary: index of the contrast that is tested first, see `families.corrected`.
        margin: smallest difference that matters, for the tests of equivalence.
        alpha: level of the family.
        seed: of the random subsets above 20 pairs. The draws for one contrast do not depend on the number of
            other contrasts.
    """
    finite = [row[np.isfinite(row)] for row in differences]
    draws = [np.random.default_rng([seed, i]) for i in range(len(finite))]
    means = list(map(signflip.subset_means, finite, draws))
    p = [float(signflip.p_value(each)) for each in means]
    p_holm, levels = families.corrected(p, primary), families.levels(p, primary, alpha)
    counts = [len(d) for d in finite]
    floors = families.floors(counts, primary)
    diverged = any(np.isinf(row).any() for row in differences)
    worst = list(map(signflip.worst_rank_p, differences, draws))
    p_worst = families.corrected(worst, primary) if diverged else np.full(len(p), math.nan)
    same = [None if margin is None else Equivalence.of(d, margin) for d in finite]
    p_same = families.holm([math.nan if s is None else s.p for s in same])
    contrasts = []
    for i, d in enumerate(finite):
        family = len(finite) if primary is None else 1 if i == primary else len(finite) - 1
        mean, half, n = t_interval(d, level=alpha / family)
        sd = float(d.std(ddof=1)) if n > 1 else math.nan
        low, high = signflip.bounds(means[i], levels[i])
        found = power.detectable(len(d), family, alpha=alpha)
        least, most = sd_interval(sd, len(d))
        contrasts.append(
            Contrast(
                arms[i],
                references[i],
                len(d),
                len(differences[i]) - len(d),
                float(mean),
                sd,
                float(mean - half),
                float(mean + half),
                p[i],
                float(p_holm[i]),
                float(levels[i]),
                float(low),
                float(high),
                alpha,
                family,
                float(floors[i]),
                families.needed(counts, i, primary, alpha),
                probability_of_improvement(d if higher_is_better else -d),
                found * sd,
                found * least,
                found * most,
                float(p_worst[i]),
                equivalence=same[i],
                p_equivalent=float(p_same[i]),
            )
        )
    return tuple(contrasts)


def probability_of_improvement(differences: Float[np.ndarray, "n"]) -> float:
    """Return the share of differences above zero, counting ties as half (NaN if n is 0).

    Agarwal et al. 2021 compare every run of one arm with every run of the other, as Mann and Whitney do. Here
    runs are compared within a seed, where nothing but the arm differs.
    """
    return float(((np.sign(differences) + 1) / 2).mean()) if len(differences) else math.nan


def plain(record: dict[str, Any]) -> dict[str, Any]:
    """Replace numbers that are not finite by None, for strict JSON."""
    return {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in record.items()}
