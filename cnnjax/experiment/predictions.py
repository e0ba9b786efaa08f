"""What each network of an experiment predicts for the test images: a file a network."""

import io
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
from numpy.lib.npyio import NpzFile

from cnnjax.files import make_directory, write_bytes
from cnnjax.stats.confusion import Predictions

PREDICTIONS = "predictions"
"""The directory."""

DAMAGED = OSError, ValueError, KeyError, EOFError, NotImplementedError, zipfile.BadZipFile, zlib.error
"""What reading a missing or damaged npz raises."""


def write_prediction(out: Path, arm: str, seed: int, predictions: Predictions) -> None:
    """Write the predictions of one network, with its name."""
    path = prediction_file(out, arm, seed)
    make_directory(path.parent)
    content = io.BytesIO()
    np.savez_compressed(content, **predictions._asdict(), network=np.array(path.stem))
    write_bytes(path, content.getvalue())


def read_predictions(out: Path, arm: str, seeds: Sequence[int]) -> Predictions | None:
    """Read the predictions of an arm from the directory `out`; None if there are none, or of other images."""
    of_seeds = [one for seed in seeds if (one := read_prediction(out, arm, seed)) is not None]
    alike = len({one.labels.shape for one in of_seeds}) == 1
    return Predictions(*map(np.stack, zip(*of_seeds, strict=True))) if alike else None


def read_prediction(out: Path, arm: str, seed: int) -> Predictions | None:
    """Read the predictions of one network; None if they are missing, damaged or of another network."""
    with suppress(*DAMAGED):
        return predictions_in(prediction_file(out, arm, seed))


def predictions_in(path: Path) -> Predictions:
    """Read the predictions of one network; one of `DAMAGED` is raised if they are not whole."""
    with arrays_in(path) as file:
        said = Predictions(*(file[name] for name in Predictions._fields))
        network = str(file["network"]) if "network" in file else path.stem  # an earlier version wrote none
    if network != path.stem:
        raise ValueError(f"it is of {network}")
    if said.labels.shape != said.probability.shape:
        raise ValueError("its arrays have different shapes")
    return said


@contextmanager
def arrays_in(path: Path) -> Iterator[NpzFile]:
    """Open an npz file; `np.load` by itself leaves a damaged one open."""
    if not path.is_file():  # a pipe may never end
        raise OSError("it is no file")
    with path.open("rb") as raw, np.load(raw, allow_pickle=False) as file:
        yield file


def prediction_file(out: Path, arm: str, seed: int) -> Path:
    """Return where the predictions of a network are."""
    return out / PREDICTIONS / f"{arm}, seed {seed}.npz"
