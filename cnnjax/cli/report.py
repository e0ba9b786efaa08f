"""The `report` command."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from cnnjax.cli.runner import DataDirectory, shown
from cnnjax.errors import ArgumentError


@dataclass(frozen=True)
class Report:
    """Write an interactive HTML report; one self-contained file, works offline.

    Example: cnnjax report runs/keras-cnn-seed0 results/dropout
    """

    directories: Annotated[tuple[Path, ...], tyro.conf.Positional, shown("DIR ...")]
    """Directories of runs and experiments."""
    out: Annotated[Path | None, shown("FILE", "report.html in the first directory")] = None
    """File to write; an existing one is replaced."""
    data_dir: DataDirectory = None

    def __call__(self) -> None:
        """Write the file and print its path."""
        from cnnjax.report import html, say

        if not self.directories:
            raise ArgumentError("no directory given; name the directory of a run or an experiment")
        out = self.out or self.directories[0] / "report.html"
        html.write(self.directories, out, self.data_dir, say)
        say(f"report in {out}: open it in a browser")
