"""The `power` command."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from cnnjax.cli.formats import TEXT, Formatted
from cnnjax.cli.runner import shown
from cnnjax.errors import ArgumentError


@dataclass(frozen=True)
class Power:
    """Say how many paired seeds a question needs, and how long they take here.

    Example: cnnjax power --effect 0.2 --pilot results/dropout_ablation_quick
    """

    effect: float
    """Smallest difference of interest: points of accuracy, or the unit of the pilot's metric."""
    pilot: Annotated[Path | None, shown("DIR", "give --sd")] = None
    """Directory of an experiment: its spread, contrasts and times are used."""
    sd: Annotated[float | None, shown("FLOAT", "the pilot's")] = None
    """Standard deviation of the paired differences, in the same unit."""
    contrasts: Annotated[int | None, shown("INT", "the pilot's, or 1")] = None
    """Contrasts that are corrected together."""
    margin: Annotated[float | None, shown("FLOAT", "none")] = None
    """Also say how many seeds show that no difference is larger than this."""
    output: Formatted = TEXT

    def __call__(self) -> None:
        """Print a table of the seeds for powers of 80% and 90%."""
        from cnnjax import experiment, report
        from cnnjax.stats.sizes import cautious_sd

        if (self.pilot is None) == (self.sd is None):
            raise ArgumentError("give either --pilot or --sd")
        pilot = experiment.read_pilot(self.pilot) if self.pilot else None
        points = pilot is None or "accuracy" in pilot.metric
        scale, unit = (100, " points") if points else (1, "")
        for name in ("effect", "sd", "margin"):
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                raise ArgumentError(f"--{name} {value:g} must be a positive number")
        needs = experiment.power(
            self.effect / scale,
            pilot or (self.sd or 0) / scale,
            contrasts=self.contrasts,
            margin=None if self.margin is None else self.margin / scale,
        )
        records = [
            {
                "power": need.power,
                "seeds": need.seeds,
                "seeds_at_upper_limit": need.cautious,
                "seeds_for_equivalence": need.equivalent,
                "seconds": need.seeds * pilot.seconds if pilot else None,
            }
            for need in needs
        ]
        columns: dict[str, Callable[[Any], str]] = {
            "power": lambda row: f"{row['power']:.0%}",
            f"seeds to find {self.effect:g}{unit}": lambda row: str(row["seeds"]),
        }
        if pilot:
            columns["at the upper limit"] = lambda row: str(row["seeds_at_upper_limit"])
        if self.margin:
            columns[f"to show equal within {self.margin:g}{unit}"] = lambda row: str(
                row["seeds_for_equivalence"]
            )
        if pilot and not math.isnan(pilot.seconds):
            columns["time, as the pilot's"] = lambda row: _time(row["seconds"])
        if pilot and not self.output.alone:
            together = self.contrasts or pilot.contrasts
            report.say(
                f"The paired differences in {pilot.metric} have an sd of {scale * pilot.sd:.3g}{unit} in "
                f"{pilot.n} seeds; its upper 80% limit is {scale * cautious_sd(pilot.sd, pilot.n):.3g}. "
                f"{together} contrast{'s are' if together > 1 else ' is'} tested together."
            )
        self.output.table(records, columns)
        if pilot and not self.output.alone:
            report.say(f"Fresh seeds begin at --first-seed {pilot.next_seed}.")
        elif not self.output.alone:
            report.say(
                "How long they take depends on the network: --pilot DIR tells, after a run of two seeds "
                "(any experiment with --quick, or cnnjax.ablate)."
            )


def _time(seconds: float) -> str:
    for unit, name in ((3600, "h"), (60, "min")):
        if seconds >= 2 * unit:
            return f"{seconds / unit:.1f} {name}"
    return f"{seconds:.0f} s"
