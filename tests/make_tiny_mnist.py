"""Create `tests/data`, a tiny stratified subset of MNIST: `python tests/make_tiny_mnist.py`."""

import gzip
from pathlib import Path

from cnnjax import data
from cnnjax.data import idx

TRAIN, TEST = 1_000, 200


def main() -> None:
    """Write the four IDX files, compressed; every run writes the same bytes."""
    mnist = data.load("mnist", announce=print)
    train, _ = data.split(mnist.train, TRAIN / len(mnist.train.labels))
    test, _ = data.split(mnist.test, TEST / len(mnist.test.labels))
    directory = Path(__file__).parent / "data"
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
