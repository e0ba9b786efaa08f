"""The `verify` command."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from cnnjax.cli.output import printable
from cnnjax.cli.runner import shown
from cnnjax.errors import ArgumentError, UserError


@dataclass(frozen=True)
class Verify:
    """Check that the files of runs and experiments are whole and belong together.

    Every file is compared with the checksums and numbers that others record of
    it. Nothing is changed; what train --resume or the same experiment mends is
    marked.

    Example: cnnjax verify runs/keras-cnn-seed0 results/dropout
    """

    directories: Annotated[tuple[Path, ...], tyro.conf.Positional, shown("DIR ...")]
    """Directories of runs and experiments."""

    def __call__(self) -> None:
        """Print a line for each directory, and one for each problem."""
        if not self.directories:
            raise ArgumentError("no directory given; name the directory of a run or an experiment")
        damaged = [path for path in self.directories if not _whole(path)]
        if damaged:
            raise UserError(f"{len(damaged)} of {len(self.directories)} directories are not whole")


def _whole(path: Path) -> bool:
    """Print what is wrong with a directory; return whether nothing is."""
    from cnnjax.experiment import verification as of_experiments
    from cnnjax.runs import verification as of_runs
    from cnnjax.runs.run_directory import did_you_mean

    if of_runs.holds_run(path):
        found, about = of_runs.problems(path), "run"
        mends = f"train --resume --out {path} mends it"
    elif of_experiments.holds_experiment(path):
        found, about = of_experiments.problems(path), "experiment"
        mends = "the same experiment, run again, mends it"
    else:
        near = did_you_mean(
            path, lambda each: of_runs.holds_run(each) or of_experiments.holds_experiment(each)
        )
        raise ArgumentError(
            f"{path} is neither a run nor an experiment{near}; give the --out directory of one"
        )
    name = printable(str(path))
    if not found:
        print(f"{name}: whole, {of_runs.progress(path) if about == 'run' else about}")
    for problem in found:
        remedy = mends if problem.heals else "restore it from a copy"
        print(f"{name}: {printable(problem.text)}; {printable(remedy)}")
    return not found
