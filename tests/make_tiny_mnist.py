"""Create `tests/data`, a tiny stratified subset of MNIST, and in `few` a fifth and a quarter of its images.

python tests/make_tiny_mnist.py
"""

import gzip
from pathlib import Path

from cnnjax import data
from cnnjax.data import Dataset, idx

TRAIN, TEST, FEW = 1_000, 200, (200, 50)


def main() -> None:
    """Write the four IDX files of each, compressed; every run writes the same bytes."""
    mnist = data.load("mnist", announce=print)
    parts, directory = tuple(mnist[:2]), Path(__file__).parent / "data"
    for sizes, where in (((TRAIN, TEST), directory), (FEW, directory / "few")):
        parts = tuple(
            data.split(part, size / len(part.labels))[0] for part, size in zip(parts, sizes, strict=True)
        )
        write(where, *parts)


def write(directory: Path, train: Dataset, test: Dataset) -> None:
    directory.mkdir(exist_ok=True)
    for file, raw in idx.pack(train, test).items():
        # Without a name and a time in the header, the bytes depend on the content alone.
        with (
            open(directory / f"{file}.gz", "wb") as out,
            gzip.GzipFile("", "wb", mtime=0, fileobj=out) as compressed,
        ):
            compressed.write(raw)


if __name__ == "__main__":
    main()
