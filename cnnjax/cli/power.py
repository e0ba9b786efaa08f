"""The `power` command."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

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

    def __call__(self) -> None:
        """Print a table of the seeds for powers of 80% and 90%."""
        from cnnjax import experiment, report
        from cnnjax.stats.sizes import cautious_sd

        if (self.pilot is None) == (self.sd is None):
            raise ArgumentError("give either --pilot or --sd")
        pilot = experiment.read_pilot(self.pilot) if self.pilot else None
        points = pilot is None or "accuracy" in pilot.metric
        scale, unit = (100, " points") if points else (1, "")
        needs = experiment.power(
            self.effect / scale,
            pilot or (self.sd or 0) / scale,
            contrasts=self.contrasts,
            margin=None if self.margin is None else self.margin / scale,
        )
        columns = {"power": [f"{need.power:.0%}" for need in needs]}
        columns[f"seeds to find {self.effect:g}{unit}"] = [str(need.seeds) for need in needs]
        if pilot:
            together = self.contrasts or pilot.contrasts
            print(
                f"The paired differences in {pilot.metric} have an sd of {scale * pilot.sd:.3g}{unit} in "
                f"{pilot.n} seeds; its upper 80% limit is {scale * cautious_sd(pilot.sd, pilot.n):.3g}. "
                f"{together} contrast{'s are' if together > 1 else ' is'} tested together."
            )
            columns["at the upper limit"] = [str(need.cautious) for need in needs]
        if self.margin:
            columns[f"to show equal within {self.margin:g}{unit}"] = [str(need.equivalent) for need in needs]
        if pilot and not math.isnan(pilot.seconds):
            columns["time, as the pilot's"] = [_time(need.seeds * pilot.seconds) for need in needs]
        report.print_table(list(columns), zip(*columns.values(), strict=True))
        if pilot:
            print(f"Fresh seeds begin at --first-seed {pilot.next_seed}.")


def _time(seconds: float) -> str:
    for unit, name in ((3600, "h"), (60, "min")):
        if seconds >= 2 * unit:
            return f"{seconds / unit:.1f} {name}"
    return f"{seconds:.0f} s"
