"""The `data` command."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from cnnjax.cli.formats import TEXT, Formatted
from cnnjax.cli.runner import DataDirectory
from cnnjax.data import load, training_split

MOST_LISTED = 10
"""Most classes with a column each."""


@dataclass(frozen=True)
class Data:
    """Download a data set, or read one from files, verify it and show its contents.

    A file of one's own is FILE.npz with x_train, y_train, x_test and y_test;
    FILE.csv with label,pixel0,...; or a directory with a folder of images for
    each class, or with two such directories, train and test. Without test images
    a sixth is set apart. tfds:NAME is what TFDS has prepared as array_record.

    Example: cnnjax data --dataset fashion_mnist

    Example: cnnjax data --dataset flowers.npz
    """

    dataset: str = "mnist"
    """mnist, fashion_mnist, kmnist, FILE.npz, FILE.csv, a directory of images or tfds:NAME."""
    data_dir: DataDirectory = None
    output: Formatted = TEXT

    def __call__(self) -> None:
        """Print a row for each split, then the source and the checksums."""
        from cnnjax.report import say

        loaded = load(self.dataset, self.data_dir, announce=self.output.announce)
        train, val = training_split(loaded)
        records = [
            {
                "split": name,
                "examples": len(part.labels),
                "shape": part.images.shape[1:],
                "examples_by_class": np.bincount(part.labels, minlength=loaded.classes),
                "source": loaded.source,
                "sha256": [f"{digest}  {file}" for file, digest in loaded.sha256.items()],
            }
            for name, part in (("train", train), ("validation", val), ("test", loaded.test))
        ]
        columns: dict[str, Callable[[Any], str]] = {
            "split": lambda row: row["split"],
            "examples": lambda row: f"{row['examples']:,}",
        }
        if loaded.classes <= MOST_LISTED:
            for label, name in enumerate(loaded.class_names):
                columns[name] = lambda row, label=label: f"{row['examples_by_class'][label]:,}"
        else:
            columns["of a class"] = lambda row: "{:,} to {:,}".format(
                *np.sort(row["examples_by_class"])[[0, -1]]
            )
        self.output.table(records, columns)
        if self.output.alone:
            return
        if loaded.classes > MOST_LISTED:
            say(f"{loaded.classes} classes: {', '.join(loaded.class_names)}")
        shape = " x ".join(map(str, loaded.image_shape))
        say(f"images: {shape}, uint8; source: {loaded.source}")
        for file, digest in loaded.sha256.items():
            say(f"{file}, sha256 {digest}")
