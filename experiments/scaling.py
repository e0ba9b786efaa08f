"""How does the time of a training step grow, and how far is it from what the machine can do?

Hypothesis: a fixed part and a part for each image. The first is what a step costs whatever it trains on: the
optimizer goes over every parameter, and each operation has to be started. The second is bound by arithmetic.

Batch       32, 64, ... 8,192 images a step, on one device.
Parts       at the smallest and a larger batch: forward; and backward with plain descent; and Adam; and
            dropout.
Devices     the two largest of these batches divided over 1, 2, 4, ... devices.
Population  networks in one program as experiments train them, batch 32 each, on all devices together.
Ceilings    measured in the same rounds, on one device: the fastest product of square matrices, and the
            fastest x + 1 over an array too large for a cache. What a step must compute and move at least, if
            caches keep nothing, is counted (costs) and compared with XLA's cost analysis; the ceiling
            is the larger of the two least times.
Protocol    random images; the programs that `train` and the experiments run; a round times each of them once,
            in turn, beginning with another one each time; medians over rounds.

Timings are only compared within a run, so an interrupted one is started again, not continued.
"""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax
from ceilings import figures
from ceilings.measurements import (
    Ceilings,
    Fit,
    Timer,
    counted_by_xla,
    fit,
    forward_timer,
    least_seconds,
    memory_timer,
    population_timer,
    product_timers,
    step_timer,
)
from costs import cost, step_cost

from cnnjax import files, plots, report
from cnnjax.cli import runner
from cnnjax.config import COMPUTE_DTYPES, HParams
from cnnjax.devices import layouts
from cnnjax.errors import ArgumentError
from cnnjax.models import ConvNet, model_named
from cnnjax.train import PART

HPARAMS = HParams(1e-3, 0.5)
BATCHES = tuple(32 * 2**i for i in range(9))
PARTS = ("forward", "and backward", "and Adam", "and dropout")
MEMORY = "x + 1"
ALONE = 32  # the batch of a network in a population


@dataclass(frozen=True)
class Scaling:
    """What the command line asks for."""

    batches: tuple[int, ...] = BATCHES
    """Images a step; 32 is always among them."""
    devices: tuple[int, ...] = ()
    """Numbers of devices; powers of two up to all there are unless given."""
    populations: tuple[int, ...] = ()
    """Numbers of networks, as multiples of the number of devices; 1, 2, 4 on a CPU and 1, 10, 100, 1000
    elsewhere unless given."""
    model: str = "keras-cnn"
    """Name of the network."""
    compute_dtype: str = "float32"
    """float32 or bfloat16."""
    chunk: int | None = None
    """Networks to vmap at a time; chosen for the backend unless given."""
    seeds: int = 9
    """Rounds: each times everything once."""
    epochs: int = 3
    """Calls of a compiled program in a timing, each of 8 steps at least."""
    out: Path | None = None
    """Where results go; results/scaling unless given."""
    quick: bool = False
    """About a minute: 3 batch sizes, 3 rounds."""

    def __call__(self) -> None:
        """Measure, print tables and what they say, and leave results.csv, summary.json and scaling.png."""
        if self.quick:
            few = replace(self, batches=(32, 256, 2048), populations=(1, 2), seeds=3, epochs=1, quick=False)
            return replace(few, out=self.out or Path("results/scaling_quick"))()
        numbers = {"batches": self.batches, "devices": self.devices, "populations": self.populations}
        for name, values in {**numbers, "seeds": (self.seeds,), "epochs": (self.epochs,)}.items():
            if any(value < 1 for value in values):
                raise ArgumentError(f"--{name} {values} must be at least 1")
        if self.compute_dtype not in COMPUTE_DTYPES:
            raise ArgumentError(
                f"--compute-dtype {self.compute_dtype} is none of {', '.join(COMPUTE_DTYPES)}"
            )
        layouts.host_devices(max(self.devices, default=layouts.cores()))
        model = model_named(self.model).clone(dtype=self.compute_dtype)
        batches = tuple(sorted({ALONE, *self.batches}))
        everything = jax.device_count()
        powers = {2**i for i in range(1, everything.bit_length())} | {everything}
        devices = sorted((set(self.devices) or powers) - {1})
        multiples = self.populations or ((1, 2, 4) if jax.default_backend() == "cpu" else (1, 10, 100, 1000))
        members = sorted({everything * multiple for multiple in multiples})
        out = self.out or Path("results/scaling")
        with files.claimed(out):
            what = f"{self.model}, {self.compute_dtype}, {everything} x {jax.devices()[0].device_kind}"
            print(f"{what}; compiling")
            timers = _timers(model, batches, devices, members, self.chunk)
            products, memory = product_timers(self.compute_dtype), memory_timer()
            bare = {name: best.timer for name, best in products.items()} | {MEMORY: memory.timer}
            seconds = _rounds(timers | bare, self.seeds, self.epochs)
            best = Ceilings(
                max(of.amount / seconds[name].min() for name, of in products.items()),
                memory.amount / seconds[MEMORY].min(),
            )
            found = Found(model, batches, devices, members, seconds, best)
            told = f"{what}, Adam, dropout 0.5, n={self.seeds} rounds"
            record = _report(found, told)
            _write(out, found, record, told, self.epochs)
            print(f"results.csv, summary.json and scaling.png in {out}")


@dataclass(frozen=True)
class Found:
    """What was measured."""

    model: ConvNet
    batches: Sequence[int]
    devices: Sequence[int]
    members: Sequence[int]
    seconds: Mapping[str, np.ndarray]  # f64[rounds] by arm
    best: Ceilings

    def median(self, arm: str) -> float:
        """Seconds a step."""
        return float(np.median(self.seconds[arm]))

    @property
    def over_batches(self) -> list[float]:
        """Median seconds a step at each batch, on one device."""
        return [self.median(_batch(batch)) for batch in self.batches]

    @property
    def divided(self) -> Sequence[int]:
        """The batches that were divided over devices."""
        return _divided(self.batches)

    @property
    def taken_apart(self) -> Sequence[int]:
        """The batches whose steps were taken apart."""
        return _taken_apart(self.batches)


def _batch(batch: int, devices: int = 1) -> str:
    return f"batch {batch}" + (f", {devices} devices" if devices > 1 else "")


def _part(batch: int, part: str) -> str:
    return _batch(batch) if part == PARTS[-1] else f"batch {batch}, {part}"


def _networks(members: int) -> str:
    return f"{members} networks"


def _divided(batches: Sequence[int]) -> Sequence[int]:
    return batches[-2:]


def _taken_apart(batches: Sequence[int]) -> Sequence[int]:
    return sorted({batches[0], batches[-2:][0]})


def _timers(
    model: ConvNet, batches: Sequence[int], devices: Sequence[int], members: Sequence[int], chunk: int | None
) -> dict[str, Timer]:
    """Compile everything; the names are the arms of results.csv."""
    one, bare = layouts.one_device(), model.clone(dropout="none")
    timers = {_batch(batch): step_timer(model, batch, one, HPARAMS) for batch in batches}
    for batch in _taken_apart(batches):
        timers[_part(batch, PARTS[0])] = forward_timer(bare, batch)
        timers[_part(batch, PARTS[1])] = step_timer(bare, batch, one, HPARAMS, _descent)
        timers[_part(batch, PARTS[2])] = step_timer(bare, batch, one, HPARAMS)
    for batch in _divided(batches):
        for count in devices:
            layout = layouts.layout(count)
            layouts.refuse_undivided(batch, layout)
            timers[_batch(batch, count)] = step_timer(model, batch, layout, HPARAMS)
    for count in members:
        timers[_networks(count)] = population_timer(model, count, ALONE, chunk, HPARAMS)
    return timers


def _descent(hparams: HParams) -> optax.GradientTransformation:
    return optax.sgd(hparams.learning_rate)


def _rounds(timers: Mapping[str, Timer], rounds: int, calls: int) -> dict[str, np.ndarray]:
    """Seconds a step, f64[rounds] by arm."""
    measure = list(timers.values())
    seconds = np.empty((len(measure), rounds))
    for number in range(rounds):
        for turn in range(len(measure)):
            arm = (number + turn) % len(measure)
            seconds[arm, number] = measure[arm](calls)
    return dict(zip(timers, seconds, strict=True))


def _report(found: Found, told: str) -> dict[str, Any]:
    """Print tables and sentences; return them for summary.json."""
    best, batches, seconds = found.best, found.batches, found.over_batches
    costs = [step_cost(found.model, batch) for batch in batches]
    grows = fit(batches, seconds)
    fractions = [least_seconds(c, best) / s for c, s in zip(costs, seconds, strict=True)]
    print(f"Time of a training step, medians: {told}")
    least = ("least ms, products", "least ms, memory", "achieved of the larger")
    report.print_table(
        ("batch", "ms a step", "µs an image", "fit, ms", *least),
        (
            (
                f"{batch:,}",
                f"{1e3 * step:.3f}",
                f"{1e6 * step / batch:.2f}",
                f"{1e3 * grows.at(batch):.3f}",
                f"{1e3 * counted.flops / best.flops:.3f}",
                f"{1e3 * counted.bytes / best.bandwidth:.3f}",
                f"{fraction:.0%}",
            )
            for batch, step, counted, fraction in zip(batches, seconds, costs, fractions, strict=True)
        ),
    )
    apart = {
        str(batch): {part: found.median(_part(batch, part)) for part in PARTS} for batch in found.taken_apart
    }
    for batch, parts in apart.items():
        steps = np.diff([0, *parts.values()]) / parts[PARTS[-1]]
        shares = ", ".join(f"{name} {share:.0%}" for name, share in zip(PARTS, steps, strict=True))
        print(f"Of a step of batch {batch}: {shares}.")
    speedups = {
        f"batch {batch}": {
            str(count): found.median(_batch(batch)) / found.median(_batch(batch, count))
            for count in found.devices
        }
        for batch in found.divided
    }
    for batch, times in speedups.items():
        for count, times_as_fast in times.items():
            print(f"{batch} divided over {count} devices: {times_as_fast:.2f} times as fast as on one.")
    alone = found.median(_batch(ALONE))
    networks = {str(count): found.median(_networks(count)) / count for count in found.members}
    for count, each in networks.items():
        print(
            f"{count} networks in one program: {1e3 * each:.3f} ms a step and network, {each / alone:.2f} of "
            "what one takes alone."
        )
    # Of a larger batch, which goes in parts, XLA counts one.
    compared = {
        str(batch): (step_cost(found.model, batch), counted_by_xla(found.model, batch, HPARAMS))
        for batch in found.taken_apart
        if batch <= PART
    }
    for batch, (ours, theirs) in compared.items():
        print(
            f"XLA counts, for batch {batch}, {theirs.flops / ours.flops:.2f} times our operations and "
            f"{theirs.bytes / ours.bytes:.2f} times our bytes."
        )
    sentences = _said(found, grows, fractions)
    print("\n".join(sentences))
    return {
        "protocol": told,
        "ceilings": best._asdict(),
        "fit": grows._asdict(),
        "achieved": dict(zip(map(str, batches), fractions, strict=True)),
        "parts": apart,
        "speed-up": speedups,
        "seconds a step and network": networks,
        "counted": {batch: ours._asdict() for batch, (ours, _) in compared.items()},
        "counted by XLA": {batch: theirs._asdict() for batch, (_, theirs) in compared.items()},
        "sentences": sentences,
    }


def _said(found: Found, grows: Fit, fractions: Sequence[float]) -> list[str]:
    """What the figures say, each sentence from its numbers."""
    batches, seconds = found.batches, np.array(found.over_batches)
    off = seconds / [grows.at(batch) for batch in batches] - 1
    worst = int(np.argmax(np.abs(off)))
    nearest = int(np.argmax(fractions))
    each = seconds / batches
    cheapest = int(np.argmin(each))
    size = cost(found.model).activation_bytes / 2**20
    equal = (
        f"they are equal at batch {grows.fixed / grows.image:,.0f}" if grows.image else "the second is none"
    )
    said = [
        f"The ceilings of one device, measured: {found.best.flops / 1e9:,.0f} GFLOP/s in products, "
        f"{found.best.bandwidth / 1e9:,.1f} GB/s of memory.",
        f"A step takes {1e3 * grows.fixed:.3f} ms and {1e6 * grows.image:.2f} µs an image: {equal}. The fit "
        f"is off by {off[worst]:+.0%} at most, at batch {batches[worst]:,}.",
        f"Nearest to the ceiling is batch {batches[nearest]:,} with {fractions[nearest]:.0%}; batch "
        f"{batches[0]:,} has {fractions[0]:.0%}, batch {batches[-1]:,} {fractions[-1]:.0%}.",
    ]
    if cheapest < len(batches) - 1:
        said.append(
            f"An image is cheapest in batches of {batches[cheapest]:,} (activations of "
            f"{size * batches[cheapest]:,.1f} MiB); in batches of {batches[-1]:,} "
            f"({size * batches[-1]:,.1f} MiB) it takes {each[-1] / each[cheapest] - 1:.0%} longer."
        )
    else:
        said.append(f"An image is cheapest in the largest batch, of {batches[-1]:,}.")
    if max(fractions) > 1:
        said.append("More than 100% means that caches saved what is counted as traffic with the memory.")
    return said


def _write(out: Path, found: Found, record: dict[str, Any], told: str, calls: int) -> None:
    rows = (
        (arm, number, calls, seconds)
        for arm, rounds in found.seconds.items()
        for number, seconds in enumerate(rounds.tolist())
    )
    files.write_csv(out / "results.csv", ("arm", "seed", "epoch", "seconds_per_step"), rows)
    files.write_json(out / "summary.json", record | files.provenance())
    costs = [step_cost(found.model, batch) for batch in found.batches]
    grows = Fit(**record["fit"])
    figure = figures.scaling(
        found.batches,
        np.array([found.seconds[_batch(batch)] for batch in found.batches]),
        {
            "fixed + image x batch": [grows.at(batch) for batch in found.batches],
            "least: products": [c.flops / found.best.flops for c in costs],
            "least: memory": [c.bytes / found.best.bandwidth for c in costs],
        },
        {
            batch: ([1, *map(int, times)], [1.0, *times.values()])
            for batch, times in record["speed-up"].items()
        },
        (found.members, [found.median(_networks(count)) / count for count in found.members]),
        found.median(_batch(ALONE)),
        title="How the time of a training step grows",
        caption=told,
    )
    files.write_bytes(out / "scaling.png", plots.png(figure))


if __name__ == "__main__":
    sys.exit(runner.run(Scaling, __doc__ or "", prog="scaling.py"))
