"""What an experiment will claim, written down before its first epoch, and what looking at it early costs."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import scipy

from cnnjax.stats.families import ALPHA

PROMISES = ("hypothesis", "metric", "reference", "primary", "family", "margin", "looks")
"""The fields that may not change once there are results; seeds may be added."""
SIMULATED = 10_000


class Plan(NamedTuple):
    """What will be claimed, and from which seeds.

    With `looks`, the seeds grow to each of these numbers in turn, and the look at n of them tests at `level`.
    """

    hypothesis: str = ""
    metric: str = "val_accuracy"  # a column of results.csv, after the last epoch
    primary: str | None = None  # the contrast that is tested first, alone
    family: tuple[str, ...] = ()  # the contrasts that are corrected together
    margin: float | None = None  # the smallest difference of interest, in the metric's unit
    seeds: int = 6
    first_seed: int = 0
    looks: tuple[int, ...] = ()  # numbers of seeds, increasing to `seeds`; default: one look, at the end
    reference: str | None = None  # the arm that the others are compared with, if there is one

    @classmethod
    def of(cls, record: Mapping[str, Any]) -> "Plan":
        """Return the plan of an `as_dict`.

        Raises:
            TypeError: it has other fields.
        """
        lists = {name: tuple(value) for name, value in record.items() if isinstance(value, list)}
        return cls(**{**record, **lists})

    def as_dict(self) -> dict[str, Any]:
        """Return the fields, as JSON has them."""
        return json.loads(json.dumps(self._asdict()))

    @property
    def sha256(self) -> str:
        """The SHA-256 of the canonical JSON: sorted names, no spaces, ASCII."""
        fields = self._asdict()
        if self.reference is None:
            del fields["reference"]  # as in the plans of versions without it
        text = json.dumps(fields, sort_keys=True, separators=(",", ":"), allow_nan=False)
        return hashlib.sha256(text.encode()).hexdigest()

    @property
    def numbers(self) -> range:
        """The seeds themselves."""
        return range(self.first_seed, self.first_seed + self.seeds)

    @property
    def promises(self) -> bool:
        """Whether it says more than which arms there are."""
        return bool(self.hypothesis or self.primary or self.looks) or self.margin is not None

    def changed(self, other: "Plan") -> list[str]:
        """Return the names of the fields in `PROMISES` that differ; a reference may be named later."""
        names = [name for name in PROMISES if name != "reference" or self.reference is not None]
        return [name for name in names if getattr(self, name) != getattr(other, name)]

    def level(self, seeds: int) -> float:
        """Return the level of the look at `seeds` seeds: 5% without `looks`.

        Up to the look at n of N seeds, 0.05 (n/N)^2 is spent (Lan and DeMets 1983; Kim and DeMets 1987), so
        that an early look costs little. The levels add up to 5%, which bounds the false positives of all
        looks together whatever the test and its distribution (Bonferroni).

        Raises:
            ValueError: there are `looks`, and this is none of them.
        """
        if not self.looks:
            return ALPHA
        before = (0, *self.looks)[self.looks.index(seeds)]
        return ALPHA * (seeds**2 - before**2) / self.looks[-1] ** 2


def false_positives(looks: Sequence[int], level: float = ALPHA) -> float:
    """Return how often one contrast without a difference is significant at any of several looks.

    By simulation of t tests at this level on normal differences. A look at n pairs counts only if n sign
    flips can reach the level: 2 / 2^n is their smallest p.
    """
    able = [n for n in sorted(set(looks)) if 2.0 ** (1 - n) <= level]
    if not able:
        return 0.0
    draws = np.random.default_rng(0).standard_normal((SIMULATED, able[-1]), np.float32)
    significant = np.zeros(SIMULATED, bool)
    for n in able:
        t = np.sqrt(n) * draws[:, :n].mean(axis=1) / draws[:, :n].std(axis=1, ddof=1)
        significant |= np.abs(t) > scipy.stats.t.ppf(1 - level / 2, n - 1)
    return float(significant.mean())
