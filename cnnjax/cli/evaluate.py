"""The command `evaluate`."""

from dataclasses import dataclass
from typing import Literal

from rich.table import Table

from cnnjax.cli.runner import DataDirectory, RunDirectory


@dataclass(frozen=True)
class Evaluate:
    """Score a trained run on a whole split, as Keras's model.evaluate does: loss and accuracy.

    Each accuracy has its 95% Wilson interval: where the accuracy on endlessly many such images would lie.
    Another seed is another matter: for that, run an experiment.

    Example: cnnjax evaluate runs/keras-cnn-seed0 --split validation
    """

    run: RunDirectory
    """Run directory, the --out of a train command."""
    split: Literal["train", "validation", "test"] = "test"
    """Which images; train is the part that the run learnt from."""
    data_dir: DataDirectory = None
    """Directory with the four IDX files; the run's own unless given."""

    def __call__(self) -> None:
        """Print a row for each class and one for all."""
        from cnnjax.data import load
        from cnnjax.deploy.evaluation import Share, part, scores
        from cnnjax.deploy.predict import told, trained
        from cnnjax.report import console

        network = trained(self.run)
        loaded = load(network.config.dataset, self.data_dir or network.data_dir, announce=print)
        found = scores(network, part(loaded, network.config, self.split))
        table = Table(
            *("class", "images", "right", "accuracy", "95% interval"),
            title=f"{told(network)}, {self.split} images of {network.config.dataset}",
        )
        for column in table.columns[1:]:
            column.justify = "right"

        def row(name: str, share: Share) -> None:
            interval = f"{share.low:.4f} to {share.high:.4f}"
            table.add_row(name, f"{share.n:,}", f"{share.right:,}", f"{share.accuracy:.4f}", interval)

        for label, share in found.classes.items():
            row(str(label), share)
        table.add_section()
        row("all", found.total)
        console().print(table)
        total = found.total
        print(
            f"loss {found.loss:.4f}, accuracy {total.accuracy:.4f} [{total.low:.4f}, {total.high:.4f}], "
            f"n = {total.n:,}"
        )
