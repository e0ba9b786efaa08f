"""How many seeds a question needs, from the spread of a pilot."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from cnnjax.errors import ArgumentError
from cnnjax.experiment.plans import read_plans
from cnnjax.experiment.results import RESULTS, read_times
from cnnjax.experiment.rows import Cell, Row, read_rows, values_of
from cnnjax.files.misspelt import did_you_mean
from cnnjax.shapes import Float
from cnnjax.stats.plan import Plan
from cnnjax.stats.power import seeds_for
from cnnjax.stats.sizes import cautious_sd, seeds_for_equivalence

POWERS = (0.8, 0.9)


class Pilot(NamedTuple):
    """What a finished experiment says about the next one like it."""

    metric: str
    sd: float  # of the paired differences; the largest of the contrasts that are asked about
    n: int  # pairs behind it
    contrasts: int  # corrected together with that one
    next_seed: int  # the first that is fresh
    seconds: float  # a seed takes, in all arms; NaN if that was not recorded


class Need(NamedTuple):
    """The seeds for one power."""

    power: float
    seeds: int  # to find the effect
    cautious: int | None  # likewise, if the sd is at the upper limit that the pilot allows
    equivalent: int | None  # to show that no difference is beyond the margin


def power(
    effect: float, spread: float | Pilot, *, contrasts: int | None = None, margin: float | None = None
) -> list[Need]:
    """Return how many paired seeds find a true difference, for powers of 80% and 90%.

    Args:
        effect: the smallest difference of interest, in the metric's unit as all here; an accuracy is a
            fraction.
        spread: a pilot, or the standard deviation of the paired differences.
        contrasts: number that are corrected together; by default the pilot's, or 1.
        margin: of equivalence, if that is to be shown.

    Raises:
        ArgumentError: a number is not positive.
    """
    pilot, sd = (spread, spread.sd) if isinstance(spread, Pilot) else (None, spread)
    for name, value in (("effect", effect), ("sd", sd), ("contrasts", contrasts), ("margin", margin)):
        if value is not None and not 0 < value < float("inf"):
            raise ArgumentError(f"--{name} {value:g} must be a positive number")
    together = contrasts or (pilot.contrasts if pilot else 1)
    return [
        Need(
            wanted,
            seeds_for(effect / sd, together, wanted),
            seeds_for(effect / cautious_sd(sd, pilot.n), together, wanted) if pilot else None,
            seeds_for_equivalence(margin / sd, together, wanted) if margin else None,
        )
        for wanted in POWERS
    ]


def read_pilot(out: Path) -> Pilot:
    """Read from the directory of an experiment what sizes the next one.

    Raises:
        ArgumentError: it has no results or no plan, or its contrasts are no arms, or fewer than two pairs.
        UserError: a file is damaged.
    """
    plans, table = read_plans(out), out / RESULTS
    rows = read_rows(table) if table.exists() else {}
    if not (plans and rows):
        if not out.is_dir():
            near = did_you_mean(out, lambda each: (each / RESULTS).exists())
            raise ArgumentError(f"{out}: no such directory{near}; --pilot needs that of an experiment")
        lacking = "results" if plans else "plan.json"
        raise ArgumentError(f"{out} has no {lacking}, and is no pilot; give --sd instead")
    plan = plans[-1].plan
    differences = _differences(plan, rows, [plan.primary] if plan.primary else plan.family)
    if not differences or max(map(len, differences)) < 2:
        raise ArgumentError(
            f"{out} has fewer than two pairs of arms that its plan compares; give --sd instead"
        )
    sd, n = max((float(d.std(ddof=1)), len(d)) for d in differences if len(d) > 1)
    if not sd:
        raise ArgumentError(f"the differences in {out} do not vary; give --sd instead")
    times = [seconds / networks for networks, seconds in read_times(out)]
    networks = len({(arm, epoch) for arm, _, epoch in rows})
    seconds = networks * float(np.median(times)) if times else float("nan")
    fresh = 1 + max(seed for _, seed, _ in rows)
    return Pilot(plan.metric, sd, n, 1 if plan.primary else len(plan.family), fresh, seconds)


def _differences(plan: Plan, rows: dict[Cell, Row], contrasts: Sequence[str]) -> list[Float[np.ndarray, "n"]]:
    """Return the finite paired differences of each contrast; none of one that is no arm.

    The reference is the arm that the plan does not compare; with several, the one of the same network, whose
    name is the part before a comma.
    """
    arms, epochs = sorted({arm for arm, _, _ in rows}), max(epoch for _, _, epoch in rows)
    references = [arm for arm in arms if arm not in plan.family]
    found = []
    for contrast in contrasts:
        same = [arm for arm in references if arm.split(", ")[0] == contrast.split(", ")[0]]
        reference = (same or references)[:1]
        if contrast in arms and reference:
            values = values_of(rows, plan.metric, [contrast, *reference], plan.numbers, epochs)[:, :, -1]
            difference = values[0] - values[1]
            found.append(difference[np.isfinite(difference)])
    return found
