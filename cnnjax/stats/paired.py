"""Paired statistics of an ablation.

Every seed is trained in every arm from the same initial weights on the same batches, so the unit of evidence
is the difference within a seed. Arrays are float[arms, seeds], and the first arm is the reference. A value
that is not finite is a diverged run. Without it: it is excluded from its arm, its pair is excluded from the
contrast, and both exclusions are counted. With it: `Contrast.p_worst` ranks it below every finite value.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from cnnjax.errors import ArgumentError
from cnnjax.shapes import Float
from cnnjax.stats import families
from cnnjax.stats.contrasts import Contrast, compare, plain
from cnnjax.stats.families import ALPHA


class ArmSummary(NamedTuple):
    """One arm: `n` finite runs, their mean and sd (ddof 1; NaN below two), and how many runs `diverged`."""

    name: str
    n: int
    diverged: int
    mean: float
    sd: float


class Summary(NamedTuple):
    """All arms, and the contrast of every other arm with the first."""

    arms: tuple[ArmSummary, ...]
    contrasts: tuple[Contrast, ...]
    primary: str | None = None

    @property
    def rehearsal(self) -> bool:
        """Whether there are contrasts, and with so few seeds none could be significant, diverged or not."""
        pairs = [c.n + c.dropped for c in self.contrasts]
        first = [c.arm for c in self.contrasts].index(self.primary) if self.primary else None
        return bool(pairs and families.floors(pairs, first).min() > self.contrasts[0].alpha)

    def as_dict(self) -> dict[str, Any]:
        """Convert to lists and dictionaries for strict JSON, with None for what is not finite."""
        return {
            "primary": self.primary,
            "rehearsal": self.rehearsal,
            "arms": [plain(arm._asdict()) for arm in self.arms],
            "contrasts": [contrast.as_dict() for contrast in self.contrasts],
        }


def summarise(
    values: npt.ArrayLike,
    names: Sequence[str],
    *,
    higher_is_better: bool = True,
    primary: str | None = None,
    margin: float | None = None,
    alpha: float = ALPHA,
    seed: int = 0,
) -> Summary:
    """Summarise the arms of an ablation and compare each with the first.

    Args:
        values: float[arms, seeds]; a column is one seed, row 0 is the reference.
        names: of the arms.
        higher_is_better: the direction that counts as an improvement.
        primary: name of the arm whose contrast was chosen in advance. It is tested alone, and the others,
            corrected among themselves, can only be significant if it is, see `families.corrected`.
        margin: smallest difference that matters, in the unit of the values: adds tests of equivalence.
        alpha: family-wise level.
        seed: of the random draws above 20 pairs.

    Raises:
        ArgumentError: `primary` is not an arm other than the first.
        ValueError: the shape of `values` does not match `names`.
    """
    if primary is not None and primary not in names[1:]:
        others = ", ".join(names[1:]) or "there is none"
        raise ArgumentError(f"the primary arm {primary!r} must be an arm other than the first: {others}")
    options = {"higher_is_better": higher_is_better, "margin": margin, "alpha": alpha, "seed": seed}
    first = None if primary is None else list(names[1:]).index(primary)
    (summary,) = _summaries([(values, names)], primary=first, **options)
    return summary._replace(primary=primary)


def summarise_together(
    groups: Sequence[tuple[npt.ArrayLike, Sequence[str]]],
    *,
    higher_is_better: bool = True,
    margin: float | None = None,
    alpha: float = ALPHA,
    seed: int = 0,
) -> list[Summary]:
    """Summarise several ablations whose contrasts are one family: Holm's correction is over all of them.

    Arguments: the values and names of each, then as for `summarise`.
    """
    return _summaries(groups, higher_is_better=higher_is_better, margin=margin, alpha=alpha, seed=seed)


def _summaries(
    groups: Sequence[tuple[npt.ArrayLike, Sequence[str]]], *, higher_is_better: bool, **options: Any
) -> list[Summary]:
    tables = [_table(values, names) for values, names in groups]
    cells = [
        (number, name, names[0], row, table[0])
        for number, ((_, names), table) in enumerate(zip(groups, tables, strict=True))
        for name, row in zip(names[1:], table[1:], strict=True)
    ]
    contrasts = compare(
        [_differences(row, reference, higher_is_better) for *_, row, reference in cells],
        [name for _, name, *_ in cells],
        [name for _, _, name, *_ in cells],
        higher_is_better=higher_is_better,
        **options,
    )
    paired = [
        contrast._replace(**_pairing(row, reference))
        for contrast, (*_, row, reference) in zip(contrasts, cells, strict=True)
    ]
    return [
        Summary(
            tuple(map(_arm, names, table)),
            tuple(c for c, (of, *_) in zip(paired, cells, strict=True) if of == number),
        )
        for number, ((_, names), table) in enumerate(zip(groups, tables, strict=True))
    ]


def _table(values: npt.ArrayLike, names: Sequence[str]) -> Float[np.ndarray, "arms seeds"]:
    table = np.asarray(values, np.float64)
    if table.ndim != 2 or len(table) != len(names) or not len(names):
        raise ValueError(f"values must be [{len(names)} arms, seeds], not {list(table.shape)}")
    return np.where(np.isfinite(table), table, np.nan)


def _differences(
    row: Float[np.ndarray, "seeds"], reference: Float[np.ndarray, "seeds"], higher_is_better: bool
) -> Float[np.ndarray, "seeds"]:
    """Return arm minus reference, as `compare` takes it: a diverged run is worse than every other."""
    worst = -np.inf if higher_is_better else np.inf
    there, other = np.isfinite(row), np.isfinite(reference)
    differences = np.where(there & other, row - reference, np.nan)
    return np.select([other & ~there, there & ~other], [worst, -worst], differences)


def _pairing(row: Float[np.ndarray, "seeds"], reference: Float[np.ndarray, "seeds"]) -> dict[str, float]:
    """Return what pairing gains: NaN below three pairs, and where nothing varies."""
    both = np.isfinite(row) & np.isfinite(reference)
    x, y = row[both], reference[both]
    if both.sum() < 3 or not np.ptp(x) or not np.ptp(y):
        return {}
    of_difference = (x - y).var(ddof=1)
    ratio = (x.var(ddof=1) + y.var(ddof=1)) / of_difference if of_difference else math.inf
    return {"correlation": float(np.corrcoef(x, y)[0, 1]), "variance_ratio": float(ratio)}


def _arm(name: str, row: Float[np.ndarray, "seeds"]) -> ArmSummary:
    finite = row[np.isfinite(row)]
    mean = float(finite.mean()) if len(finite) else math.nan
    sd = float(finite.std(ddof=1)) if len(finite) > 1 else math.nan
    return ArmSummary(name, len(finite), len(row) - len(finite), mean, sd)
