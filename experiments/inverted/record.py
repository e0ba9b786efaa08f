"""What `experiments/inverted_dropout.py` leaves in its directory: networks, tables, figures, a summary."""

import io
import textwrap
import zipfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from matplotlib.figure import Figure

from cnnjax import files, plots
from cnnjax.report import print_table
from cnnjax.stats import conclusion, summarise
from inverted.rescaling import Trained

COLUMNS = ("question", "arm", "seed", "epoch", "k", "mean_activation", "loss", "test_loss", "test_error")


def store(path: Path, stamp: str, trained: Trained) -> None:
    """Keep an arm's networks, and what they were made by."""
    arrays: dict[str, Any] = {**flatten_dict(trained._asdict(), sep="/")}
    content = io.BytesIO()
    np.savez(content, stamp=np.array(stamp), **arrays)
    files.write_bytes(path, content.getvalue())


def stored(path: Path, stamp: str) -> Trained | None:
    """An arm's networks, if they are there and were made by the same configuration."""
    try:
        # By way of its bytes: NumPy leaves the file open where the archive turns out to be damaged.
        arrays = dict(np.load(io.BytesIO(path.read_bytes())))
    except (OSError, ValueError, EOFError, zipfile.BadZipFile):
        return None
    same = str(arrays.pop("stamp", "")) == stamp
    return Trained(**unflatten_dict(arrays, sep="/")) if same else None


class Record(NamedTuple):
    """What the experiment leaves: printed tables, figures, rows of results.csv, entries of summary.json."""

    out: Path
    protocol: str
    rows: list[dict[str, Any]]
    summary: dict[str, Any]

    def table(self, title: str, heads: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
        """Print a table under its title."""
        print(f"\n{title}")
        print_table(heads, rows)

    def contrast(self, name: str, metric: str, arms: dict[str, Any], primary: str | None = None) -> None:
        """Compare arms f[seeds], lower being better, with the first; say what follows, and keep it."""
        found = summarise(np.stack(list(arms.values())), list(arms), higher_is_better=False, primary=primary)
        sentence = conclusion(found, metric, accuracy="error" in metric)
        self.summary[name] = found.as_dict() | {"metric": metric, "conclusion": sentence}
        print(textwrap.fill(sentence, 110))

    def add(self, question: str, arm: str, places: tuple[str, ...], **metrics: np.ndarray) -> None:
        """Rows of metrics f[seeds, ...] whose axes are the `places` after the seed, counted from 1."""
        for index in np.ndindex(next(iter(metrics.values())).shape):
            place = dict(zip(places, (i + 1 for i in index[1:]), strict=True))
            values = {metric: table[index] for metric, table in metrics.items()}
            self.rows.append({"question": question, "arm": arm, "seed": index[0], **place, **values})

    def figure(self, name: str, figure: Figure) -> None:
        """Render a figure into the directory."""
        files.write_bytes(self.out / name, plots.png(figure))

    def write(self) -> None:
        """Leave results.csv and summary.json."""
        rows = ([row.get(column, "") for column in COLUMNS] for row in self.rows)
        files.write_csv(self.out / "results.csv", COLUMNS, rows)
        files.write_json(self.out / "summary.json", self.summary)
