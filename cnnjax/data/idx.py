"""IDX, the file format of MNIST and similar data sets: a big-endian header, then the array's bytes.

A data set is four files. All sources return it as `Files`, the uncompressed contents by file name, so that
all are checked the same way.
"""

import gzip
import hashlib
import math
import struct
import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cnnjax.data.dataset import Dataset
from cnnjax.errors import UserError
from cnnjax.files.misspelt import did_you_mean

Files = Mapping[str, bytes]

# SHA-256 of the uncompressed files of http://yann.lecun.com/exdb/mnist
MNIST_SHA256 = {
    "train-images-idx3-ubyte": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    "train-labels-idx1-ubyte": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    "t10k-images-idx3-ubyte": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    "t10k-labels-idx1-ubyte": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
}
FASHION_SHA256 = {
    "train-images-idx3-ubyte": "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
    "train-labels-idx1-ubyte": "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
    "t10k-images-idx3-ubyte": "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
    "t10k-labels-idx1-ubyte": "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
}
"""SHA-256 of the uncompressed files of Debian's package dataset-fashion-mnist."""
FILES = tuple(MNIST_SHA256)
TITLES = {"mnist": "MNIST", "fashion_mnist": "Fashion-MNIST", "kmnist": "KMNIST"}
PUBLISHED_SIZES = 60_000, 10_000
"""Training and test images of MNIST and of the data sets that take its place."""

UNSIGNED_BYTE = 0x08  # the only element type that these files use
TYPES = {
    UNSIGNED_BYTE: "uint8",
    **{0x09: "int8", 0x0B: "int16", 0x0C: "int32", 0x0D: "float32", 0x0E: "float64"},
}
GZIP_MAGIC = b"\x1f\x8b"


def encode(array: NDArray[np.uint8]) -> bytes:
    """Return the IDX file of a uint8 array of any rank."""
    header = struct.pack(f">4B{array.ndim}I", 0, 0, UNSIGNED_BYTE, array.ndim, *array.shape)
    return header + array.tobytes()


def decode(raw: bytes, rank: int, where: object) -> NDArray[np.uint8]:
    """Return the uint8 array in an IDX file of rank `rank`, as a read-only view of `raw`.

    Raises `UserError`, which names the file as `where`, unless the header is valid and the length matches it.
    """
    start = 4 + 4 * rank
    magic = bytes((0, 0, UNSIGNED_BYTE, rank))
    if raw[:4] != magic:
        found = f"it starts with {raw[:4].hex() or 'nothing'}, not {magic.hex()}; download it again"
        if len(raw) >= 4 and raw[:2] == bytes(2) and raw[2] in TYPES:  # such as QMNIST's labels
            found = (
                f"it holds {TYPES[raw[2]]} of rank {raw[3]}; put the right file there, or give arrays as "
                "--dataset FILE.npz"
            )
        raise UserError(f"{where}: not an IDX file of uint8 of rank {rank}: {found}")
    if len(raw) < start:
        raise UserError(f"{where}: truncated within its header; download it again")
    shape = struct.unpack(f">{rank}I", raw[4:start])
    if len(raw) - start != math.prod(shape):
        raise UserError(
            f"{where}: its header specifies {math.prod(shape)} bytes, {len(raw) - start} follow; "
            "download it again"
        )
    return np.frombuffer(raw, np.uint8, offset=start).reshape(shape)


def _dataset(files: Files, prefix: str, where: Mapping[str, object]) -> Dataset:
    images_file, labels_file = f"{prefix}-images-idx3-ubyte", f"{prefix}-labels-idx1-ubyte"
    images = decode(files[images_file], 3, where[images_file])
    labels = decode(files[labels_file], 1, where[labels_file])
    if images.shape[1:] != (28, 28) or not len(images):
        raise UserError(f"{where[images_file]}: has shape {images.shape}; images must be 28 x 28")
    if len(images) != len(labels):
        raise UserError(
            f"{where[labels_file]}: {len(labels)} labels for the {len(images)} images of "
            f"{where[images_file]}; use files that belong together"
        )
    if labels.max() > 9:
        raise UserError(f"{where[labels_file]}: contains the label {labels.max()}; labels must be 0 to 9")
    return Dataset(images[..., None], labels.astype(np.int32))


def unpack(files: Files, where: Mapping[str, object] | None = None) -> tuple[Dataset, Dataset]:
    """Return the training and the test set in four IDX files.

    Raises `UserError`, which names the files as `where` does, if a file has the wrong format or images and
    labels differ in number.
    """
    where = where or {file: file for file in FILES}
    return _dataset(files, "train", where), _dataset(files, "t10k", where)


def pack(train: Dataset, test: Dataset) -> Files:
    """Return the four IDX files of a data set; the inverse of `unpack`."""
    arrays = (train.images[..., 0], train.labels, test.images[..., 0], test.labels)
    return {file: encode(a.astype(np.uint8)) for file, a in zip(FILES, arrays, strict=True)}


def digests(files: Files) -> dict[str, str]:
    """Return the SHA-256 of each file, in hexadecimal."""
    return {file: hashlib.sha256(files[file]).hexdigest() for file in FILES}


def verify(name: str, files: Files, where: Mapping[str, object] | None = None) -> dict[str, str]:
    """Return the digests of files that can be those of a data set.

    `mnist` must be the published files. So must `fashion_mnist` if it is of their size; smaller ones may be
    for tests. No published file passes under another name.

    Raises:
        UserError: a file is another; the message names it as `where` does.
    """
    sha256, published = digests(files), {"mnist": MNIST_SHA256, "fashion_mnist": FASHION_SHA256}
    known = {digest: (of, file) for of, sums in published.items() for file, digest in sums.items()}
    own = published.get(name, {})
    whole = name == "mnist" or sizes(files) == PUBLISHED_SIZES
    for file in FILES:
        this = (where or {}).get(file, file)
        of, original = known.get(sha256[file], (name, file))
        if (of, original) != (name, file):
            raise UserError(
                f"{this}: this is {TITLES[of]}'s {original}, not {name}'s {file}; give --dataset {of}, or "
                "the file's own name"
            )
        if whole and sha256[file] != own.get(file, sha256[file]):
            raise UserError(
                f"{this}: not the canonical {TITLES[name]} file: its sha256 is {sha256[file][:12]}..., not "
                f"{own[file][:12]}...; download it again, or give your own data as --dataset DIRECTORY"
            )
    return sha256


def sizes(files: Files) -> tuple[int, int]:
    """Return the number of training and of test images that the labels have, without their headers."""
    train, test = (max(0, len(files[file]) - 8) for file in FILES if "labels" in file)
    return train, test


def find(directory: Path) -> dict[str, Path]:
    """Return the paths of the four files, each plain or .gz; raise `UserError` if one is missing.

    Some copies have a dot before "idx", or each file in a directory of its name.
    """
    if not directory.is_dir():
        near = did_you_mean(directory, Path.is_dir)
        raise UserError(f"{directory}: no such directory{near}; --data-dir needs one with the IDX files")
    paths = {}
    for file in FILES:
        names = [f"{name}{end}" for name in (file, file.replace("-idx", ".idx")) for end in ("", ".gz")]
        candidates = (place / name for place in (directory, directory / file) for name in names)
        paths[file] = next((path for path in candidates if path.is_file()), None)
        if paths[file] is None and any(directory.glob("emnist-*")):
            raise UserError(
                f"{directory}: EMNIST's IDX files hold transposed images, and letters labelled from 1; "
                "save them as .npz with images.transpose(0, 2, 1) and labels from 0 for --dataset FILE.npz"
            )
        if paths[file] is None:
            inside = sorted(each.parent for each in directory.glob(f"*/{file}*"))
            advice = f"give --data-dir {inside[0]}" if inside else "put it there"
            raise UserError(f"{directory / file}: no such file, plain or .gz; {advice}")
    return paths


LARGEST = 600_000_000
"""Bytes of a file at most; a small gzip file can hold any number. The largest of EMNIST has 547 million."""


def read(path: Path) -> bytes:
    """Return the content of a file, decompressed if it is gzip; raise `UserError` if it cannot be read.

    The content decides, not the name, because some browsers decompress .gz files and keep the name.
    """
    try:
        if path.exists() and not path.is_file():  # reading a pipe or a device may never end
            raise UserError(f"{path} is no regular file; give the file itself")
        with path.open("rb") as plain:
            compressed = plain.read(len(GZIP_MAGIC)) == GZIP_MAGIC
        with (gzip.open if compressed else open)(path, "rb") as file:
            raw = file.read(LARGEST + 1)
        if len(raw) > LARGEST:
            raise UserError(f"{path} holds more than {LARGEST:,} bytes, more than any of these data sets")
        return raw
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise UserError(f"{path}: broken gzip file ({error}); download it again") from error
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from error
