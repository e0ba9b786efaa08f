"""The command `report`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from cnnjax.errors import ArgumentError


@dataclass(frozen=True)
class Report:
    """Write a report as one HTML file, to read and to play with in a browser, away from any network.

    Example: cnnjax report runs/keras-cnn-seed0 results/dropout
    """

    directories: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """Directories of runs and of experiments: their --out."""
    out: Annotated[
        Path | None, tyro.conf.arg(metavar="FILE", help_behavior_hint="(default: report.html in the first)")
    ] = None
    """The file."""
    data_dir: Path | None = None
    """Directory with the four IDX files; a run's own unless given."""

    def __call__(self) -> None:
        """Write it, and say where it is."""
        from cnnjax.report import html

        if not self.directories:
            raise ArgumentError("name the directory of a run or an experiment")
        out = self.out or self.directories[0] / "report.html"
        html.write(self.directories, out, self.data_dir)
        print(f"report in {out}: open it in a browser")
