"""Paired statistics of an ablation.

Every seed is trained in every arm from the same initial weights on the same batches, so the unit of evidence
is the difference within a seed. Arrays are float[arms, seeds], and the first arm is the reference. A value
that is not finite is a diverged run: it is excluded from its arm, its pair is excluded from the contrast, and
both exclusions are counted.
"""

import math
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import special, stats

from cnnjax.stats.intervals import Floats, bca_interval

ALPHA = 0.05
POWER = 0.8
EXACT_UP_TO = 20
FLIPS = 99_999
NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


class ArmSummary(NamedTuple):
    """One arm: `n` finite runs, their mean and sd (ddof 1; NaN below two), and how many runs `diverged`."""

    name: str
    n: int
    diverged: int
    mean: float
    sd: float


class Contrast(NamedTuple):
    """One arm minus the reference, over the `n` seeds that are finite in both (`dropped` are not).

    Quantities that are undefined at this n are NaN.
    """

    arm: str
    reference: str
    n: int
    dropped: int
    difference: float  # mean of the paired differences
    low: float  # of its 95% BCa interval
    high: float
    p: float  # two-sided sign-flip test
    p_holm: float  # after Holm's correction
    improvement: float  # share of seeds on which the arm beats the reference
    detectable: float  # smallest true difference that this n detects with 80% power
    p_floor: float  # smallest `p_holm` that this design can give

    @property
    def can_claim(self) -> bool:
        """Whether this design could give a significant result at all.

        The most extreme of the 2^n sign patterns and its negative are equally extreme, so no p is below
        2 / 2^n: a single contrast needs 6 pairs (5 give at least 0.0625). Corrections raise that: three
        contrasts of 6 pairs have no corrected p below 3 * 2 / 64 = 0.094, so they need 7.
        """
        return self.p_floor <= ALPHA

    @property
    def significant(self) -> bool:
        """Whether the corrected p is at most 5%."""
        return self.p_holm <= ALPHA


class Summary(NamedTuple):
    """All arms, and the contrast of every other arm with the first."""

    arms: tuple[ArmSummary, ...]
    contrasts: tuple[Contrast, ...]

    def as_dict(self) -> dict[str, list[dict[str, Any]]]:
        """Convert to lists and dictionaries for strict JSON, with None for NaN."""
        return {
            "arms": [_plain(arm._asdict()) for arm in self.arms],
            "contrasts": [
                _plain(c._asdict() | {"can_claim": c.can_claim, "significant": c.significant})
                for c in self.contrasts
            ],
        }


def summarise(
    values: npt.ArrayLike,
    names: Sequence[str],
    *,
    higher_is_better: bool = True,
    primary: str | None = None,
    seed: int = 0,
) -> Summary:
    """Summarise the arms of an ablation and compare each with the first.

    Args:
        values: float[arms, seeds]; a column is one seed, row 0 is the reference.
        names: of the arms.
        higher_is_better: the direction that counts as an improvement.
        primary: name of the arm whose contrast was chosen in advance. It is tested alone, and the others,
            corrected among themselves, can only be significant if it is (serial gatekeeping, Bauer et al.
            1998), which keeps the family-wise error at 5%.
        seed: of the bootstrap and the Monte-Carlo permutations. The draws for one contrast do not depend on
            the number of other arms.

    Raises:
        ValueError: the shape of `values` does not match `names`.
    """
    table = np.asarray(values, np.float64)
    if table.ndim != 2 or len(table) != len(names) or not len(names):
        raise ValueError(f"values must be [{len(names)} arms, seeds], not {list(table.shape)}")
    table = np.where(np.isfinite(table), table, np.nan)
    pairs = [row[np.isfinite(row)] for row in table[1:] - table[0]]
    p = [sign_flip_p(d, np.random.default_rng([seed, i, 0])) for i, d in enumerate(pairs)]
    first = None if primary is None else list(names[1:]).index(primary)
    corrected = _family(p, first)
    floors = _family([smallest_p(len(d)) for d in pairs], first)
    contrasts = tuple(
        Contrast(
            names[i + 1],
            names[0],
            len(d),
            table.shape[1] - len(d),
            _mean(d),
            *bca_interval(d, np.random.default_rng([seed, i, 1])),
            p=p[i],
            p_holm=float(corrected[i]),
            improvement=probability_of_improvement(d if higher_is_better else -d),
            detectable=detectable_difference(_sd(d), len(d)),
            p_floor=float(floors[i]),
        )
        for i, d in enumerate(pairs)
    )
    return Summary(tuple(map(_arm, names, table)), contrasts)


def sign_flip_p(differences: Floats, rng: np.random.Generator) -> float:
    """Return the two-sided p-value of the sign-flip permutation test on differences float[n].

    Under the null hypothesis the differences are symmetric around zero, so every sign pattern is equally
    likely; p is the fraction of patterns whose |sum| is at least the observed one. All 2^n patterns are
    enumerated up to n = 20. Above, 99,999 random ones give (k + 1) / (m + 1), which includes the observed
    pattern and is therefore never zero (Phipson and Smyth 2010). Without differences p is 1.
    """
    if not len(differences):
        return 1.0
    exact = len(differences) <= EXACT_UP_TO
    if exact:
        # A pattern and its negative have the same |sum|, so the first sign can stay fixed.
        sums = differences[:1]
        for d in differences[1:]:
            sums = np.concatenate([sums + d, sums - d])
    else:
        sums = np.zeros(FLIPS)
        for d in differences:
            sums += rng.choice((-d, d), FLIPS)
    # The tolerance keeps patterns that tie with the observed one despite rounding.
    extreme = np.abs(sums) >= abs(differences.sum()) - 1e-9 * np.abs(differences).sum()
    return float(extreme.mean() if exact else (extreme.sum() + 1) / (FLIPS + 1))


def smallest_p(n: int) -> float:
    """Return the smallest p that `sign_flip_p` can give for n pairs."""
    return min(1.0, 2.0 ** (1 - n)) if n <= EXACT_UP_TO else 1 / (FLIPS + 1)


def holm(p: npt.ArrayLike) -> Floats:
    """Apply Holm's step-down correction (Holm 1979) to p-values float[m], keeping their order."""
    raw = np.asarray(p, np.float64)
    order = np.argsort(raw, kind="stable")
    stepped = np.maximum.accumulate(raw[order] * np.arange(len(raw), 0, -1))
    corrected = np.empty_like(raw)
    corrected[order] = np.minimum(stepped, 1.0)
    return corrected


def probability_of_improvement(differences: Floats) -> float:
    """Return the share of differences float[n] above zero, counting ties as half (NaN if n is 0).

    Agarwal et al. 2021 compare every run of one arm with every run of the other, as Mann and Whitney do. Here
    runs are compared within a seed, where nothing but the arm differs.
    """
    return _mean((np.sign(differences) + 1) / 2)


def detectable_difference(sd: float, n: int) -> float:
    """Return the true mean difference that n pairs detect with 80% power at the two-sided 5% level.

    `sd` is the standard deviation of the paired differences. The power is that of the paired t test, from
    the noncentral t distribution. NaN below two pairs.
    """
    if n < 2:
        return math.nan
    critical = stats.t.ppf(1 - ALPHA / 2, n - 1)
    # The other tail has a probability below 1e-5 at this power. (stats.nct returns NaN at n = 2.)
    shift = special.nctdtrinc(n - 1, 1 - POWER, critical)
    return float(shift * sd / math.sqrt(n))


def seeds_needed(contrasts: int) -> int:
    """Return the smallest number of paired seeds at which this many contrasts can be significant."""
    return math.ceil(math.log2(2 * contrasts / ALPHA))


def conclusion(summary: Summary, metric: str, *, accuracy: bool = False) -> str:
    """State what the contrasts show about `metric`, and what they cannot show.

    `accuracy` reports values, which are fractions, in percentage points.
    """
    scale, unit, digits = (100, " percentage points", ".3f") if accuracy else (1, "", ".3g")
    if not summary.contrasts:
        return f"There is only one arm, so there is nothing to compare in {metric}."

    def effect(c: Contrast) -> str:
        verb, sign = ("raises", scale) if c.difference > 0 else ("lowers", -scale)
        low, high = sorted((sign * c.low, sign * c.high))
        return (
            f"{c.arm} {verb} it by {sign * c.difference:{digits}}{unit} "
            f"(95% interval {low:{digits}} to {high:{digits}}, corrected p {c.p_holm:.2g})"
        )

    significant = [c for c in summary.contrasts if c.significant]
    not_significant = [c for c in summary.contrasts if c.can_claim and not c.significant]
    untestable = [c for c in summary.contrasts if not c.can_claim]
    sentences = []
    if significant:
        sentences.append(_enumerated(map(effect, significant)))
    if not_significant:
        limit = scale * max(c.detectable for c in not_significant)
        sentences.append(
            f"no significant difference for {_enumerated(c.arm for c in not_significant)}; true differences "
            f"below about {limit:.2g}{' points' if accuracy else ''} would often go undetected"
        )
    if untestable:
        n = max(c.n for c in untestable)
        needed = max(seeds_needed(max(1, round(c.p_floor / smallest_p(c.n)))) for c in untestable)
        arms = _enumerated(c.arm for c in untestable)
        count = "one seed is" if n == 1 else f"{NUMBERS[n] if n < len(NUMBERS) else n} seeds are"
        sentences.append(f"{count} too few to test {arms}; use at least {needed}")
    if diverged := sum(arm.diverged for arm in summary.arms):
        sentences.append(f"{diverged} diverged {'run is' if diverged == 1 else 'runs are'} excluded")
    counts = sorted({c.n for c in summary.contrasts})
    pairs = " to ".join(map(str, counts[:1] + counts[1:][-1:])) + " paired seed" + "s" * (counts != [1])
    first, *rest = sentences
    text = ". ".join([first, *(sentence[0].upper() + sentence[1:] for sentence in rest)])
    return f"Against {summary.arms[0].name}, in {metric} over {pairs}: {text}."


def _family(p: Sequence[float], first: int | None) -> Floats:
    """Apply Holm's correction; a `first` contrast keeps its p, which bounds those of the others below."""
    if first is None:
        return holm(p)
    others = [i for i in range(len(p)) if i != first]
    corrected = np.array(p, np.float64)
    corrected[others] = np.maximum(holm([p[i] for i in others]), p[first])
    return corrected


def _arm(name: str, row: Floats) -> ArmSummary:
    finite = row[np.isfinite(row)]
    return ArmSummary(name, len(finite), len(row) - len(finite), _mean(finite), _sd(finite))


def _mean(x: Floats) -> float:
    return float(x.mean()) if len(x) else math.nan


def _sd(x: Floats) -> float:
    return float(x.std(ddof=1)) if len(x) > 1 else math.nan


def _plain(record: dict[str, Any]) -> dict[str, Any]:
    return {k: None if isinstance(v, float) and math.isnan(v) else v for k, v in record.items()}


def _enumerated(items: Iterable[str]) -> str:
    *head, last = items
    return f"{', '.join(head)} and {last}" if head else last
