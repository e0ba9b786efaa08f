"""The `runs` command."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from cnnjax.cli.formats import TEXT, Columns, Formatted, Record
from cnnjax.cli.output import printable
from cnnjax.cli.runner import shown
from cnnjax.errors import ArgumentError
from cnnjax.files.misspelt import did_you_mean


@dataclass(frozen=True)
class Runs:
    """List the runs and experiments under a directory.

    A run is read as evaluate reads it: what its checksums do not confirm is
    listed as damaged, and verify says why. The accuracies of an experiment are
    those of its arms, which report shows.

    Example: cnnjax runs results
    """

    directory: Annotated[Path, tyro.conf.Positional, shown("[DIR]", "the working directory")] = Path()
    """Directory of runs and experiments."""
    output: Formatted = TEXT

    def __call__(self) -> None:
        """Print a row for each."""
        from cnnjax.report import say
        from cnnjax.report.listing import listed

        if not self.directory.is_dir():
            near = did_you_mean(self.directory, Path.is_dir)
            raise ArgumentError(f"{self.directory} is not a directory{near}")
        found = list(listed(self.directory))
        records = [{**each._asdict(), "directory": printable(str(each.directory))} for each in found]
        if records or self.output.alone:
            self.output.table(records, COLUMNS)
        else:
            say(f"there are no runs and no experiments in {printable(str(self.directory))}")


def _epochs(row: Record) -> str:
    done, asked = row["epochs"], row["of_epochs"]
    return f"{done}" if asked in (None, done) else f"{done}/{asked}"


def _accuracy(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


COLUMNS: Columns = {
    "directory": lambda row: row["directory"],
    "network": lambda row: row["model"] or "-",
    "data": lambda row: (row["dataset"] or "-").rpartition("/")[2].removeprefix("memory:"),
    "epochs": _epochs,
    "val": lambda row: _accuracy(row["val_accuracy"]),
    "test": lambda row: _accuracy(row["test_accuracy"]),
    "state": lambda row: row["state"],
}
