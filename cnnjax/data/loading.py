"""Load a data set by its name: from IDX files, from the cache, from the network, or from a file of one's own.

The cache is `$XDG_CACHE_HOME/cnnjax` (by default `~/.cache/cnnjax`): one zip archive of the four IDX files
per data set, which may be deleted at any time.
"""

import json
import os
import zipfile
from collections.abc import Callable
from pathlib import Path

from cnnjax.data import home, idx, own, sources, tfds_any
from cnnjax.data.dataset import Loaded
from cnnjax.data.idx import Files
from cnnjax.errors import ArgumentError, UserError, one_line
from cnnjax.files import temporary
from cnnjax.files.misspelt import choose

NAMES = ("mnist", "fashion_mnist", "kmnist")
MEMORY = "memory:"
"""Before the name of a data set that is in memory alone."""
_METADATA = "about.json"


def load(
    name: str, data_dir: str | Path | None = None, *, announce: Callable[[str], None] = lambda line: None
) -> Loaded:
    """Load a data set.

    Args:
        name: one of `NAMES`; a .npz or .csv file or a directory of images (`cnnjax.data.own`); or "tfds:NAME"
            for what TFDS has prepared as array_record. `mnist` is checked to be the canonical MNIST, byte for
            byte.
        data_dir: a directory of the four IDX files (plain or .gz) to read, without TFDS. By default the data
            set comes from the cache or, the first time, from `cnnjax.data.sources.fetch`.
        announce: called with a line about each step that takes time.

    Raises:
        ArgumentError: the name is unknown.
        UserError: the files are missing, damaged or not MNIST's, or no source could be reached.
    """
    name = identity(name)
    if name.startswith(MEMORY):
        raise ArgumentError(f"the data set {name} was in memory only; pass the arrays again")
    if name not in NAMES:
        if data_dir is not None:
            raise ArgumentError(f"--data-dir holds the IDX files of {', '.join(NAMES)}; omit it for {name}")
        return tfds_any.load(name) if name.startswith(tfds_any.PREFIX) else own.read(Path(name))
    if data_dir is not None:
        return _load_directory(name, Path(data_dir), announce)
    try:
        return _read_cache(name)
    except (FileNotFoundError, NotADirectoryError):
        pass
    except Exception as error:
        announce(f"{name}: the cache {cache_path(name)} is damaged and will be rebuilt ({one_line(error)})")
    files, source = sources.fetch(name, announce)
    sha256 = idx.digests(files)
    try:
        _write_cache(name, files, source, sha256)
    except OSError as error:
        announce(f"{name}: cannot write the cache: {one_line(error)}")
    return Loaded(*idx.unpack(files), name, source, sha256)


def identity(name: str) -> str:
    """Return the name of a data set as a run records it: a file or directory as its absolute path.

    Raises:
        ArgumentError: it is neither a name nor anything like a path.
    """
    if not is_identity(name):
        path = Path(os.path.expanduser(name))
        if not (path.exists() or len(path.parts) > 1 or path.suffix):
            raise ArgumentError(
                f"unknown dataset {name!r}{choose(name, NAMES)}, or give FILE.npz, FILE.csv, a "
                "directory of images or tfds:NAME"
            )
        return str(path.absolute())
    return name


def is_identity(name: str) -> bool:
    """Whether a run can have recorded this name."""
    return name in NAMES or name.startswith((tfds_any.PREFIX, MEMORY)) or Path(name).is_absolute()


def cache_path(name: str) -> Path:
    """Return the path of a data set in the cache; raise `UserError` without a home directory."""
    return home.directory("XDG_CACHE_HOME", "~/.cache") / "cnnjax" / f"{name}.zip"


def _load_directory(name: str, directory: Path, announce: Callable[[str], None]) -> Loaded:
    paths = idx.find(directory)
    files = {file: idx.read(path) for file, path in paths.items()}
    train, test = idx.unpack(files, paths)
    numbers = len(train.labels), len(test.labels)
    if numbers[0] < numbers[1]:
        raise UserError(
            f"{directory}: has {numbers[0]:,} training images and {numbers[1]:,} test images; exchange the "
            "files if they are swapped, or give your own data as --dataset DIRECTORY"
        )
    if numbers != idx.PUBLISHED_SIZES:
        announce(
            f"{directory}: {numbers[0]:,} and {numbers[1]:,} images, and {name} has 60,000 and 10,000: these "
            "are other data"
        )
    return Loaded(train, test, name, "data-dir", idx.verify(name, files, paths))


def _read_cache(name: str) -> Loaded:
    """Read a data set from the cache; a damaged archive can raise almost anything."""
    with zipfile.ZipFile(cache_path(name)) as archive:
        metadata = json.loads(archive.read(_METADATA))
        files = {file: archive.read(file) for file in idx.FILES}
    sha256 = idx.verify(name, files)
    if sha256 != metadata["sha256"]:
        raise UserError("its files do not match their checksums")
    return Loaded(*idx.unpack(files), name, metadata["source"], sha256)


def _write_cache(name: str, files: Files, source: str, sha256: dict[str, str]) -> None:
    """Write a data set to the cache atomically; other processes may do so at the same time."""
    path = cache_path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary.clear(path.parent)
    with temporary.replacement(path) as file, zipfile.ZipFile(file, "w") as archive:
        archive.writestr(_METADATA, json.dumps({"source": source, "sha256": sha256}, indent=2))
        for member, content in files.items():
            archive.writestr(member, content)
