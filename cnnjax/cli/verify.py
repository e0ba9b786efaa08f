"""The `verify` command."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from cnnjax.cli.formats import TEXT, Formatted, Record
from cnnjax.cli.output import printable
from cnnjax.cli.runner import shown
from cnnjax.errors import ArgumentError, UserError
from cnnjax.files.misspelt import did_you_mean
from cnnjax.files.problem import wrong_and_advice

RESTORE = "restore it from a copy"
"""What to do about a problem that says nothing itself, and that going on does not mend."""


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
    output: Formatted = TEXT

    def __call__(self) -> None:
        """Print a line for each directory, and one for each problem."""
        if not self.directories:
            raise ArgumentError("no directory given; name the directory of a run or an experiment")
        found = [_records(path) for path in self.directories]
        self.output.lines([record for records in found for record in records], _line)
        if damaged := sum(not records[0]["whole"] for records in found):
            raise UserError(f"{damaged} of {len(self.directories)} directories are not whole")


def _records(path: Path) -> list[Record]:
    """Return a record for each problem of a directory; if it is whole, one that says how far it has come."""
    from cnnjax.experiment import verification as of_experiments
    from cnnjax.runs import verification as of_runs

    if of_runs.holds_run(path):
        kind, found, mends = "run", of_runs.problems(path), f"train --resume --out {path} mends it"
        state = None if found else of_runs.progress(path)
    elif of_experiments.holds_experiment(path):
        kind, found = "experiment", of_experiments.problems(path)
        mends, state = "the same experiment, run again, mends it", kind
    else:
        near = did_you_mean(
            path, lambda each: of_runs.holds_run(each) or of_experiments.holds_experiment(each)
        )
        raise ArgumentError(
            f"{path} is neither a run nor an experiment{near}; give the --out directory of one"
        )
    same = {"directory": printable(str(path)), "kind": kind, "whole": not found}
    if not found:
        return [{**same, "state": state, "problem": None, "remedy": None}]
    parts = ((each.text, mends) if each.heals else wrong_and_advice(each.text) for each in found)
    return [
        {**same, "state": None, "problem": printable(wrong), "remedy": printable(remedy or RESTORE)}
        for wrong, remedy in parts
    ]


def _line(record: Record) -> str:
    if record["whole"]:
        return f"{record['directory']}: whole, {record['state']}"
    return f"{record['directory']}: {record['problem']}; {record['remedy']}"
