"""The `data` command."""

from dataclasses import dataclass

import numpy as np
from rich.markup import escape
from rich.table import Table

from cnnjax.cli.runner import DataDirectory
from cnnjax.data import DIGITS, load, training_split

MOST_LISTED = 10
"""Most classes whose examples are counted one by one."""


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

    def __call__(self) -> None:
        """Print a row for each split, then the source and the checksums."""
        from cnnjax.report import console

        loaded = load(self.dataset, self.data_dir, announce=print)
        train, val = training_split(loaded)
        few = loaded.classes <= MOST_LISTED
        names = "0, 1, ... 9" if loaded.class_names == DIGITS else ", ".join(loaded.class_names)
        heading = f"examples of class {names}" if few else "examples a class"
        table = Table("split", "examples", "shape", "dtype", escape(heading))
        for name, part in (("train", train), ("validation", val), ("test", loaded.test)):
            shape = " x ".join(map(str, part.images.shape[1:]))
            counts = np.bincount(part.labels, minlength=loaded.classes)
            listed = " ".join(map(str, counts)) if few else f"{counts.min():,} to {counts.max():,}"
            table.add_row(name, f"{len(part.labels):,}", shape, str(part.images.dtype), listed)
        screen = console()
        screen.print(table)
        if not few:
            screen.print(f"{loaded.classes} classes: {', '.join(loaded.class_names)}", markup=False)
        screen.print(f"source: {loaded.source}", markup=False)
        for file, digest in loaded.sha256.items():
            screen.print(f"sha256 {digest}  {file}", markup=False)
