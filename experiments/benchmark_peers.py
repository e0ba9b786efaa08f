"""How fast is cnnjax compared with Keras, PyTorch and plain Flax on the same cores?

Peers: Keras on TensorFlow, Keras on JAX, PyTorch (eager, on one thread and on all cores, the faster of which
counts) and plain Flax, each written as its documentation recommends and with its fastest settings for this
size (experiments/peers). All run on the CPU.

Settings: the tutorials' networks, batch sizes 32, 128 and 512, dropout rates 0 and 0.5, training with and
without validation. All peers have the same 48,000 training and 12,000 validation images in memory.

Protocol: each peer is a process, started once per setting. Peers train one epoch each in turn, A B C A B C,
while the others wait. The first epoch, which compiles, does not count.

Statistics: median seconds per epoch; the ratio to cnnjax in the same round (median, minimum, maximum); peak
memory; seconds from process start to the end of the first epoch; validation accuracy after 3 epochs, which
shows that all peers train the same network.

Run `make bench`; it writes results.csv, summary.json and ratios.png to --out, and continues an interrupted
run.
"""

import os
import platform
import sys
import tempfile
import time
from collections.abc import Collection, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from itertools import product
from pathlib import Path
from statistics import median
from typing import Any, Literal, NamedTuple

import numpy as np
from common import start
from peers.comparison import (
    BASE,
    chart,
    compare,
    describe,
    finished,
    grouped,
    peer_of,
    print_table,
    read_rows,
    write_rows,
)
from peers.protocol import PARAMETERS, Arrays, Settings
from peers.worker import ACCURACY_EPOCH, Launch, Row, measure

from cnnjax import files, report
from cnnjax.data import load, split
from cnnjax.errors import ArgumentError, UserError, choose

PEERS = Path(__file__).resolve().parent / "peers"
IMAGES = 48_000
"""Training images, to estimate the total time."""
MAX_LOAD = 0.1
"""Most cores that other processes may keep busy, on average, for timings to count as evidence."""

# Peers ------------------------------------------------------------------------------------------------------


class Entry(NamedTuple):
    """How to run a peer, and roughly what it takes on two cores (only to estimate the total time)."""

    script: str
    environment: str  # directory of its environment; "" for the running one
    variables: dict[str, str]
    start: float  # seconds to start and compile
    step: float  # milliseconds a step, for any batch size
    images: float  # seconds an epoch, for any batch size


def entries(peers: Collection[str]) -> dict[str, Entry]:
    """Return the entries of these peers and of cnnjax, by name."""
    every = {
        BASE: Entry("cnnjax_peer.py", "", {"PYTHONPATH": str(PEERS.parents[1])}, 7, 0.7, 0.9),
        "flax": Entry("flax_peer.py", "flax", {}, 6, 1.3, 3.0),
        "keras-tensorflow": Entry("keras_peer.py", "tf", {"KERAS_BACKEND": "tensorflow"}, 9, 2.3, 1.8),
        "keras-jax": Entry("keras_peer.py", "keras-jax", {"KERAS_BACKEND": "jax"}, 7, 1.7, 3.0),
    }
    for threads in sorted({1, cores()}):
        variables = {"OMP_NUM_THREADS": str(threads)}
        every[f"torch-{threads}"] = Entry("torch_peer.py", "torch", variables, 5, 2.0, 2.0)
    return {name: entry for name, entry in every.items() if peer_of(name) in {BASE, *peers}}


def launches(chosen: Mapping[str, Entry], environments: Path) -> dict[str, Launch]:
    """Return the commands of these entries.

    Raises:
        UserError: an environment is missing.
    """
    commands = {}
    for name, entry in chosen.items():
        python = Path(sys.executable)
        if entry.environment:
            # Not resolved, because Python finds its environment by the path of the link.
            python = environments.absolute() / entry.environment / "bin/python"
        if not python.exists():
            raise UserError(
                f"{environments / entry.environment} is missing; create it with `make bench`, point "
                "--environments to it, or omit the peer from --peers"
            )
        commands[name] = Launch([str(python), str(PEERS / entry.script)], entry.variables)
    return commands


def cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0))


def machine() -> dict[str, Any]:
    """Describe the machine."""
    name = Path("/proc/cpuinfo").read_text().partition("model name")[2].partition("\n")[0]
    cpu = name.strip(" \t:") or platform.machine()
    return {"cpu": cpu, "cores": cores(), "system": platform.platform()}


# Protocol ---------------------------------------------------------------------------------------------------


def kept_rows(path: Path, wanted: Collection[Settings], names: Collection[str], rounds: int) -> list[Row]:
    """Read the rows of complete settings, without wanted ones that lack entries or rounds.

    Timings are compared only within one run of the processes, so a setting is kept whole or not at all.
    """
    kept: list[Row] = []
    for setting, rows in grouped(read_rows(path)).items():
        present = {row.entry for row in rows}
        whole = finished(rows, present | {BASE}, max(ACCURACY_EPOCH - 1, *(row.round for row in rows)))
        if whole and (setting not in wanted or finished(rows, names, rounds)):
            kept += rows
    return kept


def refuse_other_versions(known: Sequence[Row], new: Sequence[Row], out: Path) -> None:
    """Raise `ArgumentError` if new rows come from other code or versions than those in `out`."""
    versions = {row.entry: row.version for row in known}
    for row in new:
        if (before := versions.get(row.entry, row.version)) != row.version:
            raise ArgumentError(
                f"{out} has results of another {row.entry} version ({before}; now {row.version}); "
                "choose another --out"
            )


def expected(setting: Settings, chosen: Mapping[str, Entry], rounds: int) -> float:
    """Estimate the seconds that a setting takes."""
    epochs, steps = rounds + 1, IMAGES / setting.batch_size
    return sum(e.start + epochs * (e.images + steps * e.step / 1000) for e in chosen.values())


# The command ------------------------------------------------------------------------------------------------


QUICK = {"models": ("keras-cnn",), "batch_sizes": (32,), "rates": (0.5,), "modes": ("train",), "rounds": 2}


@dataclass(frozen=True)
class BenchmarkPeers:
    """Compare the speed of cnnjax with other libraries."""

    models: tuple[str, ...] = ("keras-cnn", "lenet-swish")
    """Names of the networks."""
    batch_sizes: tuple[int, ...] = (32, 128, 512)
    """Images a step."""
    rates: tuple[float, ...] = (0.0, 0.5)
    """Dropout rates."""
    modes: tuple[Literal["train", "validate"], ...] = ("train", "validate")
    """Epochs of training only, and of training + validation."""
    peers: tuple[Literal["cnnjax", "flax", "keras-tensorflow", "keras-jax", "torch"], ...] = (
        "cnnjax",
        "flax",
        "keras-tensorflow",
        "keras-jax",
        "torch",
    )
    """Libraries to compare; cnnjax is always included."""
    rounds: int = 5
    """Timed epochs of each peer in each setting."""
    dataset: str = "mnist"
    """mnist, fashion_mnist or kmnist."""
    data_dir: Path | None = None
    """Directory with the four IDX files (plain or .gz) to use instead of a download."""
    environments: Path = Path(".peers")
    """Directory of the peers' environments, created by `make bench`."""
    out: Path | None = None
    """Output directory; results/benchmark_peers by default. Settings that it has are not run again."""
    quick: bool = False
    """Run for about two minutes: keras-cnn, batch 32, rate 0.5, training only, 2 rounds."""

    def __call__(self) -> None:
        """Run the missing settings, print the table and draw the chart."""
        out = self.out or Path("results/benchmark_peers" + "_quick" * self.quick)
        self._check()
        chosen = entries(self.peers)
        starts = launches(chosen, self.environments)
        loaded = load(self.dataset, self.data_dir, announce=print)
        train, val = split(loaded.train)
        protocol = {"machine": machine(), "dataset": self.dataset, "sha256": loaded.sha256}
        with files.claimed(out), tempfile.TemporaryDirectory() as temporary:
            self._claim(out, protocol)
            arrays = Path(temporary, "arrays.npz")
            parts = Arrays(train.images, train.labels, val.images, val.labels)
            np.savez(arrays, allow_pickle=False, **parts._asdict())
            rows = self._run(out, chosen, starts, arrays)
            self._report(out, rows, protocol)

    def _check(self) -> None:
        if not (self.models and self.batch_sizes and self.rates and self.modes):
            raise ArgumentError("--models, --batch-sizes, --rates and --modes each need at least one value")
        for model in self.models:
            if model not in PARAMETERS:
                raise ArgumentError(f"--models {model!r} is unknown{choose(model, PARAMETERS)}")
        if min(self.batch_sizes) < 1:
            raise ArgumentError(f"--batch-sizes {self.batch_sizes} must be at least 1")
        if not all(0 <= rate < 1 for rate in self.rates):
            raise ArgumentError(f"--rates {self.rates} must be at least 0 and less than 1")
        if self.rounds < ACCURACY_EPOCH - 1:
            raise ArgumentError(
                f"--rounds {self.rounds} must be at least {ACCURACY_EPOCH - 1} to measure accuracy"
            )

    def _claim(self, out: Path, protocol: dict[str, Any]) -> None:
        """Refuse a directory with results from another machine or other data."""
        known = files.read_json(out / "protocol.json")
        if known is None:
            files.write_json(out / "protocol.json", protocol)
        elif known != protocol:
            different = ", ".join(name for name in protocol if known.get(name) != protocol[name])
            raise ArgumentError(f"{out} has results of another {different}; choose another --out")

    def _run(
        self, out: Path, chosen: Mapping[str, Entry], starts: Mapping[str, Launch], arrays: Path
    ) -> list[Row]:
        """Measure the missing settings, and save each round as it ends."""
        wanted = [
            Settings(model, size, rate, mode == "validate", 0)
            for model, mode, size, rate in product(self.models, self.modes, self.batch_sizes, self.rates)
        ]
        path = out / "results.csv"
        rows = kept_rows(path, wanted, starts, self.rounds)
        kept = grouped(rows)
        missing = [setting for setting in dict.fromkeys(wanted) if setting not in kept]
        estimates = [expected(setting, chosen, self.rounds) for setting in missing]
        print(
            f"{len(missing)} settings to run, {len(kept)} already in {out}; {len(starts)} processes each, "
            f"1 + {self.rounds} epochs: about {sum(estimates) / 60:.0f} minutes on two idle cores",
            flush=True,
        )
        began = time.perf_counter()
        for i, setting in enumerate(missing):
            print(f"{i + 1}/{len(missing)}  {describe(setting)}", flush=True)
            logs = out / "logs" / describe(setting).replace(",", "").replace(" + ", "-").replace(" ", "-")
            with files.explained(logs):
                logs.mkdir(parents=True, exist_ok=True)
            with closing(measure(setting, starts, arrays, self.rounds, logs)) as turns:
                for new in turns:
                    refuse_other_versions(rows, new, out)
                    rows += new
                    write_rows(path, rows)
                    number = f"round {new[0].round}" if new[0].round else "first  "
                    print(
                        f"  {number}  " + "  ".join(f"{row.entry} {row.seconds:.2f}" for row in new),
                        flush=True,
                    )
            pace = (time.perf_counter() - began) / sum(estimates[: i + 1])
            print(f"  about {pace * sum(estimates[i + 1 :]) / 60:.0f} minutes left", flush=True)
        return rows

    def _report(self, out: Path, rows: Sequence[Row], protocol: Mapping[str, Any]) -> None:
        comparisons = {setting: compare(group) for setting, group in sorted(grouped(rows).items())}
        print_table(comparisons)
        busy = [row.elsewhere for row in rows if row.round]
        background = f"other processes kept {median(busy):.2f} cores busy (maximum {max(busy):.2f})"
        if median(busy) > MAX_LOAD:
            background += ", too many for these timings to be evidence"
        print(background)
        date = time.strftime("%Y-%m-%d")
        files.write_json(
            out / "summary.json",
            {
                "date": date,
                **protocol,
                "versions": {row.entry: row.version for row in rows},
                "busy_cores_elsewhere": {"median": median(busy), "greatest": max(busy)},
                "settings": [
                    {**setting._asdict(), "peers": [line._asdict() for line in lines]}
                    for setting, lines in comparisons.items()
                ],
            },
        )
        rounds = sorted({line.rounds for lines in comparisons.values() for line in lines})
        caption = (
            f"{protocol['machine']['cpu']}, cores: {protocol['machine']['cores']}, {date}. Bars: median of "
            f"{' or '.join(map(str, rounds))} rounds; whiskers: minimum and maximum; {background}."
        )
        report.draw(out, {"ratios.png": partial(chart, comparisons, caption)})
        print(f"table, summary and chart in {out}")


if __name__ == "__main__":
    sys.exit(start(BenchmarkPeers, QUICK, __doc__, "benchmark_peers.py"))
