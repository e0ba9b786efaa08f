"""The output of `inverted_dropout.py`: stored networks, tables, figures and summary.json."""

import io
import zipfile
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from cnnjax import files
from cnnjax.plots import Figure
from cnnjax.report import draw, print_table, say
from cnnjax.stats import conclusion, summarise
from inverted.rescaling import TrainedArm

COLUMNS = ("question", "arm", "seed", "epoch", "k", "mean_activation", "loss", "test_loss", "test_error")


def store(path: Path, stamp: str, trained: TrainedArm) -> None:
    """Save an arm's networks with a stamp of the configuration that made them."""
    arrays: dict[str, Any] = {**flatten_dict(trained._asdict(), sep="/")}
    content = io.BytesIO()
    np.savez(content, stamp=np.array(stamp), **arrays)
    files.write_bytes(path, content.getvalue())


def stored(path: Path, stamp: str | None) -> TrainedArm | None:
    """Load an arm's networks; None if missing, damaged or made by another configuration than the stamp's."""
    try:
        # Through bytes, because NumPy leaves the file of a damaged archive open.
        arrays = dict(np.load(io.BytesIO(path.read_bytes())))
    except (OSError, ValueError, EOFError, zipfile.BadZipFile):
        return None
    same = str(arrays.pop("stamp", "")) == stamp or stamp is None
    return TrainedArm(**unflatten_dict(arrays, sep="/")) if same else None


class Record(NamedTuple):
    """Collects rows of results.csv and entries of summary.json; prints tables and saves figures."""

    out: Path
    protocol: str
    rows: list[dict[str, Any]]
    summary: dict[str, Any]
    figures: dict[str, Callable[[], Figure]]
    remarks: tuple[str, ...]  # about the plan and the looks, for every conclusion

    def table(self, title: str, heads: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
        """Print a table with a title."""
        print()
        say(title)
        print_table(heads, rows)

    def contrast(self, name: str, metric: str, arms: dict[str, Any], primary: str | None = None) -> None:
        """Compare arms f[seeds] with the first (lower is better); print and record the conclusion."""
        values = np.stack(list(arms.values()))
        compared = summarise(values, list(arms), higher_is_better=False, primary=primary)
        rehearsal = bool(self.summary.get("rehearsal"))
        found = conclusion(compared, metric, accuracy="error" in metric, rehearsal=rehearsal)
        sentence = " ".join([found, *self.remarks])
        self.summary[name] = compared.as_dict() | {"metric": metric, "conclusion": sentence}
        say(sentence)

    def add(self, question: str, arm: str, axes: tuple[str, ...], **metrics: np.ndarray) -> None:
        """Add a row for each entry of metrics f[seeds, *axes]; the axes count from 1."""
        for index in np.ndindex(next(iter(metrics.values())).shape):
            position = dict(zip(axes, (i + 1 for i in index[1:]), strict=True))
            values = {metric: table[index] for metric, table in metrics.items()}
            self.rows.append({"question": question, "arm": arm, "seed": index[0], **position, **values})

    def figure(self, name: str, make: Callable[..., Figure], *arguments: Any, **options: Any) -> None:
        """Let `write` draw a figure with these arguments."""
        self.figures[name] = partial(make, *arguments, **options)

    def write(self) -> None:
        """Write results.csv and summary.json, and then the figures."""
        rows = ([row.get(column, "") for column in COLUMNS] for row in self.rows)
        files.write_csv(self.out / "results.csv", COLUMNS, rows)
        files.write_json(self.out / "summary.json", self.summary)
        draw(self.out, self.figures)
