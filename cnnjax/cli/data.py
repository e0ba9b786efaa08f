"""The `data` command."""

from dataclasses import dataclass

import numpy as np
from rich.table import Table

from cnnjax.cli.runner import DataDirectory
from cnnjax.data import load, split


@dataclass(frozen=True)
class Data:
    """Download a data set, verify it and show its contents.

    Example: cnnjax data --dataset fashion_mnist
    """

    dataset: str = "mnist"
    """mnist, fashion_mnist or kmnist."""
    data_dir: DataDirectory = None

    def __call__(self) -> None:
        """Print a row for each split, then the source and the checksums."""
        from cnnjax.report import console

        loaded = load(self.dataset, self.data_dir, announce=print)
        train, val = split(loaded.train)
        table = Table("split", "examples", "shape", "dtype", "examples of class 0, 1, ... 9")
        for name, part in (("train", train), ("validation", val), ("test", loaded.test)):
            shape = " x ".join(map(str, part.images.shape[1:]))
            counts = " ".join(map(str, np.bincount(part.labels, minlength=10)))
            table.add_row(name, f"{len(part.labels):,}", shape, str(part.images.dtype), counts)
        screen = console()
        screen.print(table)
        screen.print(f"source: {loaded.source}", markup=False)
        for file, digest in loaded.sha256.items():
            screen.print(f"sha256 {digest}  {file}", markup=False)
