"""TFDS data sets on disk without TensorFlow: prepare them as array_record, and read them back.

TFDS's own builders of MNIST and its relatives read files and encode images with TensorFlow. The
builder here has their name, version and features, but takes the images from memory and hands TFDS
PNG files.
"""

import functools
import hashlib
import io
import os
import struct
import tempfile
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np

from cnnjax.data.idx import Dataset, Files, pack, unpack

VERSION = "3.0.1"
BLOCK = 1000  # records read at a time: one by one takes seconds longer


def data_dir() -> Path:
    """TFDS's data directory: $TFDS_DATA_DIR, or ~/tensorflow_datasets."""
    chosen = os.environ.get("TFDS_DATA_DIR", "")
    return Path(os.path.expanduser(chosen or "~/tensorflow_datasets"))


def places(name: str) -> tuple[Path, Path]:
    """Where data set `name` may lie: where TFDS keeps it, and our own place beside that.

    The second is for when the first is taken, say by a copy in TensorFlow's record format.
    """
    root = data_dir()
    return root / name / VERSION, root / "cnnjax" / name / VERSION


def is_array_record(place: Path) -> bool:
    """Whether a data set that can be read without TensorFlow lies there."""
    try:
        return '"array_record"' in (place / "dataset_info.json").read_text(errors="replace")
    except OSError:
        return False


@contextmanager
def _quiet() -> Iterator[None]:
    """TFDS without its progress bars, printed and logged lines, and deprecation warnings."""
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
    """A greyscale PNG file, each row unfiltered (five times as fast as an imaging library)."""
    height, width, _ = image.shape
    rows = np.pad(image[..., 0], ((0, 0), (1, 0)))  # a zero before each row: its filter
    header = struct.pack(">2I5B", width, height, 8, 0, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows.tobytes())), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(*chunk) for chunk in chunks)


@functools.cache
def _builder_class(name: str) -> Any:
    import tensorflow_datasets as tfds
    from tensorflow_datasets.core import registered

    official: Any = tfds.builder_cls(name)
    # Unregistered, so that tfds.load(name) stays TFDS's own.
    with registered.skip_registration():

        class Builder(official):
            content: tuple[Dataset, Dataset]

            def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
                del dl_manager
                train, test = self.content
                return {
                    "train": self._generate_examples(train),
                    "test": self._generate_examples(test),
                }

            def _generate_examples(self, dataset: Dataset) -> Iterator[tuple[int, dict[str, Any]]]:
                for i, (image, label) in enumerate(zip(*dataset, strict=True)):
                    yield i, {"image": io.BytesIO(_png(image)), "label": int(label)}

    Builder.name = official.name
    return Builder


def _read_split(builder: Any, split: str) -> Dataset:
    source = builder.as_data_source(split)
    order = list(range(len(source)))
    if not builder.info.disable_shuffling:
        # TFDS stores examples by the MD5 of split name and key; the key is the place in the file.
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


def read(name: str, place: Path) -> Files:
    """The IDX files of the data set that TFDS has prepared in `place`.

    The examples come in the order of the IDX files, not in the order TFDS stores them. Raises
    whatever TFDS raises.
    """
    with _quiet():
        builder = _builder_class(name)(data_dir=place.parents[1])
        return pack(_read_split(builder, "train"), _read_split(builder, "test"))


def prepare(name: str, files: Files, place: Path) -> None:
    """Let TFDS prepare a data set from its IDX files, in `place`, which must not exist yet.

    It appears there complete or not at all. Where another process was faster, its copy stays.
    Raises whatever TFDS raises.
    """
    with _quiet(), tempfile.TemporaryDirectory(prefix="cnnjax-") as downloads:
        builder = _builder_class(name)(data_dir=place.parents[1])
        builder.content = unpack(files)
        try:
            builder.download_and_prepare(download_dir=downloads, file_format="array_record")
        except OSError:
            if not is_array_record(place):
                raise
