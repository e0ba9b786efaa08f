"""The plan that a run follows and the looks at its results, kept in its directory."""

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from cnnjax.devices.processes import from_leader, leads
from cnnjax.errors import ArgumentError
from cnnjax.experiment.plans import (
    Evidence,
    Look,
    Stated,
    entered,
    read_looks,
    read_plans,
    remarks,
    require_look,
    shared,
    write_looks,
    write_plans,
)
from cnnjax.stats.families import ALPHA
from cnnjax.stats.plan import Plan


class Ledger:
    """The plans and looks of a results directory; with several processes, the leading one keeps them."""

    def __init__(
        self, out: Path, plan: Plan | None, default: Plan, rows_of: Callable[[range], int], replan: bool
    ) -> None:
        """Open the directory.

        Args:
            out: the directory.
            plan: to follow; by default the last one from the same seed, or `default`.
            default: promises nothing; has the run's seeds.
            rows_of: counts the rows of seeds.
            replan: see `entered`.

        Raises:
            ArgumentError: see `entered`, or the plan has looks with other numbers of seeds.
            UserError: plan.json is damaged.
        """
        self._out, self._rows_of, self._plan = out, rows_of, plan or default
        self._stated: tuple[Stated, ...] = ()
        self._written: tuple[Stated, ...] = ()
        if leads():
            self._written = read_plans(out)
            if plan is None:
                here = [each.plan for each in self._written if each.plan.first_seed == default.first_seed]
                self._plan = ([each for each in here if each.promises] or [default])[-1]
            require_look(self._plan, default.seeds)
            try:
                self._stated = entered(self._written, self._plan, rows_of, _now(), replan=replan)
            except ArgumentError as error:
                raise ArgumentError(f"{out}: {error}") from None

    def write(self) -> None:
        """Write plan.json if it is to change; before the first epoch of the plan's seeds."""
        if self._stated != self._written:
            write_plans(self._out, self._stated)
            self._written = self._stated

    def look(self, seeds: range) -> Evidence:
        """Record that results of these seeds are looked at, and return what to say with them."""
        evidence = Evidence(plan := self._plan, ALPHA, (), ())  # replaced by the leader's
        if leads():
            looks = read_looks(self._out)
            now = Look(_now(), len(seeds), seeds.start, plan.sha256, self._rows_of(seeds))
            if (now.seeds, now.first_seed, now.rows) not in [(e.seeds, e.first_seed, e.rows) for e in looks]:
                looks = [*looks, now]
                write_looks(self._out, looks)
            numbers = tuple(sorted({each.seeds for each in looks if each.first_seed == seeds.start}))
            ranges = {each.numbers for each in looks if each.first_seed != seeds.start}
            overlaps = sum(bool(shared(each, seeds)) for each in ranges)
            said = remarks(self._stated, plan, numbers, len(seeds), overlaps)
            evidence = Evidence(plan, plan.level(len(seeds)), numbers, said)
        return from_leader(evidence)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
