"""The `evaluate` command."""

from dataclasses import dataclass
from typing import Literal

from rich.markup import escape
from rich.table import Table

from cnnjax.cli.runner import DataDirectory, RunDirectory
from cnnjax.data import load


@dataclass(frozen=True)
class Evaluate:
    """Print loss and accuracy of a trained run on a whole split.

    Each accuracy has a 95% Wilson interval, which covers the sampling of images.
    It does not cover the seed: for that, run an experiment.

    Example: cnnjax evaluate runs/keras-cnn-seed0 --split validation
    """

    run: RunDirectory
    split: Literal["train", "validation", "test"] = "test"
    """Images to evaluate; train is the part that the run trained on."""
    data_dir: DataDirectory = None

    def __call__(self) -> None:
        """Print a row for each class and one for all images."""
        from cnnjax.deploy.evaluation import part, scores
        from cnnjax.deploy.predict import description, same_data, trained
        from cnnjax.report import console

        network = trained(self.run)
        loaded = load(network.config.dataset, self.data_dir or network.data_dir, announce=print)
        loaded = same_data(network, loaded)
        result = scores(network, part(loaded, network.config, self.split))
        table = Table(
            *("class", "images", "right", "accuracy", "95% interval"),
            title=f"{description(network)}, {self.split} images of {escape(loaded.name)}",
        )
        for column in table.columns[1:]:
            column.justify = "right"
        total = result.total
        classes = [(escape(network.class_names[label]), share) for label, share in result.classes.items()]
        for number, (name, share) in enumerate((*classes, ("all", total))):
            if number == len(classes):
                table.add_section()
            interval = f"{share.low:.4f} to {share.high:.4f}"
            table.add_row(name, f"{share.n:,}", f"{share.right:,}", f"{share.accuracy:.4f}", interval)
        console().print(table)
        print(
            f"loss {result.loss:.4f}, accuracy {total.accuracy:.4f} [{total.low:.4f}, {total.high:.4f}], "
            f"n = {total.n:,}"
        )
