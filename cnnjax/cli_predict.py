"""The command `predict`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro
from rich.table import Table

from cnnjax.errors import ArgumentError


@dataclass(frozen=True)
class Predict:
    """Show what a trained run says of images: class probabilities, with the labels beside."""

    run: Annotated[Path, tyro.conf.Positional]
    """Run directory, the --out of a train command."""
    first: int = 5
    """How many images, from the first on."""
    split: Literal["train", "test"] = "train"
    """Which images, in the order of the data set's files."""
    mistakes: bool = False
    """Also name the pairs of classes that are confused most often among the test images, and draw the worst
    ones in confused.png in the run directory."""
    data_dir: Path | None = None
    """Directory with the four IDX files; the run's own unless given."""

    def __call__(self) -> None:
        """Print the table."""
        import numpy as np

        from cnnjax import report
        from cnnjax.cli import wide_console
        from cnnjax.data import Dataset, load
        from cnnjax.predict import probabilities, trained
        from cnnjax.results import Predictions

        if self.first < 1:
            raise ArgumentError(f"--first {self.first} must be at least 1")
        network = trained(self.run)
        loaded = load(network.config.dataset, self.data_dir or network.data_dir, announce=print)
        images = getattr(loaded, self.split)
        if self.first > len(images.labels):
            raise ArgumentError(
                f"--first {self.first} is more than the {len(images.labels):,} images there are"
            )
        images = Dataset(*(part[: self.first] for part in images))
        said = probabilities(network, images)
        config, many = network.config, "s" * (network.epochs > 1)
        told = f"{config.model} after {network.epochs} epoch{many}, {self.split} images of {config.dataset}"
        table = Table("image", *map(str, range(said.shape[1])), "label", "predicted", title=told)
        for i, (row, label) in enumerate(zip(said, images.labels, strict=True)):
            table.add_row(str(i), *(f"{p:.2f}" for p in row), str(label), str(np.argmax(row)))
        wide_console().print(table)
        right = int(np.sum(np.argmax(said, axis=1) == images.labels))
        print(f"{right} of {self.first} right")
        if self.mistakes:
            every = probabilities(network, loaded.test)
            best = Predictions(np.argmax(every, axis=1)[None], np.max(every, axis=1)[None])
            report.tell_confusions({"this run": best}, loaded.test)
            told = f"{config.model} after {network.epochs} epoch{many}, seed {config.seed}"
            report.draw(self.run, report.confusion_figure({"this run": best}, loaded.test, told))
            print(f"the images are in {self.run / 'confused.png'}")
