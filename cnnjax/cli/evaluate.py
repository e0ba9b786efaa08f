"""The `evaluate` command."""

from dataclasses import dataclass
from typing import Literal

from cnnjax.cli.formats import TEXT, Columns, Formatted
from cnnjax.cli.runner import DataDirectory, RunDirectory
from cnnjax.data import load

COLUMNS: Columns = {
    "class": lambda row: row["class"],
    "images": lambda row: f"{row['images']:,}",
    "right": lambda row: f"{row['right']:,}",
    "accuracy": lambda row: f"{row['accuracy']:.4f}",
    "95% interval": lambda row: f"{row['accuracy_low']:.4f} to {row['accuracy_high']:.4f}",
}


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
    output: Formatted = TEXT

    def __call__(self) -> None:
        """Print a row for each class and one for all images."""
        from cnnjax.deploy.evaluation import part, scores
        from cnnjax.deploy.predict import description, same_data, trained
        from cnnjax.report import say

        announce = self.output.announce
        network = trained(self.run, announce)
        loaded = load(network.config.dataset, self.data_dir or network.data_dir, announce=announce)
        loaded = same_data(network, loaded)
        result = scores(network, part(loaded, network.config, self.split))
        total = result.total
        classes = [(network.class_names[label], share) for label, share in result.classes.items()]
        records = [
            {
                "class": name,
                "images": share.n,
                "right": share.right,
                "accuracy": share.accuracy,
                "accuracy_low": share.low,
                "accuracy_high": share.high,
                "loss": result.loss if share is total else None,
            }
            for name, share in (*classes, ("all", total))
        ]
        if not self.output.alone:
            say(f"{description(network)}, {self.split} images of {loaded.name}")
        self.output.table(records, COLUMNS)
        if not self.output.alone:
            say(
                f"loss {result.loss:.4f}, accuracy {total.accuracy:.4f} [{total.low:.4f}, {total.high:.4f}], "
                f"n = {total.n:,}"
            )
