"""The table of an experiment: a row per arm, seed and epoch, on disk after every epoch."""

import csv
import io
import json
import zipfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from cnnjax.devices.layouts import place
from cnnjax.devices.processes import fetch, from_leader, leads
from cnnjax.errors import ArgumentError, UserError
from cnnjax.files import clear_half_written, make_directory, write_bytes, write_csv, write_json
from cnnjax.stats.confusion import Predictions

METRICS = (
    "loss",
    "accuracy",
    "train_loss",
    "train_accuracy",
    "val_loss",
    "val_accuracy",
    "test_loss",
    "test_accuracy",
)
"""`loss` and `accuracy` as the optimizer saw them, dropout on; `train_*` on training images without dropout;
`test_*` at the last epoch alone. An experiment's probes add columns of their own at the last epoch."""

Row = dict[str, float]
Cell = tuple[str, int, int]  # arm, seed, epoch


class Results(NamedTuple):
    """`values[metric]` is float[arms, seeds, epochs]; NaN where nothing was measured or a member diverged.

    `predictions[arm]` has the seeds whose predictions are on disk, which an older directory may lack.
    """

    arms: tuple[str, ...]
    seeds: tuple[int, ...]
    epochs: int
    values: dict[str, np.ndarray]
    predictions: Mapping[str, Predictions]

    def final(self, metric: str) -> np.ndarray:
        """float[arms, seeds] of a metric at the last epoch."""
        return self.values[metric][:, :, -1]

    def renamed(self, names: Mapping[str, str]) -> "Results":
        """The arms that are keys of `names`, under their new names."""
        places = [self.arms.index(arm) for arm in names]
        return self._replace(
            arms=tuple(names.values()),
            values={metric: values[places] for metric, values in self.values.items()},
            predictions={new: self.predictions[arm] for arm, new in names.items() if arm in self.predictions},
        )


STATE = "state.npz"
PREDICTIONS = "predictions"


class Store:
    """`results.csv`, `protocol.json`, predictions and the state of members in training, in one directory."""

    def __init__(self, out: Path, protocol: dict[str, Any]) -> None:
        """Open the directory, with the rows it holds; of several processes, the one that leads opens it.

        Raises:
            ArgumentError: it holds the results of another protocol.
            UserError: its files are damaged.
        """
        self.out = out
        self.rows: dict[Cell, Row] = {}
        if leads():
            self._open(protocol)
        self.rows = from_leader(self.rows)

    def _open(self, protocol: dict[str, Any]) -> None:
        out = self.out
        for directory in (out, out / PREDICTIONS):
            clear_half_written(directory)
        told = json.loads(json.dumps(protocol))
        try:
            known = json.loads((out / "protocol.json").read_text())
        except FileNotFoundError:
            write_json(out / "protocol.json", told)
            return
        except ValueError as error:
            raise UserError(f"{out / 'protocol.json'} is damaged: {error}; choose another --out") from None
        names = [name for name in known if name in told and known[name] != told[name]]
        if names:
            raise ArgumentError(
                f"{out} holds results of another protocol (different: {', '.join(sorted(names))}); "
                "choose another --out"
            )
        write_json(out / "protocol.json", known | told)
        if (out / "results.csv").exists():
            self.rows = read_rows(out / "results.csv")

    def write(self) -> None:
        """Put all rows on disk, ordered by arm, seed and epoch."""
        metrics = self._metrics()
        # What is not measured is empty; a measured NaN says that the member diverged.
        rows = ([*cell, *(self.rows[cell].get(name, "") for name in metrics)] for cell in sorted(self.rows))
        write_csv(self.out / "results.csv", ("arm", "seed", "epoch", *metrics), rows)

    def _metrics(self) -> tuple[str, ...]:
        """The columns: those of every experiment, then those of the probes."""
        measured = {name for row in self.rows.values() for name in row}
        return *METRICS, *sorted(measured - set(METRICS))

    def keep(self, arm: str, seed: int, predictions: Predictions) -> None:
        """Put the predictions of one member, u8[n] and f32[n], on disk."""
        path = _predictions(self.out, arm, seed)
        make_directory(path.parent)
        content = io.BytesIO()
        np.savez_compressed(content, **predictions._asdict())
        write_bytes(path, content.getvalue())

    def save(self, tree: Any, members: Sequence[tuple[str, int]], epoch: int) -> None:
        """Keep the state of the members in training, so that an interrupted experiment can go on."""
        leaves = fetch(
            [jax.random.key_data(leaf) if _is_key(leaf) else leaf for leaf in jax.tree.leaves(tree)]
        )
        content = io.BytesIO()
        header = np.array(json.dumps({"members": members, "epoch": epoch}))
        np.savez(content, header, *leaves)
        write_bytes(self.out / STATE, content.getvalue())

    def restore(self, like: Any, members: Sequence[tuple[str, int]]) -> tuple[Any, int]:
        """The kept state and its epoch if it is of these members; else `like` and 0."""
        kept = self._state()
        if kept is None or kept[0] != list(members):
            return like, 0
        leaves, structure = jax.tree.flatten(like)
        filled = [
            jax.random.wrap_key_data(place(old.sharding, new)) if _is_key(old) else place(old.sharding, new)
            for old, new in zip(leaves, kept[2], strict=True)
        ]
        return jax.tree.unflatten(structure, filled), kept[1]

    def state_members(self) -> list[tuple[str, int]]:
        """The members whose state is kept."""
        kept = self._state()
        return kept[0] if kept else []

    def _state(self) -> tuple[list[tuple[str, int]], int, list[np.ndarray]] | None:
        return from_leader(self._read_state() if leads() else None)

    def _read_state(self) -> tuple[list[tuple[str, int]], int, list[np.ndarray]] | None:
        try:
            with np.load(self.out / STATE, allow_pickle=False) as file:
                header, *leaves = (file[name] for name in file.files)
            told = json.loads(str(header))
        except (OSError, ValueError, KeyError, zipfile.BadZipFile):
            return None  # none yet, or damaged: its members start again, and give the same rows
        return [(name, seed) for name, seed in told["members"]], told["epoch"], leaves

    def results(self, arms: Sequence[str], seeds: Sequence[int], epochs: int) -> Results:
        """The rows of these arms and seeds as arrays."""
        values = {metric: values_of(self.rows, metric, arms, seeds, epochs) for metric in self._metrics()}
        kept = {arm: read_predictions(self.out, arm, seeds) for arm in arms}
        predictions = {arm: known for arm, known in kept.items() if known is not None}
        return Results(tuple(arms), tuple(seeds), epochs, values, predictions)


def read_rows(path: Path) -> dict[Cell, Row]:
    """The rows of a results.csv.

    Raises:
        UserError: it cannot be read, or is not such a table.
    """
    rows = {}
    try:
        with path.open(newline="") as file:
            for row in csv.DictReader(file):
                cell = row.pop("arm"), int(row.pop("seed")), int(row.pop("epoch"))
                rows[cell] = {name: float(text) for name, text in row.items() if text}
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from error
    except (KeyError, TypeError, ValueError, csv.Error) as error:
        raise UserError(f"{path} is damaged ({error}); choose another --out") from None
    return rows


def values_of(
    rows: Mapping[Cell, Row], metric: str, arms: Sequence[str], seeds: Sequence[int], epochs: int
) -> np.ndarray:
    """float[arms, seeds, epochs] of a metric; NaN where there is no such row or value."""
    missing: Row = {}
    places = range(1, epochs + 1)
    return np.array(
        [
            [[rows.get((a, s, e), missing).get(metric, float("nan")) for e in places] for s in seeds]
            for a in arms
        ]
    )


def read_predictions(out: Path, arm: str, seeds: Sequence[int]) -> Predictions | None:
    """Those of an arm that are in the directory `out`; None if there are none."""
    found = []
    for seed in seeds:
        with (
            suppress(OSError, ValueError, KeyError, zipfile.BadZipFile),
            np.load(_predictions(out, arm, seed), allow_pickle=False) as file,
        ):
            found.append([file[name] for name in Predictions._fields])
    return Predictions(*map(np.stack, zip(*found, strict=True))) if found else None


def _predictions(out: Path, arm: str, seed: int) -> Path:
    return out / PREDICTIONS / f"{arm}, seed {seed}.npz"


def _is_key(leaf: Any) -> bool:
    return jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
