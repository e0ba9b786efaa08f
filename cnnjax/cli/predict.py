"""The `predict` command."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
import tyro

from cnnjax.cli.formats import TEXT, Formatted, Record, cells
from cnnjax.cli.output import printable
from cnnjax.cli.runner import DataDirectory, RunDirectory, shown
from cnnjax.data import Dataset, load, training_split
from cnnjax.deploy import digits, paper, pictures
from cnnjax.errors import ArgumentError, UserError

if TYPE_CHECKING:
    from cnnjax.deploy.predict import Trained

MOST_MASKS = 10_000
MOST_COLUMNS = 10
"""Most classes with a column each, where the terminal is wide enough."""


@dataclass(frozen=True)
class Predict:
    """Print class probabilities for image files or for images of the data set.

    Image files may have any size and colours. For grey images of 28 x 28 they
    may be dark on light or light on dark, and are brought into the form of MNIST:
    light on black, 20 pixels high or wide, with the centre of mass in the middle.
    For other data sets they are resized to the size of its images.

    Example: cnnjax predict runs/keras-cnn-seed0 three.png five.jpg

    Example: cnnjax predict runs/keras-cnn-seed0 --first 10 --split train --mc 100
    """

    run: RunDirectory
    images: Annotated[tuple[Path, ...], tyro.conf.Positional, shown("[IMAGE ...]")] = ()
    """Image files; omit them to predict labelled images of the run's data set."""
    first: Annotated[int | None, shown("INT", 5)] = None
    """Number of images of the data set, from the start of the split."""
    split: Annotated[Literal["train", "test"] | None, shown("train|test", "test")] = None
    """Split of the data set, in the order of its files."""
    mc: Annotated[int | None, shown("N", "no dropout")] = None
    """Monte-Carlo dropout: mean and standard deviation of the probabilities over N random masks."""
    seed: Annotated[int | None, shown("INT", 0)] = None
    """Seed of the --mc masks."""
    mistakes: bool = False
    """Also print the most confused pairs of test classes and draw the worst mistakes (RUN/confused.png)."""
    data_dir: DataDirectory = None
    output: Formatted = TEXT

    def __call__(self) -> None:
        """Print the table, then notes on single images."""
        self._check()
        from cnnjax.deploy.predict import trained

        read = [pictures.read(path) for path in self.images]
        network = trained(self.run, self.output.announce)
        self._predict_files(network, read) if read else self._predict_dataset(network)

    def _check(self) -> None:
        """Reject invalid flags before any work is done."""
        if self.images and (self.first is not None or self.split is not None or self.mistakes):
            raise ArgumentError(
                "--first, --split and --mistakes select images of the data set; use these flags or image "
                "files, not both"
            )
        if self.first is not None and self.first < 1:
            raise ArgumentError(f"--first {self.first} must be at least 1")
        if self.mc is not None and not 2 <= self.mc <= MOST_MASKS:
            raise ArgumentError(f"--mc {self.mc} must lie between 2 and {MOST_MASKS:,}")
        if self.seed is not None and self.mc is None:
            raise ArgumentError("--seed is the seed of the --mc masks; add --mc N")
        if self.seed is not None and not 0 <= self.seed < 2**32:
            raise ArgumentError(f"--seed {self.seed} must lie between 0 and 4294967295")

    def _predict_files(self, network: "Trained", read: Sequence[pictures.Picture]) -> None:
        box = digits.BOX if network.config.dataset == "mnist" else digits.SIDE
        converted, remarks = [], []
        for path, picture in zip(self.images, read, strict=True):
            try:
                if network.image_shape == (digits.SIDE, digits.SIDE, 1):
                    drawing = (
                        paper.cleaned(picture.pixels) if box == digits.BOX else paper.Cleaned(picture.pixels)
                    )
                    converted.append(digits.digit(drawing.pixels, box)[..., None])
                    remarks.append(drawing.remarks)
                else:
                    converted.append(pictures.resized(picture, network.image_shape))
                    remarks.append(())
            except UserError as error:
                raise UserError(f"{path}: {error}") from error
        images = np.stack(converted)
        # A file name may hold bytes that are no text and cannot be printed.
        names = [printable(os.fsencode(path).decode(errors="replace")) for path in self.images]
        unlabelled = Dataset(images, np.zeros(len(images), np.int32), network.class_names)
        self._print_table(network, names, unlabelled, "")
        for name, picture, said in zip(names, read, remarks, strict=True):
            for remark in (("the first of its frames is used",) * picture.animated) + said:
                self.output.announce(f"{name}: {remark}")
        self._warn_if_unlike(network, names, images)

    def _warn_if_unlike(self, network: "Trained", names: Sequence[str], images: np.ndarray) -> None:
        """Name the images that are farther from the training images than the validation images are."""
        from cnnjax.deploy.likeness import UNLIKE, shares_as_far
        from cnnjax.deploy.predict import same_data

        try:
            loaded = load(
                network.config.dataset, self.data_dir or network.data_dir, announce=self.output.announce
            )
            loaded = same_data(network, loaded)
        except UserError as error:
            self.output.announce(f"the likeness to {network.config.dataset} is not known: {error}")
            return
        shares = shares_as_far(images, *training_split(loaded, network.config.train_split))
        for name, share in zip(names, shares, strict=True):
            if share <= UNLIKE:
                self.output.announce(
                    f"{name} is unlike the images of {loaded.name}: farther from its nearest training image "
                    f"than {1 - share:.1%} of the validation images; do not trust the prediction"
                )

    def _predict_dataset(self, network: "Trained") -> None:
        from cnnjax import report
        from cnnjax.deploy.predict import description, probabilities, same_data
        from cnnjax.experiment.results import Predictions
        from cnnjax.runs.run_directory import list_made

        config, first, split = network.config, self.first or 5, self.split or "test"
        loaded = load(config.dataset, self.data_dir or network.data_dir, announce=self.output.announce)
        loaded = same_data(network, loaded)
        images = loaded.train if split == "train" else loaded.test
        if first > len(images.labels):
            raise ArgumentError(f"--first {first} is too many; there are {len(images.labels):,} images")
        images = images._replace(images=images.images[:first], labels=images.labels[:first])
        names = list(map(str, range(first)))
        title = f", {split} images of {loaded.name}"
        predicted = self._print_table(network, names, images, title, labels=True)
        if not self.output.alone:
            print(f"{int(np.sum(predicted == images.labels))} of {first} right")
        if self.mistakes:
            p = probabilities(network, loaded.test)
            predictions = {"this run": Predictions(np.argmax(p, axis=1)[None], np.max(p, axis=1)[None])}
            if not self.output.alone:
                report.print_confusions(predictions, loaded.test)
            caption = f"{description(network)}, seed {config.seed}"
            report.draw(self.run, report.confusion_figure(predictions, loaded.test, caption))
            list_made(self.run / "confused.png")
            self.output.announce(f"the images are in {self.run / 'confused.png'}")

    def _print_table(
        self, network: "Trained", names: Sequence[str], images: Dataset, title: str, labels: bool = False
    ) -> np.ndarray:
        """Print the probabilities, or their means over masks; return the predicted classes."""
        from cnnjax.deploy.predict import description, probabilities, sampled
        from cnnjax.report import fits, say

        if self.mc is None:
            mean, spread = probabilities(network, images), None
        else:
            mean, spread = sampled(network, images, self.mc, self.seed or 0)
            title += f": mean ± standard deviation over {self.mc} masks"
        predicted, classes = np.argmax(mean, axis=1), network.class_names
        records = [
            {
                "image": name,
                **({"label": classes[images.labels[i]]} if labels else {}),
                "predicted": classes[predicted[i]],
                "probability": mean[i, predicted[i]],
                **{f"p_{each}": mean[i, k] for k, each in enumerate(classes)},
                **({} if spread is None else {f"sd_{each}": spread[i, k] for k, each in enumerate(classes)}),
            }
            for i, name in enumerate(names)
        ]

        def probability(record: Record, name: str) -> str:
            return f"{record[f'p_{name}']:.2f}" + (
                f" ±{record[f'sd_{name}']:.2f}" if spread is not None else ""
            )

        def second(record: Record) -> str:
            others = [name for name in classes if name != record["predicted"]]
            name = max(others, key=lambda name: record[f"p_{name}"])
            return f"{name} {probability(record, name)}"

        first: dict[str, Callable[[Any], str]] = {"image": lambda row: row["image"]}
        if labels:
            first["label"] = lambda row: row["label"]
        first["predicted"] = lambda row: row["predicted"]
        first["probability"] = lambda row: probability(row, row["predicted"])
        every = first | {name: lambda row, name=name: probability(row, name) for name in classes}
        columns = first | ({"then": second} if len(classes) > 1 else {})
        if not self.output.alone:
            say(description(network) + title)
            few = len(classes) <= MOST_COLUMNS and not first.keys() & set(classes)
            if few and fits(*cells(records, every)):
                columns = every
        self.output.table(records, columns)
        return predicted
