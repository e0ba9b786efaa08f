"""The command `predict`."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro
from rich.markup import escape
from rich.table import Column, Table

from cnnjax.cli.runner import DataDirectory, RunDirectory
from cnnjax.errors import ArgumentError, UserError

if TYPE_CHECKING:
    import numpy as np

    from cnnjax.data import Dataset
    from cnnjax.deploy.pictures import Picture
    from cnnjax.deploy.predict import Trained

MOST_MASKS = 10_000


@dataclass(frozen=True)
class Predict:
    """Show what a trained run says of images: class probabilities, for files or the data set.

    A picture file may have any size and colours, dark on light or light on dark: what is drawn is brought to
    light on black, 20 pixels high or wide, its centre of mass in the middle of 28 x 28, as in MNIST.

    Examples: cnnjax predict runs/keras-cnn-seed0 three.png five.jpg
              cnnjax predict runs/keras-cnn-seed0 --first 10 --split test --mc 100
    """

    run: RunDirectory
    """Run directory, the --out of a train command."""
    images: Annotated[
        tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="[IMAGE ...]", help_behavior_hint="")
    ] = ()
    """Picture files; without them, images of the run's data set, with their labels."""
    first: Annotated[int | None, tyro.conf.arg(metavar="INT", help_behavior_hint="(default: 5)")] = None
    """How many images of the data set, from the first on."""
    split: Annotated[
        Literal["train", "test"] | None,
        tyro.conf.arg(metavar="train|test", help_behavior_hint="(default: train)"),
    ] = None
    """Which images of the data set, in the order of its files."""
    mc: Annotated[int | None, tyro.conf.arg(metavar="N", help_behavior_hint="(default: no dropout)")] = None
    """Monte-Carlo dropout: keep dropout on and ask N times, each with another mask; the table then shows the
    mean probability and, below it, the spread (standard deviation). A large spread: the answer hangs on
    few features."""
    seed: Annotated[int | None, tyro.conf.arg(metavar="INT", help_behavior_hint="(default: 0)")] = None
    """Root of the masks of --mc."""
    mistakes: bool = False
    """Also name the pairs of classes that are confused most often among the test images, and draw the worst
    ones in confused.png in the run directory."""
    data_dir: DataDirectory = None
    """Directory with the four IDX files; the run's own unless given."""

    def __call__(self) -> None:
        """Print the table, and what there is to say of single images."""
        self._check()
        from cnnjax.deploy import pictures
        from cnnjax.deploy.predict import trained

        read = [pictures.read(path) for path in self.images]
        network = trained(self.run)
        if read:
            self._of_pictures(network, read)
        else:
            self._of_data_set(network)

    def _check(self) -> None:
        """Refuse flags that do not go together, before any work is done."""
        if self.images and (self.first is not None or self.split is not None or self.mistakes):
            raise ArgumentError(
                "--first, --split and --mistakes are about the data set: leave them or the files away"
            )
        if self.first is not None and self.first < 1:
            raise ArgumentError(f"--first {self.first} must be at least 1")
        if self.mc is not None and not 2 <= self.mc <= MOST_MASKS:
            raise ArgumentError(f"--mc {self.mc} must lie between 2 and {MOST_MASKS:,}")
        if self.seed is not None and self.mc is None:
            raise ArgumentError("--seed is that of the masks of --mc: give --mc N too")
        if self.seed is not None and not 0 <= self.seed < 2**32:
            raise ArgumentError(f"--seed {self.seed} must lie between 0 and 4294967295")

    def _of_pictures(self, network: "Trained", read: Sequence["Picture"]) -> None:
        import numpy as np

        from cnnjax.data import Dataset
        from cnnjax.deploy import digits

        box = digits.BOX if network.config.dataset == "mnist" else digits.SIDE
        found = []
        for path, picture in zip(self.images, read, strict=True):
            try:
                found.append(digits.digit(picture.pixels, box))
            except UserError as error:
                raise UserError(f"{path}: {error}") from error
        images = np.stack(found)[..., None]
        # What is no text in a file's name cannot be printed.
        names = [os.fsencode(path).decode(errors="replace") for path in self.images]
        self._print(network, names, Dataset(images, np.zeros(len(images), np.int32)), "")
        for name, picture in zip(names, read, strict=True):
            if picture.animated:
                print(f"{name}: the first of its frames was taken")
        self._tell_unlike(network, names, images)

    def _tell_unlike(self, network: "Trained", names: Sequence[str], images: "np.ndarray") -> None:
        """Name the images that are farther from the training images than the validation images are."""
        from cnnjax.data import load, training_split
        from cnnjax.deploy.likeness import UNLIKE, shares_as_far

        dataset = network.config.dataset
        try:
            loaded = load(dataset, self.data_dir or network.data_dir, announce=print)
        except UserError as error:
            print(f"whether they are like the images of {dataset} is not known: {error}")
            return
        shares = shares_as_far(images, *training_split(loaded, network.config.train_split))
        for name, share in zip(names, shares, strict=True):
            if share <= UNLIKE:
                print(
                    f"{name} is unlike the images of {dataset}: it lies farther from the nearest of them "
                    f"than {1 - share:.1%} of the validation images do; do not trust the answer"
                )

    def _of_data_set(self, network: "Trained") -> None:
        import numpy as np

        from cnnjax import report
        from cnnjax.data import Dataset, load
        from cnnjax.deploy.predict import probabilities, told
        from cnnjax.experiment.results import Predictions

        config, first, split = network.config, self.first or 5, self.split or "train"
        loaded = load(config.dataset, self.data_dir or network.data_dir, announce=print)
        images = loaded.train if split == "train" else loaded.test
        if first > len(images.labels):
            raise ArgumentError(f"--first {first} is more than the {len(images.labels):,} images there are")
        images = Dataset(images.images[:first], images.labels[:first])
        names = list(map(str, range(first)))
        said = self._print(network, names, images, f", {split} images of {config.dataset}", labels=True)
        right = int(np.sum(np.argmax(said, axis=1) == images.labels))
        print(f"{right} of {first} right")
        if self.mistakes:
            every = probabilities(network, loaded.test)
            best = Predictions(np.argmax(every, axis=1)[None], np.max(every, axis=1)[None])
            report.print_confusions({"this run": best}, loaded.test)
            title = f"{told(network)}, seed {config.seed}"
            report.draw(self.run, report.confusion_figure({"this run": best}, loaded.test, title))
            print(f"the images are in {self.run / 'confused.png'}")

    def _print(
        self, network: "Trained", names: Sequence[str], images: "Dataset", what: str, labels: bool = False
    ) -> "np.ndarray":
        """The table of class probabilities, which are returned: of the network, or means over masks."""
        import numpy as np

        from cnnjax.deploy.predict import probabilities, sampled, told
        from cnnjax.report import console

        if self.mc is None:
            said, spread = probabilities(network, images), None
        else:
            said, spread = sampled(network, images, self.mc, self.seed or 0)
            what += f"; mean and spread over {self.mc} masks"
        columns = [
            Column("image", overflow="fold"),
            *map(str, range(said.shape[1])),
            *["label"] * labels,
            "predicted",
        ]
        table = Table(*columns, title=told(network) + what)
        for i, (name, row) in enumerate(zip(names, said, strict=True)):
            cells = [f"{p:.2f}" for p in row]
            if spread is not None:
                cells = [f"{cell}\n±{sd:.2f}" for cell, sd in zip(cells, spread[i], strict=True)]
            table.add_row(escape(name), *cells, *[str(images.labels[i])] * labels, str(np.argmax(row)))
        console().print(table)
        return said
