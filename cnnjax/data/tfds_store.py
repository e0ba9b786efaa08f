"""Prepare TFDS data sets as array_record and read them, without TensorFlow.

TFDS's own builders of MNIST and similar data sets read files and encode images with TensorFlow. The builder
here has the same name, version and features, but takes the images from memory and passes TFDS PNG files.
"""

import functools
import hashlib
import io
import os
import struct
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np

from cnnjax.data import home
from cnnjax.data.dataset import Dataset
from cnnjax.data.idx import Files, pack, unpack
from cnnjax.files import temporary

VERSION = "3.0.1"
BLOCK = 1000  # records read at once; reading them one by one takes seconds longer


def data_dir() -> Path:
    """Return TFDS's data directory: $TFDS_DATA_DIR, or ~/tensorflow_datasets."""
    return home.directory("TFDS_DATA_DIR", "~/tensorflow_datasets")


def directories(name: str) -> tuple[Path, Path]:
    """Return TFDS's directory of a data set, and ours in case that one holds, say, a copy as TFRecord."""
    root = data_dir()
    return root / name / VERSION, root / "cnnjax" / name / VERSION


def is_array_record(directory: Path) -> bool:
    """Whether the directory holds a data set that can be read without TensorFlow."""
    try:
        return '"array_record"' in (directory / "dataset_info.json").read_text(errors="replace")
    except OSError:
        return False


@contextmanager
def quiet() -> Iterator[None]:
    """Import TFDS, and suppress its progress bars, output, log and warnings."""
    with warnings.catch_warnings(), redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        import tensorflow_datasets as tfds
        from absl import logging

        verbosity = logging.get_verbosity()
        logging.set_verbosity(logging.FATAL)
        tfds.disable_progress_bar()
        try:
            yield
        finally:
            logging.set_verbosity(verbosity)


def _chunk(kind: bytes, content: bytes) -> bytes:
    body = kind + content
    return struct.pack(">I", len(content)) + body + struct.pack(">I", zlib.crc32(body))


def _png(image: np.ndarray) -> bytes:
    """Return a greyscale PNG file without filters (five times as fast as an imaging library)."""
    height, width, _ = image.shape
    rows = np.pad(image[..., 0], ((0, 0), (1, 0)))  # each row begins with its filter type, 0
    header = struct.pack(">2I5B", width, height, 8, 0, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows.tobytes())), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(*chunk) for chunk in chunks)


@functools.cache
def _builder_class(name: str) -> Any:
    import tensorflow_datasets as tfds
    from tensorflow_datasets.core import registered

    official: Any = tfds.builder_cls(name)
    # Do not register the class, so that tfds.load(name) still uses TFDS's own.
    with registered.skip_registration():

        class Builder(official):
            content: tuple[Dataset, Dataset]

            def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
                del dl_manager
                train, test = self.content
                return {"train": self._generate_examples(train), "test": self._generate_examples(test)}

            def _generate_examples(self, dataset: Dataset) -> Iterator[tuple[int, dict[str, Any]]]:
                for i, (image, label) in enumerate(zip(dataset.images, dataset.labels, strict=True)):
                    yield i, {"image": io.BytesIO(_png(image)), "label": int(label)}

    Builder.name = official.name
    return Builder


def _read_split(builder: Any, split: str) -> Dataset:
    source = builder.as_data_source(split)
    order = list(range(len(source)))
    if not builder.info.disable_shuffling:
        # TFDS orders examples by the MD5 of the split's name and the example's key, its index in the file.
        md5 = functools.partial(hashlib.md5, usedforsecurity=False)
        order.sort(key=lambda i: md5(f"{split}{i}".encode()).digest())
    images = np.empty((len(source), 28, 28, 1), np.uint8)
    labels = np.empty(len(source), np.int32)
    for start in range(0, len(source), BLOCK):
        block = order[start : start + BLOCK]
        examples = source.__getitems__(range(start, start + len(block)))
        for i, example in zip(block, examples, strict=True):
            images[i], labels[i] = example["image"], example["label"]
    return Dataset(images, labels)


def read(name: str, directory: Path) -> Files:
    """Return the IDX files of a data set that TFDS has prepared, with the examples in their original order.

    Raises whatever TFDS raises.
    """
    with quiet():
        builder = _builder_class(name)(data_dir=directory.parents[1])
        return pack(_read_split(builder, "train"), _read_split(builder, "test"))


def prepare(name: str, files: Files, directory: Path, replace: bool = False) -> None:
    """Let TFDS prepare a data set from its IDX files, atomically, in a directory that does not exist yet.

    With `replace`, the new copy takes the place of one that is there. Without, if another process is faster,
    its copy stays. Raises whatever TFDS raises.
    """
    directory.parent.mkdir(parents=True, exist_ok=True)
    with quiet(), temporary.directory(name, directory.parent) as scratch:
        builder = _builder_class(name)(data_dir=scratch)
        builder.content = unpack(files)
        builder.download_and_prepare(download_dir=str(scratch / "downloads"), file_format="array_record")
        if replace:
            os.replace(directory, scratch / "replaced")
        try:
            os.replace(scratch / name / VERSION, directory)
        except OSError:
            if not is_array_record(directory):
                raise
