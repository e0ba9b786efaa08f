"""How fast is cnnjax compared with Keras, PyTorch and plain Flax on the same cores?

Peers: Keras on TensorFlow, Keras on JAX, PyTorch (eager, on one thread and on all cores, the faster of which
counts) and plain Flax, each written as its documentation recommends and with its fastest settings for this
size (experiments/peers). All run on the CPU.

Settings: the tutorials' networks, batch sizes 32, 128 and 512, dropout rates 0 and 0.5, training with and
without validation. All peers have the same 48,000 training and 12,000 validation images in memory.

Networks of one's own, a perceptron and a BatchNorm ResNet that cnnjax knows as plain Flax modules, alone and
in a population of 8 (the peers train one; seconds are those of each network), on fewer images:

    make bench ARGS="--models mlp resnet --members 1 8 --batch-sizes 32 128 --rates 0 --modes train
                     --peers flax torch --train-size 1024 --out results/benchmark_foreign"

Protocol: each peer is a process, launched --launches times in each setting. Peers train one epoch each in
turn, A B C A B C, while the others wait. The first epoch, which compiles, does not count.

Quiet or slow: before every round a fixed piece of work, a matrix product and a pass over memory, measures the
machine. A round is quiet if both rates are at least 0.9 of the best of the run. Quiet rounds count; the
median of slow ones stands beside them.

Statistics: the unit is the launch, whose value is the median of its rounds, because a process stays as fast
or slow as its memory and threads happened to be laid out. Over launches: median seconds per epoch; the ratio
to cnnjax in the same round (median, minimum, maximum); the fraction of the ceiling, which is the least time
of an epoch at the best rates (costs.py); peak memory; seconds from process start to the end of the first
epoch; validation accuracy after 3 epochs, which shows that all peers train the same network.

Run `make bench`; it writes results.csv, summary.json and ratios.png to --out, and continues an interrupted
run.
"""

import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from itertools import product
from pathlib import Path
from statistics import median
from typing import Annotated, Any, Literal

import numpy as np
from common import require_positive, start
from peers.calibration import best_rates, calibrator, least_seconds_of_epoch
from peers.comparison import chart, compare, describe, print_table
from peers.entries import Entry, entries, expected, launches, machine
from peers.protocol import PARAMETERS, Arrays, Settings
from peers.results import by_launch, grouped, kept_rows, refuse_other_versions, write_rows
from peers.worker import ACCURACY_EPOCH, Launch, Row, measure

from cnnjax import files, report
from cnnjax.cli.runner import DataDirectory, OutDirectory, shown
from cnnjax.data import load, split, subset
from cnnjax.errors import ArgumentError
from cnnjax.files.misspelt import choose
from cnnjax.models import MODELS

MAX_LOAD = 0.1
"""Most cores that other processes may keep busy, on average, for timings to count as evidence."""


QUICK = {"models": ("keras-cnn",), "batch_sizes": (32,), "rates": (0.5,), "modes": ("train",), "launches": 1}


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
    members: tuple[int, ...] = (1,)
    """Networks in one program of cnnjax; of several, the seconds are those of each."""
    launches: int = 3
    """Starts of each peer's process in each setting."""
    rounds: int = 2
    """Timed epochs of each peer in each launch."""
    dataset: str = "mnist"
    """mnist, fashion_mnist or kmnist."""
    train_size: Annotated[int | None, shown("INT", "48,000 of the training split")] = None
    """Training images of an epoch."""
    data_dir: DataDirectory = None
    environments: Path = Path(".peers")
    """Directory of the peers' environments, created by `make bench`."""
    out: OutDirectory = None
    """Output directory; results/benchmark_peers by default. Settings that it has are not run again."""
    quick: bool = False
    """Run for about two minutes: keras-cnn, batch 32, rate 0.5, training only, one launch."""

    def __call__(self) -> None:
        """Run the missing settings, print the table and draw the chart."""
        out = self.out or Path("results/benchmark_peers" + "_quick" * self.quick)
        self._check()
        chosen = entries(self.peers)
        starts = launches(chosen, self.environments)
        loaded = load(self.dataset, self.data_dir, announce=print)
        train, val = split(loaded.train)
        train = subset(train, self.train_size or len(train.labels))
        protocol = {
            "machine": machine(),
            "dataset": self.dataset,
            "sha256": loaded.sha256,
            "images": len(train.labels),
        }
        with files.claimed(out), tempfile.TemporaryDirectory() as temporary:
            self._claim(out, protocol)
            arrays = Path(temporary, "arrays.npz")
            parts = Arrays(train.images, train.labels, val.images, val.labels)
            np.savez(arrays, allow_pickle=False, **parts._asdict())
            rows = self._run(out, chosen, starts, arrays, len(train.labels))
            self._report(out, rows, protocol)

    def _check(self) -> None:
        if not (self.models and self.batch_sizes and self.rates and self.modes and self.members):
            raise ArgumentError("--models, --batch-sizes, --rates and --modes each need at least one value")
        for model in self.models:
            if model not in PARAMETERS:
                raise ArgumentError(f"--models {model!r} is unknown{choose(model, PARAMETERS)}")
        foreign = sorted(set(self.models) - set(MODELS))
        keras = [peer for peer in self.peers if peer.startswith("keras")]
        if foreign and keras:
            raise ArgumentError(f"--models {foreign[0]} is not written for {keras[0]}; omit it from --peers")
        require_positive(batch_sizes=self.batch_sizes, members=self.members, launches=self.launches)
        if self.train_size is not None:
            require_positive(train_size=self.train_size)
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
        self,
        out: Path,
        chosen: Mapping[str, Entry],
        starts: Mapping[str, Launch],
        arrays: Path,
        images: int,
    ) -> list[Row]:
        """Measure the missing settings, and save each round as it ends."""
        wanted = [
            Settings(model, size, rate, mode == "validate", 0, members)
            for model, mode, members, size, rate in product(
                self.models, self.modes, self.members, self.batch_sizes, self.rates
            )
        ]
        path = out / "results.csv"
        rows = kept_rows(path, wanted, starts, self.rounds)
        kept = {setting: by_launch(of_setting) for setting, of_setting in grouped(rows).items()}
        # All settings once, then all again: the launches of a setting are far apart in time.
        missing = [
            (setting, launch)
            for launch in range(1, self.launches + 1)
            for setting in dict.fromkeys(wanted)
            if launch not in kept.get(setting, {})
        ]
        estimates = [expected(setting, chosen, self.rounds, images) for setting, _ in missing]
        print(
            f"{len(missing)} launches to run, {sum(map(len, kept.values()))} already in {out}; {len(starts)} "
            f"processes each, 1 + {self.rounds} epochs: about {sum(estimates) / 60:.0f} minutes on two idle "
            "cores",
            flush=True,
        )
        calibrate, began = calibrator(), time.perf_counter()
        for i, (setting, launch) in enumerate(missing):
            print(f"{i + 1}/{len(missing)}  {describe(setting)}, launch {launch}", flush=True)
            logs = out / "logs" / describe(setting).replace(",", "").replace(" + ", "-").replace(" ", "-")
            with files.explained(logs):
                logs.mkdir(parents=True, exist_ok=True)
            measured = measure(setting, starts, arrays, self.rounds, logs, calibrate, launch)
            with closing(measured) as turns:
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
        best, images = best_rates(rows), protocol["images"]
        comparisons = {
            setting: compare(group, best, least_seconds_of_epoch(setting, images, best))
            for setting, group in sorted(grouped(rows).items())
        }
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
                "ceilings": best._asdict(),
                "busy_cores_elsewhere": {"median": median(busy), "greatest": max(busy)},
                "settings": [
                    {**setting._asdict(), "peers": [line._asdict() for line in lines]}
                    for setting, lines in comparisons.items()
                ],
            },
        )
        launched = sorted({line.launches for lines in comparisons.values() for line in lines})
        caption = (
            f"{protocol['machine']['cpu']}, cores: {protocol['machine']['cores']}, {date}. Bars: median of "
            f"{' or '.join(map(str, launched))} launches; whiskers: minimum and maximum; {background}."
        )
        report.draw(out, {"ratios.png": partial(chart, comparisons, caption)})
        print(f"table, summary and chart in {out}")


if __name__ == "__main__":
    sys.exit(start(BenchmarkPeers, QUICK, __doc__, "benchmark_peers.py"))
