"""Results of an experiment: a directory with rows, predictions, and the state of what is in training."""

import io
import json
import os
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
from cnnjax.experiment import environments
from cnnjax.experiment.identity import EARLIER
from cnnjax.experiment.plans import LOOKS, Evidence
from cnnjax.experiment.predictions import (
    DAMAGED,
    PREDICTIONS,
    arrays_in,
    read_prediction,
    read_predictions,
    write_prediction,
)
from cnnjax.experiment.rows import CHECKSUMS, Cell, Row, columns, read_rows, values_of, write_rows
from cnnjax.files import (
    clear_half_written,
    made,
    read_csv,
    read_json,
    write_bytes,
    write_csv,
    write_json,
)
from cnnjax.files.records import CHECKSUM, checksum
from cnnjax.shapes import Float
from cnnjax.stats.confusion import Predictions
from cnnjax.stats.families import ALPHA


class Results(NamedTuple):
    """The values of each metric; NaN if not measured, or if the run diverged.

    `predictions` has the arms of which those of all seeds are on disk; older directories may lack them.
    """

    arms: tuple[str, ...]
    seeds: tuple[int, ...]
    epochs: int
    values: dict[str, Float[np.ndarray, "arms seeds epochs"]]
    predictions: Mapping[str, Predictions]
    evidence: Evidence | None = None  # of an experiment: the plan, the looks, and what to say about them

    def final(self, metric: str) -> Float[np.ndarray, "arms seeds"]:
        """Return a metric after the last epoch."""
        return self.values[metric][:, :, -1]

    @property
    def alpha(self) -> float:
        """The level at which this look at the results decides."""
        return self.evidence.alpha if self.evidence else ALPHA

    @property
    def provenance(self) -> dict[str, Any]:
        """What a summary.json says about the plan, the looks, and where its numbers were made."""
        return (self.evidence.as_dict() if self.evidence else {}) | made()

    def with_remarks(self, sentence: str) -> str:
        """Add to a conclusion what must be said about the plan and the looks."""
        return " ".join([sentence, *(self.evidence.remarks if self.evidence else ())])


RESULTS = "results.csv"
PROTOCOL = "protocol.json"
STATE = "state.npz"
SECONDS = "seconds.csv"

WRITTEN = RESULTS, CHECKSUMS, STATE, PREDICTIONS, SECONDS, LOOKS, environments.FILE, "summary.json"
"""What is never there before protocol.json; plan.json is."""


class Store:
    """A results directory: results.csv, protocol.json, predictions, and the state of members in training."""

    def __init__(self, out: Path, protocol: dict[str, Any]) -> None:
        """Open the directory and read its rows; with several processes, the leading one does so for all.

        Raises:
            ArgumentError: it holds results of another protocol, or without protocol.json.
            UserError: its files are damaged.
        """
        self.out = out
        self.rows: dict[Cell, Row] = {}
        self._unpredicted: set[tuple[str, int]] = set()
        self._times: list[tuple[int, float]] = []
        self._unwritten: dict[str, Any] | None = None
        if leads():
            self._open(protocol)
        self.rows, self._unpredicted = from_leader((self.rows, self._unpredicted))

    def _open(self, protocol: dict[str, Any]) -> None:
        out = self.out
        for directory in (out, out / PREDICTIONS):
            clear_half_written(directory)
        wanted, stored = json.loads(json.dumps(protocol)), read_json(out / PROTOCOL)
        foreign = [name for name in WRITTEN if stored is None and os.path.lexists(out / name)]
        if foreign:
            raise ArgumentError(
                f"{out} holds {foreign[0]} and no protocol.json; choose another --out, or restore it"
            )
        if stored is None or not any((out / name).exists() for name in (RESULTS, STATE, PREDICTIONS)):
            self._unwritten = wanted  # nothing was computed, so nothing is there to protect
            return
        if names := different(stored, wanted):
            raise ArgumentError(
                f"{out} holds results of another protocol (different: {', '.join(names)}); "
                "choose another --out"
            )
        self._unwritten = stored | wanted
        self._times = read_times(out)
        self.rows = read_rows(out / RESULTS)
        if (out / CHECKSUMS).exists():  # an earlier version may have written no predictions
            finished = {(arm, seed) for arm, seed, epoch in self.rows if epoch == stored.get("epochs")}
            self._unpredicted = {each for each in finished if read_prediction(out, *each) is None}

    def begin(self) -> None:
        """Write protocol.json before the first epoch; until there are results, another may replace it."""
        if self._unwritten is not None:
            if self.rows and not (self.out / CHECKSUMS).exists():  # an earlier version wrote them
                write_rows(self.out / RESULTS, self.rows)
            write_json(self.out / PROTOCOL, self._unwritten | {CHECKSUM: checksum(self._unwritten)})
            self._unwritten = None

    def count(self, seeds: range) -> int:
        """Count the rows of these seeds."""
        return sum(seed in seeds for _, seed, _ in self.rows)

    def write(self) -> None:
        """Write all rows, sorted by arm, seed and epoch."""
        self.begin()
        write_rows(self.out / RESULTS, self.rows)

    def time(self, networks: int, seconds: float) -> None:
        """Record in seconds.csv how long one epoch of so many networks took, side by side."""
        self._times.append((networks, round(seconds, 3)))
        write_times(self.out, self._times)

    def lacks(self, member: tuple[str, int], epochs: int) -> bool:
        """Whether a row of these epochs is missing, or what a finished network predicts."""
        return member in self._unpredicted or any(
            (*member, epoch) not in self.rows for epoch in range(1, epochs + 1)
        )

    def keep(self, arm: str, seed: int, predictions: Predictions) -> None:
        """Write the predictions of one member."""
        self.begin()
        write_prediction(self.out, arm, seed, predictions)
        self._unpredicted.discard((arm, seed))

    def save(self, tree: Any, members: Sequence[tuple[str, int]], epoch: int) -> None:
        """Write the state of the members in training, from which an interrupted experiment resumes.

        One plain file, replaced as training goes on. Runs keep a history of Orbax checkpoints instead; here
        that would make the core depend on Orbax.
        """
        leaves = fetch(
            [jax.random.key_data(leaf) if _is_key(leaf) else leaf for leaf in jax.tree.leaves(tree)]
        )
        content = io.BytesIO()
        header = np.array(json.dumps({"members": members, "epoch": epoch}))
        np.savez(content, header, *leaves)
        write_bytes(self.out / STATE, content.getvalue())

    def restore(self, like: Any, members: Sequence[tuple[str, int]]) -> tuple[Any, int]:
        """Return the saved state and its epoch if it belongs to these members; otherwise `like` and 0."""
        members_saved, epoch, arrays = self._state()
        leaves, structure = jax.tree.flatten(like)
        # Another version may save more hyperparameters; its members start again, too. So do those of which
        # a row before the state is missing.
        other = members_saved != list(members) or len(arrays) != len(leaves)
        if other or any(self.lacks(member, epoch) for member in members):
            return like, 0
        restored = [
            jax.random.wrap_key_data(place(old.sharding, new)) if _is_key(old) else place(old.sharding, new)
            for old, new in zip(leaves, arrays, strict=True)
        ]
        return jax.tree.unflatten(structure, restored), epoch

    def state_members(self) -> list[tuple[str, int]]:
        """Return the arm and seed of each member whose state is saved."""
        return self._state()[0]

    def _state(self) -> tuple[list[tuple[str, int]], int, list[np.ndarray]]:
        """Return the members whose state is saved, their epoch and the leaves of the state."""
        members, epoch, leaves = [], 0, []
        # If it is missing or damaged, its members start again and give the same rows.
        if leads():
            with suppress(*DAMAGED), arrays_in(self.out / STATE) as file:
                header, *leaves = (file[name] for name in file.files)
                record = json.loads(str(header))
                members, epoch = [(name, seed) for name, seed in record["members"]], record["epoch"]
        return from_leader((members, epoch, leaves))

    def results(self, arms: Sequence[str], seeds: Sequence[int], epochs: int) -> Results:
        """Return the rows of these arms and seeds as arrays."""
        values = {name: values_of(self.rows, name, arms, seeds, epochs) for name in columns(self.rows)}
        stored = {arm: read_predictions(self.out, arm, seeds) for arm in arms}
        # The seeds of arms are compared in pairs.
        predictions = {arm: said for arm, said in stored.items() if said and len(said.labels) == len(seeds)}
        return Results(tuple(arms), tuple(seeds), epochs, values, predictions)


def different(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """Return the entries in which two protocol.json differ; arms that only one has do not count."""
    was, now = {**EARLIER, **one}, {**EARLIER, **other}
    common = (was.keys() & now.keys()) - {CHECKSUM}
    return sorted(name for name in common if was[name] != now[name])


def write_times(out: Path, times: Sequence[tuple[int, float]]) -> None:
    """Write seconds.csv: a row for each epoch, in the order of time."""
    write_csv(out / SECONDS, ("networks", "seconds"), times)


def read_times(out: Path) -> list[tuple[int, float]]:
    """Read seconds.csv: networks that trained side by side, and the seconds of an epoch; [] if damaged."""
    with suppress(UserError, ValueError, KeyError, TypeError):
        return [(int(row["networks"]), float(row["seconds"])) for row in read_csv(out / SECONDS) or ()]
    return []


def _is_key(leaf: Any) -> bool:
    return jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
