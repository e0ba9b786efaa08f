"""The `compare` command."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from cnnjax.cli.formats import TEXT, Columns, Formatted, Record
from cnnjax.cli.output import printable
from cnnjax.cli.runner import DataDirectory, shown
from cnnjax.data import load
from cnnjax.errors import ArgumentError


@dataclass(frozen=True)
class Compare:
    """Print the settings in which runs differ, and their accuracies.

    Accuracies have 95% Wilson intervals. Where all runs are evaluated on the same
    images, their differences from the first run are paired by image. All of these
    intervals cover other images, not other seeds: each run is one seed. To
    compare settings, run an experiment.

    Example: cnnjax compare runs/keras-cnn-seed0 runs/no-dropout
    """

    runs: Annotated[tuple[Path, ...], tyro.conf.Positional, shown("RUN RUN ...")]
    """Run directories; differences are from the first."""
    split: Literal["validation", "test"] = "test"
    """Images to evaluate."""
    data_dir: DataDirectory = None
    output: Formatted = TEXT

    def __call__(self) -> None:
        """Print a table of settings and one of metrics; programs get one record for each run."""
        from cnnjax.deploy.comparison import compared, differing
        from cnnjax.deploy.evaluation import part
        from cnnjax.deploy.predict import same_data, trained
        from cnnjax.report import print_table, say

        if len(self.runs) < 2:
            raise ArgumentError("compare needs two or more run directories")
        announce = self.output.announce
        networks = [trained(run, announce) for run in self.runs]
        images = []
        for network in networks:
            loaded = load(network.config.dataset, self.data_dir or network.data_dir, announce=announce)
            images.append(part(same_data(network, loaded), network.config, self.split))
        settings = differing(networks)
        records = [
            {
                "run": printable(str(run)),
                **{name: values[i] for name, values in settings.items()},
                "images": scores.total.n,
                "loss": scores.loss,
                "accuracy": scores.total.accuracy,
                "accuracy_low": scores.total.low,
                "accuracy_high": scores.total.high,
                "difference": apart.mean,
                "difference_low": apart.low,
                "difference_high": apart.high,
            }
            for i, (run, (scores, apart)) in enumerate(
                zip(self.runs, compared(networks, images), strict=True)
            )
        ]
        if self.output.alone:
            return self.output.write(records)
        if settings:
            rows = [[name, *map(str, values)] for name, values in settings.items()]
            print_table(["setting", *(record["run"] for record in records)], rows)
        else:
            say("The runs have the same settings.")
        say(f"Accuracy on {self.split} images, and differences from {records[0]['run']} in points:")
        self.output.table(records, COLUMNS)
        if any(math.isnan(record["difference"]) for record in records[1:]):
            say("No difference is given where the images are not those of the first run.")
        say("The intervals cover other images, not other seeds: each run is one seed.")
        return None


def _difference(row: Record) -> str:
    """Return a difference in percentage points with its interval."""
    if math.isnan(row["difference"]):
        return "-"
    low, high = 100 * row["difference_low"], 100 * row["difference_high"]
    return f"{100 * row['difference']:+.2f} [{low:+.2f}, {high:+.2f}]"


COLUMNS: Columns = {
    "run": lambda row: row["run"],
    "n": lambda row: f"{row['images']:,}",
    "loss": lambda row: f"{row['loss']:.4f}",
    "accuracy [95%]": lambda row: "{accuracy:.4f} [{accuracy_low:.4f}, {accuracy_high:.4f}]".format(**row),
    "difference [95%]": _difference,
}
