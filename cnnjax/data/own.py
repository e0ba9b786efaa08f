"""Read a data set of one's own: an npz file, a CSV file, or a directory of images."""

import math
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cnnjax.data import idx, image_files
from cnnjax.data.arrays import from_arrays
from cnnjax.data.dataset import Loaded
from cnnjax.errors import UserError, one_line
from cnnjax.files.misspelt import did_you_mean

KERAS = ("x_train", "y_train", "x_test", "y_test")
OURS = ("train_images", "train_labels", "test_images", "test_labels")


def read(path: Path) -> Loaded:
    """Read a data set from a file or a directory.

    Raises:
        UserError: it does not exist, has another format, or its arrays are not those of a data set.
    """
    if not path.exists():
        raise UserError(
            f"{path}: no such file or directory{did_you_mean(path)}; --dataset needs one, or the name of a "
            "data set"
        )
    if not (path.is_file() or path.is_dir()):  # reading a pipe or a device may never end
        raise UserError(f"{path}: neither a file nor a directory; give the file itself")
    readers = {".npz": _npz, ".csv": _csv}
    reader = _directory if path.is_dir() else readers.get(path.suffix.lower())
    if reader is None:
        raise UserError(f"{path}: --dataset takes a .npz or .csv file or a directory of images")
    try:
        return reader(path)
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from error
    except UserError as error:
        message = str(error)
        raise UserError(message if message.startswith(str(path)) else f"{path}: {message}") from error


def _npz(path: Path) -> Loaded:
    try:
        # By itself, `np.load` leaves a damaged file open.
        with path.open("rb") as raw, np.load(raw, allow_pickle=False) as archive:
            names = next((names for names in (KERAS, OURS) if names[0] in archive), None)
            if names is None:
                stored = ", ".join(archive.files) or "nothing"
                raise UserError(f"holds {stored}; it must hold {', '.join(KERAS)} or {', '.join(OURS)}")
            wanted = names if any(name in archive for name in names[2:]) else names[:2]
            if missing := [name for name in wanted if name not in archive]:
                raise UserError(f"has no {missing[0]}; add it")
            arrays = [archive[name] for name in wanted]
    except (ValueError, EOFError, zipfile.BadZipFile, AttributeError, TypeError) as error:
        raise UserError(
            f"not an npz file of plain arrays ({one_line(error)}); write it with np.savez"
        ) from None
    return from_arrays(*arrays, name=path.name, source="npz")


def _csv(path: Path) -> Loaded:
    """Read a table as Kaggle has them: label,pixel0,pixel1,...

    The test images are in the file whose name has "test" where this one has "train", if it has labels.
    """
    tables = [_table(path)]
    other = path.with_name(path.name.replace("train", "test"))
    if other != path and other.is_file() and _has_labels(other):
        tables.append(_table(other))
    arrays: list[Any] = [array for table in tables for array in table]
    return from_arrays(*arrays, name=path.name, source="csv")


def _has_labels(path: Path) -> bool:
    with path.open(encoding="utf-8-sig", errors="replace") as file:
        return file.readline(100).split(",")[0].strip().strip('"').lower() == "label"


def _table(path: Path) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    if not _has_labels(path):
        raise UserError(f"{path}: its first line must be label,pixel0,pixel1,...; add that line")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of a table without rows, which is refused below
            values = np.loadtxt(path, np.int32, delimiter=",", skiprows=1, ndmin=2, comments=None)
    except ValueError as error:
        raise UserError(f"{path}: not a table of whole numbers ({one_line(error)})") from None
    if not values.size:
        raise UserError(f"{path}: has no rows; add a row for each image")
    labels, pixels = values[:, 0].astype(np.int64), values[:, 1:]
    side = math.isqrt(pixels.shape[1])
    if side**2 != pixels.shape[1] or not side:
        raise UserError(
            f"{path}: has {pixels.shape[1]} pixels a row; only square grey images can be read from CSV, "
            "such as 784 for 28 x 28; use .npz for others"
        )
    if pixels.min() < 0 or pixels.max() > 255:
        raise UserError(f"{path}: has pixels from {pixels.min()} to {pixels.max()}; they must be 0 to 255")
    return pixels.astype(np.uint8).reshape(-1, side, side, 1), labels


def _idx(path: Path) -> Loaded:
    """Read four IDX files of one's own, of images of any size."""
    arrays: list[Any] = []
    for file, found in idx.find(path).items():
        arrays.append(idx.decode(idx.read(found), 3 if "images" in file else 1, found))
    return from_arrays(*arrays, name=path.name, source="idx")


def _directory(path: Path) -> Loaded:
    """Read IDX files; or `train` and `test`, each with a folder for each class; or such folders alone."""
    if any(path.glob("*idx?-ubyte*")):
        return _idx(path)
    if not any(each.is_dir() and not each.name.startswith(".") for each in path.iterdir()):
        raise UserError(f"{path}: has no folders; make one for each class, with its images")
    if (path / "train").is_dir() and (path / "test").is_dir():
        parts = [_classes(path / "train"), _classes(path / "test")]
        if unknown := sorted(parts[1].keys() - parts[0].keys()):
            raise UserError(
                f"{path / 'test' / unknown[0]}: there is no class of that name in {path / 'train'}"
            )
    else:
        parts = [_classes(path)]
    names = list(parts[0])
    files = [[file for name in names for file in part.get(name, ())] for part in parts]
    images = image_files.read_all([file for part in files for file in part])
    arrays: list[Any] = []
    for part, count in zip(parts, map(len, files), strict=True):
        labels = np.repeat(np.arange(len(names)), [len(part.get(name, ())) for name in names])
        arrays += [images[:count], labels]
        images = images[count:]
    return from_arrays(*arrays, classes=names, name=path.name, source="image folders")


def _classes(path: Path) -> Mapping[str, list[Path]]:
    """Return the image files of each class, both in the order of their names."""
    folders = sorted(
        folder for folder in path.iterdir() if folder.is_dir() and not folder.name.startswith(".")
    )
    if not folders:
        raise UserError(f"{path}: has no folders; make one for each class, with its images")
    classes = {folder.name: sorted(filter(image_files.is_image, folder.iterdir())) for folder in folders}
    if empty := [name for name, files in classes.items() if not files]:
        raise UserError(f"{path / empty[0]}: holds no images; add some, or remove the folder")
    return classes
