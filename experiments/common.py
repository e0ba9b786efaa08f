"""What several experiments share: flag checks, training with a progress bar, timing in rounds."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cnnjax import experiment, report
from cnnjax.cli.flags import Flags
from cnnjax.data import Dataset
from cnnjax.errors import ArgumentError
from cnnjax.experiment import Arm, Protocol, Splits
from cnnjax.experiment.results import Results


def require_positive(**flags: int | tuple[int, ...]) -> None:
    """Raise `ArgumentError` if a flag has a value below 1."""
    for name, value in flags.items():
        if np.min(value, initial=1) < 1:
            raise ArgumentError(f"--{name} {value} must be at least 1")


def train(
    flags: Flags,
    arms: Sequence[Arm],
    protocol: Protocol,
    splits: Splits,
    out: Path,
    probes: Mapping[str, Dataset] | None = None,
) -> Results:
    """Run `experiment.run` with the user's flags and a progress bar."""
    with report.member_progress() as progress:
        return experiment.run(
            arms,
            protocol,
            splits,
            out,
            chunk=flags.chunk,
            probes=probes,
            on_nan=flags.on_nan,
            report=progress,
        )


def time_in_rounds(timers: Sequence[Callable[[int], Any]], rounds: int) -> np.ndarray:
    """Call every timer once a round, with the number of the round, and return [timers, rounds, ...].

    Each round starts with another timer, so that background load affects all of them alike.
    """
    times = [[None] * rounds for _ in timers]
    for number in range(rounds):
        for turn in range(len(timers)):
            index = (number + turn) % len(timers)
            times[index][number] = timers[index](number)
    return np.array(times, float)
