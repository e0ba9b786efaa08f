"""Check arrays in memory, and make a data set of them."""

import hashlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from cnnjax.data.dataset import Dataset, Loaded
from cnnjax.data.splits import split
from cnnjax.errors import ArgumentError, UserError
from cnnjax.shapes import Int, UInt8

TRAIN_FRACTION = 5 / 6
"""Fraction of the images to train on, as MNIST has it, where a data set has no test images."""
MOST_CLASSES = 10_000


def from_arrays(
    train_images: ArrayLike,
    train_labels: ArrayLike,
    test_images: ArrayLike | None = None,
    test_labels: ArrayLike | None = None,
    classes: int | Sequence[str] | None = None,
    *,
    name: str = "arrays",
    source: str = "memory",
) -> Loaded:
    """Make a data set from arrays.

    Args:
        train_images: uint8[n, height, width, channels], or uint8[n, height, width] for grey images.
        train_labels: integers, [n] or [n, 1], from 0 to the number of classes - 1.
        test_images: as `train_images`. Without test images, a sixth of the training images becomes the test
            set: stratified by class, and the same on every call.
        test_labels: as `train_labels`.
        classes: the number of classes, or their names by label. By default, the largest label + 1.
        name: of the data set, in titles.
        source: where the arrays come from.

    Raises:
        UserError: an array has the wrong shape, dtype or values.
    """
    images = check_images(train_images, "the training images")
    labels = _labels(train_labels, len(images), "the training labels")
    parts = [(images, labels, "the training labels")]
    if (test_images is None) != (test_labels is None):
        raise UserError("give both test images and test labels, or neither")
    if test_images is not None and test_labels is not None:
        images = check_images(test_images, "the test images")
        parts.append((images, _labels(test_labels, len(images), "the test labels"), "the test labels"))
        shapes = [part[0].shape[1:] for part in parts]
        if shapes[0] != shapes[1]:
            raise UserError(
                f"the training images have shape {shapes[0]} and the test images {shapes[1]}; give both the "
                "same height, width and channels"
            )
    names = _class_names(classes, max(int(part[1].max()) for part in parts))
    for _, labels, what in parts:
        if labels.max() >= len(names):
            raise UserError(
                f"{what} contain {labels.max()}; with {len(names)} classes they must be 0 to {len(names) - 1}"
            )
    sets = [Dataset(images, labels.astype(np.int32), names) for images, labels, _ in parts]
    train, test = sets if len(sets) == 2 else split(sets[0], TRAIN_FRACTION)
    if not len(test.labels):
        raise UserError(f"{len(train.labels)} images are too few to set test images apart; give test images")
    arrays = {
        "train_images": train.images,
        "train_labels": train.labels,
        "test_images": test.images,
        "test_labels": test.labels,
    }
    return Loaded(train, test, name, source, {key: digest(array) for key, array in arrays.items()})


def require_batch(batch_size: int, examples: int) -> None:
    """Raise `ArgumentError` if a batch is larger than the training set."""
    if batch_size > examples:
        raise ArgumentError(f"--batch-size {batch_size} is larger than the training set ({examples} images)")


def require_dataset(data: Dataset, what: str) -> None:
    """Check a data set that was not made by `from_arrays`; `what` names it in errors.

    Raises:
        ArgumentError: an array has another shape, dtype or length than `Dataset` says, no example, or a label
            outside of its classes.
    """
    try:
        images = check_images(data.images, f"the {what} images")
        labels = _labels(data.labels, len(images), f"the {what} labels")
        for given, rank, fix in ((data.images, 4, "images[..., None]"), (data.labels, 1, "labels[:, 0]")):
            if np.ndim(given) != rank:
                raise UserError(f"the {what} set has an array of shape {np.shape(given)}; give {fix}")
        if labels.max() >= data.classes:
            raise UserError(
                f"the {what} labels contain {labels.max()}; with {data.classes} classes they must be 0 to "
                f"{data.classes - 1}"
            )
    except UserError as error:
        raise ArgumentError(str(error)) from error


def check_images(given: ArrayLike, what: str) -> UInt8[np.ndarray, "n h w c"]:
    """Return images with an axis of channels, or raise `UserError`; `what` names them there."""
    images = np.asarray(given)
    if images.dtype != np.uint8:
        scale = "(255 * images).round()" if images.dtype.kind == "f" else "images"
        raise UserError(
            f"{what} are {images.dtype}; give brightness from 0 to 255 as uint8, such as "
            f'{scale}.astype("uint8")'
        )
    if images.ndim == 3:
        images = images[..., None]
    if images.ndim != 4:
        raise UserError(
            f"{what} have shape {images.shape}; give (n, height, width) or (n, height, width, channels)"
        )
    if not images.size:
        raise UserError(f"{what} have shape {images.shape}, without any pixel; give at least one image")
    if images.shape[1] in (1, 3) and images.shape[3] > 4:
        raise UserError(
            f"{what} have shape {images.shape}: the channels come first; give images.transpose(0, 2, 3, 1)"
        )
    return np.ascontiguousarray(images)


def _labels(given: ArrayLike, images: int, what: str) -> Int[np.ndarray, " n"]:
    labels = np.asarray(given)
    if labels.ndim == 2 and labels.shape[1] > 1:
        raise UserError(f"{what} have shape {labels.shape}: for one-hot labels give labels.argmax(axis=1)")
    if labels.ndim == 2:
        labels = labels[:, 0]
    if labels.ndim != 1:
        raise UserError(f"{what} have shape {labels.shape}; give one number an image, (n,)")
    if labels.dtype.kind not in "iu":
        raise UserError(
            f"{what} are {labels.dtype}; give the number of the class as an integer, such as "
            'labels.astype("int32")'
        )
    if len(labels) != images:
        raise UserError(f"there are {len(labels)} of {what} for {images} images; give one label an image")
    if labels.min() < 0:
        raise UserError(f"{what} contain {labels.min()}; classes count from 0")
    return labels


def _class_names(classes: int | Sequence[str] | None, largest: int) -> tuple[str, ...]:
    if classes is None:
        classes = largest + 1
    names = range(classes) if isinstance(classes, int) else classes
    if not 2 <= len(names) <= MOST_CLASSES:
        raise UserError(f"there are {len(names)} classes; there must be 2 to {MOST_CLASSES:,}")
    return tuple(map(str, names))


def digest(array: ArrayLike) -> str:
    """Return the SHA-256 of an array with its shape: the same bytes can be 2 x 8 or 4 x 4 pixels."""
    array = np.asarray(array)
    sha256 = hashlib.sha256(f"{array.dtype.str}{array.shape}".encode())
    sha256.update(np.ascontiguousarray(array).data)
    return sha256.hexdigest()
