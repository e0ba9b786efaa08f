"""IDX, the file format of MNIST and its relatives: a big-endian header, then the array's bytes.

A data set is four files, and the whole data path speaks of it as `Files`: the uncompressed content
by file name. Every source ends in `Files`, so every source is checked the same way.
"""

import gzip
import hashlib
import math
import struct
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from cnnjax.errors import UserError

Files = Mapping[str, bytes]

FILES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)

# SHA-256 of the uncompressed files of http://yann.lecun.com/exdb/mnist
MNIST_SHA256 = dict(
    zip(
        FILES,
        (
            "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
            "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
            "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
            "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
        ),
        strict=True,
    )
)

UNSIGNED_BYTE = 0x08  # the only element type these files use
GZIP_MAGIC = b"\x1f\x8b"


class Dataset(NamedTuple):
    """Images and their classes."""

    images: NDArray[np.uint8]  # [N, 28, 28, 1]
    labels: NDArray[np.int32]  # [N], 0..9


def encode(array: NDArray[np.uint8]) -> bytes:
    """The IDX file of a uint8 array of any rank."""
    header = struct.pack(f">4B{array.ndim}I", 0, 0, UNSIGNED_BYTE, array.ndim, *array.shape)
    return header + array.tobytes()


def decode(raw: bytes, rank: int, where: object) -> NDArray[np.uint8]:
    """The uint8 array of this rank in an IDX file, as a read-only view of `raw`.

    Raises `UserError`, naming `where`, unless the header fits and exactly the bytes that it
    promises follow.
    """
    start = 4 + 4 * rank
    magic = bytes((0, 0, UNSIGNED_BYTE, rank))
    if raw[:4] != magic:
        raise UserError(
            f"{where}: not an IDX file of rank {rank}: it starts with "
            f"{raw[:4].hex() or 'nothing'}, not {magic.hex()}; fetch it again"
        )
    if len(raw) < start:
        raise UserError(f"{where}: truncated within its header; fetch it again")
    shape = struct.unpack(f">{rank}I", raw[4:start])
    if len(raw) - start != math.prod(shape):
        raise UserError(
            f"{where}: its header promises {math.prod(shape)} bytes, {len(raw) - start} follow; "
            "fetch it again"
        )
    return np.frombuffer(raw, np.uint8, offset=start).reshape(shape)


def _dataset(files: Files, prefix: str, where: Mapping[str, object]) -> Dataset:
    images_file, labels_file = f"{prefix}-images-idx3-ubyte", f"{prefix}-labels-idx1-ubyte"
    images = decode(files[images_file], 3, where[images_file])
    labels = decode(files[labels_file], 1, where[labels_file])
    if images.shape[1:] != (28, 28) or not len(images):
        raise UserError(f"{where[images_file]}: holds {images.shape}, not images of 28 x 28")
    if len(images) != len(labels):
        raise UserError(
            f"{where[labels_file]}: {len(labels)} labels for the {len(images)} images of "
            f"{where[images_file]}; the two do not belong together"
        )
    if labels.max() > 9:
        raise UserError(f"{where[labels_file]}: holds the label {labels.max()}; labels are 0 to 9")
    return Dataset(images[..., None], labels.astype(np.int32))


def unpack(files: Files, where: Mapping[str, object] | None = None) -> tuple[Dataset, Dataset]:
    """The training and the test set in four IDX files.

    `where` gives the name by which an error calls a file. Raises `UserError` where a file is not
    what its name says, or images and labels do not belong together.
    """
    where = where or {file: file for file in FILES}
    return _dataset(files, "train", where), _dataset(files, "t10k", where)


def pack(train: Dataset, test: Dataset) -> Files:
    """The four IDX files of a data set; the inverse of `unpack`."""
    arrays = (train.images[..., 0], train.labels, test.images[..., 0], test.labels)
    return {file: encode(a.astype(np.uint8)) for file, a in zip(FILES, arrays, strict=True)}


def digests(files: Files) -> dict[str, str]:
    """The SHA-256 of each file, in hexadecimal."""
    return {file: hashlib.sha256(files[file]).hexdigest() for file in FILES}


def verify(name: str, files: Files, where: Mapping[str, object] | None = None) -> dict[str, str]:
    """The digests; for `mnist`, raises `UserError` unless they are the canonical ones."""
    found = digests(files)
    for file in FILES if name == "mnist" else ():
        if found[file] != MNIST_SHA256[file]:
            raise UserError(
                f"{(where or {}).get(file, file)}: not the canonical MNIST file: its sha256 is "
                f"{found[file][:12]}..., not {MNIST_SHA256[file][:12]}...; fetch it again"
            )
    return found


def find(directory: Path) -> dict[str, Path]:
    """The paths of the four files in a directory, each plain or .gz.

    Raises `UserError` for a file that is missing.
    """
    if not directory.is_dir():
        raise UserError(f"{directory}: no such directory; --data-dir takes one with the IDX files")
    found = {}
    for file in FILES:
        candidates = (directory / file, directory / f"{file}.gz")
        path = next((path for path in candidates if path.is_file()), None)
        if path is None:
            raise UserError(f"{directory / file}: no such file, nor with .gz; put it there")
        found[file] = path
    return found


def read(path: Path) -> bytes:
    """The content of a file, uncompressed if it is gzip.

    The content decides, not the name: some browsers unpack .gz files and keep their name.
    Raises `UserError` where it cannot be read.
    """
    try:
        raw = path.read_bytes()
        return gzip.decompress(raw) if raw.startswith(GZIP_MAGIC) else raw
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise UserError(f"{path}: broken gzip file ({error}); fetch it again") from error
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error})") from error
