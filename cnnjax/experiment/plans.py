"""The plans of a results directory and the looks at its seeds: plan.json and looks.csv.

A plan is stated before the first epoch of its seeds. It may be changed, but how many rows were there is
recorded, and every conclusion says so.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from cnnjax.errors import ArgumentError, UserError
from cnnjax.experiment.rows import Cell, Row
from cnnjax.files import read_csv, read_json, write_csv, write_json
from cnnjax.stats.plan import Plan, false_positives
from cnnjax.stats.sentences import plural
from cnnjax.stats.signflip import smallest_p

PLAN, LOOKS = "plan.json", "looks.csv"


class Stated(NamedTuple):
    """A plan in plan.json."""

    plan: Plan
    time: str  # UTC
    rows: int  # rows of its seeds that were there before it


class Look(NamedTuple):
    """A row of looks.csv: results that were returned, to be summarised."""

    time: str  # UTC
    seeds: int
    first_seed: int
    plan: str  # its SHA-256
    rows: int

    @property
    def numbers(self) -> range:
        """The seeds themselves."""
        return range(self.first_seed, self.first_seed + self.seeds)


class Evidence(NamedTuple):
    """What a conclusion must say about its plan."""

    plan: Plan
    alpha: float  # the level at which this look decides
    looks: tuple[int, ...]  # numbers of seeds that were looked at, from the same first seed
    remarks: tuple[str, ...]  # sentences for every conclusion; none if all went as planned

    def as_dict(self) -> dict[str, Any]:
        """Return the entry of summary.json."""
        plan = self.plan.as_dict() | {"sha256": self.plan.sha256}
        return {"plan": plan, "alpha": self.alpha, "looks": [*self.looks], "remarks": [*self.remarks]}


def require_plan(plan: Plan, arms: Sequence[str], seeds: range) -> None:
    """Check a plan against the arms and the seeds of a run.

    Raises:
        ArgumentError: it has another first seed or reference, a primary arm or a margin that cannot be, or
            looks that do not increase or of which the first can show nothing, or the run has a number of
            seeds that is none of them.
    """
    if plan.reference not in (None, arms[0]):
        raise ArgumentError(f"the plan's reference is {plan.reference!r}, and the run's is {arms[0]!r}")
    if plan.primary is not None and plan.primary not in (*arms[1:], *plan.family):
        raise ArgumentError(
            f"the primary contrast {plan.primary!r} is none of {', '.join(plan.family or arms[1:])}"
        )
    number = isinstance(plan.margin, int | float)
    if plan.margin is not None and not (number and 0 < plan.margin < float("inf")):
        raise ArgumentError(f"--margin {plan.margin} must be a positive number")
    if plan.first_seed != seeds.start:
        raise ArgumentError(f"the plan's first seed is {plan.first_seed}, and the run's is {seeds.start}")
    if plan.looks:
        numbers = " ".join(map(str, plan.looks))
        if plan.looks[0] < 1 or list(plan.looks) != sorted(set(plan.looks)) or plan.looks[-1] != plan.seeds:
            raise ArgumentError(f"--looks {numbers} must be numbers of seeds that increase to the plan's")
        first, together = plan.looks[0], 1 if plan.primary else max(1, len(plan.family))
        if together * smallest_p(first) > plan.level(first):
            raise ArgumentError(
                f"the first of --looks {numbers} has too few seeds to be significant at its level of "
                f"{100 * plan.level(first):.2g}%; look later"
            )
        require_look(plan, len(seeds))


def require_look(plan: Plan, seeds: int) -> None:
    """Raise `ArgumentError` if the plan has looks, and none of them with so many seeds."""
    if plan.looks and seeds not in plan.looks:
        numbers = " ".join(map(str, plan.looks))
        raise ArgumentError(f"--seeds {seeds} is none of the planned --looks {numbers}")


def entered(
    stated: Sequence[Stated], plan: Plan, rows_of: Callable[[range], int], time: str, *, replan: bool = False
) -> tuple[Stated, ...]:
    """Return the plans of a directory with `plan` among them.

    Args:
        stated: the plans so far, oldest first.
        plan: the one to follow now.
        rows_of: counts the rows of seeds that are there.
        time: now, in UTC.
        replan: allow a change of what has been promised.

    Raises:
        ArgumentError: there are rows, and `plan` changes what was promised about them.
    """
    if plan in [each.plan for each in stated]:
        return tuple(stated)
    related, rows = related_to(stated, plan), rows_of(plan.numbers)
    if rows and related and not replan:
        changed = broken(related[-1].plan, plan)
        if changed:
            raise ArgumentError(
                f"there are {rows} rows of another plan (different: {', '.join(changed)}); choose another "
                "--out, or use --replan, which records the change and says so with every conclusion"
            )
    kept = [each for each in stated if each not in related or rows_of(each.plan.numbers)]
    return *kept, Stated(plan, time, rows)


def remarks(
    stated: Sequence[Stated], plan: Plan, looks: Sequence[int], seeds: int, overlaps: int = 0
) -> tuple[str, ...]:
    """Return what to say about a plan and the looks at its seeds.

    Args:
        stated: the plans of the directory, this one among them.
        plan: the plan.
        looks: numbers of seeds that were looked at, from its first seed on.
        seeds: the number now.
        overlaps: looks at other ranges of seeds that share some with this one.
    """
    until = [each.plan for each in stated].index(plan) + 1
    related = related_to(stated[:until], plan)
    said = []
    for last, each in zip([None, *related], related, strict=False):
        if not each.rows:
            continue
        if last is None and each.plan.promises:
            said.append(f"The plan was stated after {each.rows} rows")
        elif last is not None and (changed := broken(last.plan, each.plan)):
            said.append(f"The plan was changed after {each.rows} rows ({', '.join(changed)})")
    if plan.looks and set(looks) <= set(plan.looks):
        number, level = plan.looks.index(seeds) + 1, 100 * plan.level(seeds)
        said.append(
            f"Look {number} of {len(plan.looks)} planned: significant is a p of at most {level:.2g}%, and "
            "false positives of all looks together stay below 5%"
        )
    elif len(looks) > 1:
        rate = 100 * false_positives(looks)
        numbers = f"{', '.join(map(str, looks[:-1]))} and {looks[-1]}"
        price = f", which raises false positives from 5% to about {rate:.0f}%" if rate >= 5.5 else ""
        said.append(f"The results were looked at with {numbers} seeds{price}; fresh seeds would confirm them")
    if overlaps:
        ranges = plural(overlaps, "overlapping range")
        said.append(
            f"Results of {ranges} of seeds were looked at too, which raises false positives; fresh seeds "
            "would confirm them"
        )
    return tuple(f"{sentence}." for sentence in said)


def read_plans(out: Path) -> tuple[Stated, ...]:
    """Read the plans of a directory, oldest first; none if it has no plan.json.

    Raises:
        UserError: the file is damaged, or a plan is not the one whose hash was written.
    """
    record = read_json(out / PLAN)
    if record is None:
        return ()
    try:
        stated = [(each["sha256"], Plan.of(each["plan"]), each) for each in record["plans"]]
        whole = all(plan.sha256 == sha256 for sha256, plan, _ in stated)
        plans = tuple(Stated(plan, str(each["time"]), int(each["rows"])) for _, plan, each in stated)
    except (KeyError, TypeError, ValueError, AttributeError):
        whole, plans = False, ()
    if not whole or not plans:
        raise UserError(
            f"{out / PLAN} was changed after it was written; restore it from a copy, or choose another --out"
        )
    return plans


def write_plans(out: Path, stated: Sequence[Stated]) -> None:
    """Write plan.json."""
    plans = [
        {"plan": plan.as_dict(), "sha256": plan.sha256, "time": time, "rows": rows}
        for plan, time, rows in stated
    ]
    write_json(out / PLAN, {"plans": plans})


def analysed(out: Path, rows: Mapping[Cell, Row]) -> dict[Cell, Row]:
    """Return the rows of the seeds that were looked at last; before a look, of the last plan, if any.

    Joined directories bring their looks with them, but nobody has looked at all of their seeds together.
    """
    looks, plans = read_looks(out), read_plans(out)
    seeds = plans[-1].plan.numbers if plans else None
    joined = (
        plans and looks and looks[-1].plan != plans[-1].plan.sha256 and not (out / "summary.json").exists()
    )
    if looks and not joined:
        seeds = looks[-1].numbers
    return {cell: row for cell, row in rows.items() if seeds is None or cell[1] in seeds}


def write_looks(out: Path, looks: Sequence[Look]) -> None:
    """Write looks.csv."""
    write_csv(out / LOOKS, Look._fields, looks)


def read_looks(out: Path) -> list[Look]:
    """Read the looks at a directory, oldest first; none if it has no looks.csv.

    Raises:
        UserError: the file is damaged.
    """
    path = out / LOOKS
    try:
        return [
            Look(row["time"], int(row["seeds"]), int(row["first_seed"]), row["plan"], int(row["rows"]))
            for row in read_csv(path) or ()
        ]
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path} is damaged ({error}); restore it from a copy") from None


def related_to(stated: Sequence[Stated], plan: Plan) -> list[Stated]:
    """Return the plans that share seeds with `plan`."""
    return [each for each in stated if shared(each.plan.numbers, plan.numbers)]


def shared(one: range, other: range) -> range:
    """Return the seeds that are in both ranges."""
    return range(max(one.start, other.start), min(one.stop, other.stop))


def broken(last: Plan, plan: Plan) -> list[str]:
    """Return the promises that the later plan changes; plans that promise nothing break none."""
    return last.changed(plan) if last.promises or plan.promises else []
