"""Read any image classification set that TFDS has prepared as array_record, without TensorFlow."""

from pathlib import Path
from typing import Any

import numpy as np

from cnnjax.data.arrays import from_arrays
from cnnjax.data.dataset import Loaded
from cnnjax.data.tfds_store import BLOCK, data_dir, is_array_record, quiet
from cnnjax.errors import ArgumentError, UserError, one_line

PREFIX = "tfds:"


def load(name: str) -> Loaded:
    """Read "tfds:NAME", such as tfds:cifar10, tfds:emnist/balanced or tfds:cifar10/3.0.2.

    The images of EMNIST, which TFDS stores transposed, are turned upright. Classes that no image has, such as
    class 0 of EMNIST's letters, are left out.

    Raises:
        ArgumentError: the name cannot be that of a data set.
        UserError: TFDS has not prepared it as array_record, or it is not for image classification.
    """
    directory = _prepared(name.removeprefix(PREFIX))
    try:
        with quiet():
            import tensorflow_datasets as tfds

            builder: Any = tfds.builder_from_directory(directory)
            image, label = _features(builder, name)
            splits = [part for part in ("train", "test", "validation") if part in builder.info.splits]
            if not splits or splits[0] != "train":
                raise UserError(f"{name} has no split train; choose another data set")
            parts = [_read(builder.as_data_source(part), image, label) for part in splits[:2]]
            names: list[str] = list(builder.info.features[label].names)
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"cannot read {directory}: {one_line(error)}; prepare it again with TFDS") from error
    present = np.unique(np.concatenate([labels for _, labels in parts]))
    if len(present) < len(names):
        parts = [(images, np.searchsorted(present, labels)) for images, labels in parts]
        names = [names[old] for old in present]
    if name.removeprefix(PREFIX).startswith("emnist"):
        parts = [(images.swapaxes(1, 2), labels) for images, labels in parts]
    arrays: list[Any] = [array for part in parts for array in part]
    return from_arrays(*arrays, classes=names, name=name, source="tfds prepared")


def _prepared(name: str) -> Path:
    """Return the directory of the newest version that can be read."""
    if not name or name.startswith(("/", "~")) or ".." in name:
        raise ArgumentError(f"{PREFIX}{name} names no data set; give tfds:NAME or tfds:NAME/CONFIG")
    root = data_dir() / name
    directories = [path for path in (root, *root.glob("*")) if is_array_record(path)]
    if not directories:
        raise UserError(
            f"TFDS has no copy of {name} as array_record in {root}; prepare it with tfds.builder('{name}')"
            ".download_and_prepare(file_format='array_record')"
        )
    return max(
        directories, key=lambda path: [int(part) if part.isdigit() else 0 for part in path.name.split(".")]
    )


def _features(builder: Any, name: str) -> tuple[str, str]:
    """Return the keys of the image and of the label."""
    import tensorflow_datasets as tfds

    features = dict(builder.info.features)
    keys = [
        [key for key, feature in features.items() if type(feature) is kind]
        for kind in (tfds.features.Image, tfds.features.ClassLabel)
    ]
    if not keys[0] or not keys[1]:
        raise UserError(f"{name} is no image classification set: its features are {', '.join(features)}")
    image, label = (
        "image" if "image" in keys[0] else keys[0][0],
        "label" if "label" in keys[1] else keys[1][0],
    )
    return image, label


def _read(source: Any, image: str, label: str) -> tuple[np.ndarray, np.ndarray]:
    """Return all images and labels of a split, in TFDS's order."""
    images, labels = [], []
    for start in range(0, len(source), BLOCK):
        for example in source.__getitems__(range(start, min(start + BLOCK, len(source)))):
            images.append(np.asarray(example[image]))
            labels.append(int(example[label]))
    shapes = {array.shape for array in images}
    if len(shapes) > 1:
        one, other = sorted(shapes)[:2]
        raise UserError(f"its images differ in size, such as {one} and {other}; choose a set of one size")
    return np.stack(images), np.array(labels, np.int64)
