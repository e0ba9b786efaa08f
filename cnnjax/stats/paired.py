"""Paired statistics of an ablation: what the numbers show, and what they cannot show.

Every seed is trained in every arm from the same weights on the same batches, so the unit of
evidence is the difference within a seed. Arrays are float[arms, seeds]; the first arm is the
reference. A member that is not finite has diverged: it is left out of its arm, its pair is left out
of the contrast, and both are counted.
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


class Arm(NamedTuple):
    """One arm: `n` finite members, `diverged` others, mean, sd (ddof 1; NaN below two)."""

    name: str
    n: int
    diverged: int
    mean: float
    sd: float


class Contrast(NamedTuple):
    """One arm minus the reference, over the `n` seeds that are finite in both (`dropped` are not).

    `difference` is the mean paired difference, `low` and `high` its 95% BCa interval, `p` the
    two-sided sign-flip p, `p_holm` the same after Holm's correction, `improvement` the share of
    seeds that are better than the reference, `detectable` the smallest difference this n finds at
    80% power, `p_floor` the smallest `p_holm` that this design could give. Quantities that are not
    defined at this n are NaN.
    """

    arm: str
    reference: str
    n: int
    dropped: int
    difference: float
    low: float
    high: float
    p: float
    p_holm: float
    improvement: float
    detectable: float
    p_floor: float

    @property
    def can_claim(self) -> bool:
        """Whether any data at all could have been significant at 5%.

        With 5 pairs there are 2^5 sign patterns, two of which are as extreme as the most extreme
        one, so no p is below 2 / 32 = 0.0625: below 6 pairs nothing can be claimed, whatever the
        numbers. Several contrasts need more: with three of 6 pairs, none has a corrected p below
        3 * 2 / 64 = 0.094, so three contrasts need 7.
        """
        return self.p_floor <= ALPHA

    @property
    def significant(self) -> bool:
        """Whether the corrected p is at most 5%."""
        return self.p_holm <= ALPHA


class Summary(NamedTuple):
    """All arms, and the contrast of each later arm against the first."""

    arms: tuple[Arm, ...]
    contrasts: tuple[Contrast, ...]

    def as_dict(self) -> dict[str, list[dict[str, Any]]]:
        """Return plain lists and dictionaries for strict JSON: None stands for NaN."""
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
    """Summarise values float[arms, seeds]: a column is one seed, row 0 is the reference.

    `primary` names the arm whose contrast was chosen before the data were seen: it is tested first and
    alone, and the others, corrected among themselves, only count where it is significant (serial
    gatekeeping: Bauer et al. 1998), which keeps the error of the family at 5%.

    `seed` drives the bootstrap and the Monte-Carlo permutations; a contrast's draws do not depend
    on how many other arms there are. Raises ValueError where the shape does not fit the names.
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
    contrasts = []
    for i, d in enumerate(pairs):
        low, high = bca_interval(d, np.random.default_rng([seed, i, 1]))
        contrasts.append(
            Contrast(
                arm=names[i + 1],
                reference=names[0],
                n=len(d),
                dropped=table.shape[1] - len(d),
                difference=_mean(d),
                low=low,
                high=high,
                p=p[i],
                p_holm=float(corrected[i]),
                improvement=probability_of_improvement(d if higher_is_better else -d),
                detectable=detectable_difference(_sd(d), len(d)),
                p_floor=float(floors[i]),
            )
        )
    return Summary(tuple(map(_arm, names, table)), tuple(contrasts))


def sign_flip_p(differences: Floats, rng: np.random.Generator) -> float:
    """Return the two-sided sign-flip permutation p of differences float[n].

    Under the null they are symmetric around zero, so each sign might as well be the other: p says
    how often |sum| is then as large. Exact over all 2^n sign patterns up to n = 20. Above, 99,999
    random patterns and (k + 1) / (m + 1), which counts the observed one and so never gives zero
    (Phipson and Smyth 2010). Without differences p is 1.
    """
    if not len(differences):
        return 1.0
    exact = len(differences) <= EXACT_UP_TO
    if exact:
        # A pattern and its negative have the same |sum|: the first sign may stay fixed.
        sums = differences[:1]
        for d in differences[1:]:
            sums = np.concatenate([sums + d, sums - d])
    else:
        sums = np.zeros(FLIPS)
        for d in differences:
            sums += rng.choice((-d, d), FLIPS)
    # Patterns that tie with the observed one must not lose to the rounding of their sums.
    extreme = np.abs(sums) >= abs(differences.sum()) - 1e-9 * np.abs(differences).sum()
    return float(extreme.mean() if exact else (extreme.sum() + 1) / (FLIPS + 1))


def smallest_p(n: int) -> float:
    """Return the smallest p that `sign_flip_p` can give for n pairs."""
    return min(1.0, 2.0 ** (1 - n)) if n <= EXACT_UP_TO else 1 / (FLIPS + 1)


def holm(p: npt.ArrayLike) -> Floats:
    """Return p float[m] after Holm's step-down correction (Holm 1979), in the order given."""
    raw = np.asarray(p, np.float64)
    order = np.argsort(raw, kind="stable")
    stepped = np.maximum.accumulate(raw[order] * np.arange(len(raw), 0, -1))
    corrected = np.empty_like(raw)
    corrected[order] = np.minimum(stepped, 1.0)
    return corrected


def probability_of_improvement(differences: Floats) -> float:
    """Return the share of differences float[n] above zero, ties counted half (NaN without any).

    Agarwal et al. 2021 compare every run of one arm with every run of the other, as Mann and
    Whitney do. Ours compares within a seed, because there the arms share everything but the arm.
    """
    return _mean((np.sign(differences) + 1) / 2)


def detectable_difference(sd: float, n: int) -> float:
    """Return the true mean difference that n pairs detect at 80% power, two-sided 5%.

    `sd` is that of the paired differences; the power is that of the paired t test, from the
    noncentral t distribution. NaN below two pairs.
    """
    if n < 2:
        return math.nan
    critical = stats.t.ppf(1 - ALPHA / 2, n - 1)
    # The other tail holds less than 1e-5 at this power. (stats.nct returns NaN at n = 2.)
    shift = special.nctdtrinc(n - 1, 1 - POWER, critical)
    return float(shift * sd / math.sqrt(n))


def seeds_needed(contrasts: int) -> int:
    """Return the fewest paired seeds with which so many contrasts can be significant."""
    return math.ceil(math.log2(2 * contrasts / ALPHA))


def conclusion(summary: Summary, metric: str, *, accuracy: bool = False) -> str:
    """Return one sentence: what may be concluded about `metric`, and what may not.

    `accuracy` says that the values are fractions of 1, to be told in percentage points.
    """
    scale, unit, digits = (100, " percentage points", ".3f") if accuracy else (1, "", ".3g")

    def tell(c: Contrast) -> str:
        verb, sign = ("raises", scale) if c.difference > 0 else ("lowers", -scale)
        low, high = sorted((sign * c.low, sign * c.high))
        return (
            f"{c.arm} {verb} it by {sign * c.difference:{digits}}{unit} "
            f"(95% interval {low:{digits}} to {high:{digits}}, corrected p {c.p_holm:.2g})"
        )

    if not summary.contrasts:
        return f"There is one arm only, so nothing may be concluded about {metric}."
    shown = [c for c in summary.contrasts if c.significant]
    unshown = [c for c in summary.contrasts if c.can_claim and not c.significant]
    barred = [c for c in summary.contrasts if not c.can_claim]
    clauses = []
    if shown:
        clauses.append(_listed(map(tell, shown)))
    if unshown:
        limit = scale * max(c.detectable for c in unshown)
        clauses.append(
            f"for {_listed(c.arm for c in unshown)} no difference is shown, which does not make "
            f"them equal: a difference below {limit:{digits}}{unit} would often be missed"
        )
    if barred:
        floor = min(c.p_floor for c in barred)
        needed = max(seeds_needed(max(1, round(c.p_floor / smallest_p(c.n)))) for c in barred)
        clauses.append(
            f"for {_listed(c.arm for c in barred)} no significance can be claimed, whatever the "
            f"numbers, because no p below {floor:.2g} is possible (it takes {needed} paired seeds)"
        )
    if dropped := sum(arm.diverged for arm in summary.arms):
        clauses.append(f"{dropped} diverged {'run is' if dropped == 1 else 'runs are'} left out")
    counts = sorted({c.n for c in summary.contrasts})
    pairs = f"{counts[0]} to {counts[-1]}" if len(counts) > 1 else f"{counts[0]}"
    return (
        f"Against {summary.arms[0].name}, in {metric} over {pairs} paired "
        f"{'seed' if counts[-1] == 1 else 'seeds'}: {'; '.join(clauses)}."
    )


def _family(p: Sequence[float], first: int | None) -> Floats:
    """Holm's correction; with a `first` contrast, of the others alone, and none below its p."""
    if first is None:
        return holm(p)
    others = [i for i in range(len(p)) if i != first]
    corrected = np.array(p, np.float64)
    corrected[others] = np.maximum(holm([p[i] for i in others]), p[first])
    return corrected


def _arm(name: str, row: Floats) -> Arm:
    finite = row[np.isfinite(row)]
    return Arm(name, len(finite), len(row) - len(finite), _mean(finite), _sd(finite))


def _mean(x: Floats) -> float:
    return float(x.mean()) if len(x) else math.nan


def _sd(x: Floats) -> float:
    return float(x.std(ddof=1)) if len(x) > 1 else math.nan


def _plain(record: dict[str, Any]) -> dict[str, Any]:
    return {k: None if isinstance(v, float) and math.isnan(v) else v for k, v in record.items()}


def _listed(items: Iterable[str]) -> str:
    *head, last = items
    return f"{', '.join(head)} and {last}" if head else last
