"""The `merge` command."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from cnnjax.cli.runner import shown


@dataclass(frozen=True)
class Merge:
    """Join the seeds of one experiment that several machines computed.

    Example: cnnjax merge results/a results/b --out results/dropout
    with a from --seeds 6, and b from --first-seed 6 --seeds 6.
    """

    directories: Annotated[tuple[Path, ...], tyro.conf.Positional, shown("DIR DIR ...")]
    """Directories of the same experiment, of other seeds."""
    out: Path
    """Directory to write, new or empty; the experiment goes on in it, with all seeds."""

    def __call__(self) -> None:
        """Join them and print what there is."""
        from cnnjax import experiment
        from cnnjax.report import say
        from cnnjax.stats.sentences import plural

        rows = experiment.merge(self.directories, self.out)
        arms, seeds = {arm for arm, _, _ in rows}, sorted({seed for _, seed, _ in rows})
        held = f"{plural(len(rows), 'row')} of {plural(len(arms), 'arm')}"
        say(f"{held}, seeds {seeds[0]} to {seeds[-1]}, in {self.out}")
        first = f"--first-seed {seeds[0]} " if seeds[0] else ""
        say(f"the experiment's own command with {first}--seeds {len(seeds)} --out {self.out} reports them")
