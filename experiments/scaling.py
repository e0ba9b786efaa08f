"""How does the time of a training step grow, and how close is it to what the machine can do?

Hypothesis: a fixed cost plus a cost per image. The fixed cost (the optimizer's pass over all parameters,
starting each operation) does not depend on the batch; the cost per image is bound by arithmetic.

Batch: 32, 64, ... 8,192 images a step on one device.

Parts, at the smallest and a larger batch: forward; and backward, with plain SGD; and Adam; and dropout.

Devices: the two largest batches divided over 1, 2, 4, ... devices.

Population: networks in one program, as experiments train them, batch 32 each, on all devices together.

Ceilings, measured in the same rounds on one device: the fastest product of square matrices, and the fastest
x + 1 over an array larger than any cache. The least time of a step is the larger of its operations and its
bytes divided by these; both are counted (costs.py), assuming that caches keep nothing, and compared with
XLA's cost analysis.

Protocol: random images; the programs that `train` and the experiments run. Each round times every program
once, starting with another one each time. Medians over rounds.

Run `python experiments/scaling.py`; it writes results.csv, summary.json and scaling.png to --out. Timings
are compared only within a run, so an interrupted run starts over.
"""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
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
from common import convnet_named, require_positive, start, time_in_rounds
from costs import cost, step_cost

from cnnjax import files, report
from cnnjax.config import HParams
from cnnjax.devices import layouts
from cnnjax.errors import ArgumentError
from cnnjax.kernels.parts import PART
from cnnjax.models import ConvNet
from cnnjax.optimizers import keras_adam
from cnnjax.runs.config import COMPUTE_DTYPES
from cnnjax.task import Task

HPARAMS = HParams(1e-3, 0.5)
QUICK = {"batches": (32, 256, 2048), "populations": (1, 2), "seeds": 3, "epochs": 1}
BATCHES = tuple(32 * 2**i for i in range(9))
PARTS = ("forward", "and backward", "and Adam", "and dropout")
MEMORY = "x + 1"
MEMBER_BATCH = 32  # of each network in a population


@dataclass(frozen=True)
class Scaling:
    """Time training steps over batch size, devices and population."""

    batches: tuple[int, ...] = BATCHES
    """Images a step; 32 is always included."""
    devices: tuple[int, ...] = ()
    """Numbers of devices; by default powers of two up to all devices."""
    populations: tuple[int, ...] = ()
    """Networks per device; by default 1, 2, 4 on a CPU and 1, 10, 100, 1000 elsewhere."""
    model: str = "keras-cnn"
    """Name of the network."""
    compute_dtype: str = "float32"
    """float32 or bfloat16."""
    chunk: int | None = None
    """Networks to vmap at a time; by default chosen for the backend."""
    seeds: int = 9
    """Rounds; each times every program once."""
    epochs: int = 3
    """Calls of a compiled program in one timing, each of at least 8 steps."""
    out: Path | None = None
    """Output directory; results/scaling by default."""
    quick: bool = False
    """Run for about a minute: 3 batch sizes, 3 rounds."""

    def __call__(self) -> None:
        """Time all programs, print tables and conclusions, and write the results."""
        out = self.out or Path("results/scaling" + "_quick" * self.quick)
        require_positive(
            batches=self.batches,
            devices=self.devices,
            populations=self.populations,
            seeds=self.seeds,
            epochs=self.epochs,
        )
        if self.compute_dtype not in COMPUTE_DTYPES:
            choices = ", ".join(COMPUTE_DTYPES)
            raise ArgumentError(f"--compute-dtype {self.compute_dtype!r} is unknown; choose from {choices}")
        layouts.host_devices(max(self.devices, default=layouts.cores()))
        model = convnet_named(self.model).clone(dtype=self.compute_dtype)
        batches = tuple(sorted({MEMBER_BATCH, *self.batches}))
        available = jax.device_count()
        powers = {2**i for i in range(1, available.bit_length())} | {available}
        devices = sorted((set(self.devices) or powers) - {1})
        multiples = self.populations or ((1, 2, 4) if jax.default_backend() == "cpu" else (1, 10, 100, 1000))
        members = sorted({available * multiple for multiple in multiples})
        with files.claimed(out):
            subject = f"{self.model}, {self.compute_dtype}, {available} x {jax.devices()[0].device_kind}"
            report.say(f"{subject}; compiling")
            timers = _timers(model, batches, devices, members, self.chunk)
            products, memory = product_timers(self.compute_dtype), memory_timer()
            timers |= {name: product.timer for name, product in products.items()} | {MEMORY: memory.timer}
            calls = [lambda _, timer=timer: timer(self.epochs) for timer in timers.values()]
            seconds = dict(zip(timers, time_in_rounds(calls, self.seeds), strict=True))
            ceilings = Ceilings(
                max(product.amount / seconds[name].min() for name, product in products.items()),
                memory.amount / seconds[MEMORY].min(),
            )
            timings = Timings(model, batches, devices, members, seconds, ceilings)
            caption = f"{subject}, Adam, dropout 0.5, n={self.seeds} rounds"
            record = _report(timings, caption)
            _write(out, timings, record, caption, self.epochs)
            report.say(f"results.csv, summary.json and scaling.png in {out}")


@dataclass(frozen=True)
class Timings:
    """All measured times and what was timed."""

    model: ConvNet
    batches: Sequence[int]
    devices: Sequence[int]
    members: Sequence[int]
    seconds: Mapping[str, np.ndarray]  # seconds a step, f64[rounds], by arm
    ceilings: Ceilings

    def median(self, arm: str) -> float:
        """Return the median seconds a step of an arm."""
        return float(np.median(self.seconds[arm]))

    @property
    def over_batches(self) -> list[float]:
        """Median seconds a step for each batch size on one device."""
        return [self.median(_batch(batch)) for batch in self.batches]


def _batch(batch: int, devices: int = 1) -> str:
    return f"batch {batch}" + (f", {devices} devices" if devices > 1 else "")


def _part(batch: int, part: str) -> str:
    return _batch(batch) if part == PARTS[-1] else f"batch {batch}, {part}"


def _networks(members: int) -> str:
    return f"{members} networks"


def _divided(batches: Sequence[int]) -> Sequence[int]:
    return batches[-2:]


def _split(batches: Sequence[int]) -> Sequence[int]:
    return sorted({batches[0], batches[-2:][0]})


def _timers(
    model: ConvNet, batches: Sequence[int], devices: Sequence[int], members: Sequence[int], chunk: int | None
) -> dict[str, Timer]:
    """Compile all programs, named as the arms of results.csv."""
    one, bare = layouts.one_device(), model.clone(dropout="none")
    timers = {_batch(batch): step_timer(Task(model, keras_adam), batch, one, HPARAMS) for batch in batches}
    for batch in _split(batches):
        timers[_part(batch, PARTS[0])] = forward_timer(bare, batch)
        timers[_part(batch, PARTS[1])] = step_timer(Task(bare, _descent), batch, one, HPARAMS)
        timers[_part(batch, PARTS[2])] = step_timer(Task(bare, keras_adam), batch, one, HPARAMS)
    for batch in _divided(batches):
        for count in devices:
            layout = layouts.layout(count)
            layouts.refuse_undivided(batch, layout)
            timers[_batch(batch, count)] = step_timer(Task(model, keras_adam), batch, layout, HPARAMS)
    for count in members:
        timers[_networks(count)] = population_timer(model, count, MEMBER_BATCH, chunk, HPARAMS)
    return timers


def _descent(hparams: HParams) -> optax.GradientTransformation:
    return optax.sgd(hparams.learning_rate)


def _report(timings: Timings, caption: str) -> dict[str, Any]:
    """Print tables and sentences; return them for summary.json."""
    ceilings, batches, seconds = timings.ceilings, timings.batches, timings.over_batches
    costs = [step_cost(timings.model, batch) for batch in batches]
    fitted = fit(batches, seconds)
    fractions = [least_seconds(c, ceilings) / s for c, s in zip(costs, seconds, strict=True)]
    report.say(f"Time of a training step, medians: {caption}")
    bounds = ("compute bound, ms", "memory bound, ms", "achieved")
    report.print_table(
        ("batch", "ms a step", "µs an image", "fitted, ms", *bounds),
        (
            (
                f"{batch:,}",
                f"{1e3 * step:.3f}",
                f"{1e6 * step / batch:.2f}",
                f"{1e3 * fitted.at(batch):.3f}",
                f"{1e3 * counted.flops / ceilings.flops:.3f}",
                f"{1e3 * counted.bytes / ceilings.bandwidth:.3f}",
                f"{fraction:.0%}",
            )
            for batch, step, counted, fraction in zip(batches, seconds, costs, fractions, strict=True)
        ),
    )
    parts_by_batch = {
        str(batch): {part: timings.median(_part(batch, part)) for part in PARTS}
        for batch in _split(timings.batches)
    }
    for batch, parts in parts_by_batch.items():
        shares = zip(PARTS, np.diff([0, *parts.values()]) / parts[PARTS[-1]], strict=True)
        listed = ", ".join(f"{name.removeprefix('and ')} {share:.0%}" for name, share in shares)
        report.say(f"Shares of a step at batch {batch}: {listed}.")
    speedups = {
        f"batch {batch}": {
            str(count): timings.median(_batch(batch)) / timings.median(_batch(batch, count))
            for count in timings.devices
        }
        for batch in _divided(timings.batches)
    }
    for batch, times in speedups.items():
        for count, speedup in times.items():
            report.say(f"{batch} on {count} devices: {speedup:.2f} times as fast as on one.")
    alone = timings.median(_batch(MEMBER_BATCH))
    networks = {str(count): timings.median(_networks(count)) / count for count in timings.members}
    for count, each in networks.items():
        report.say(
            f"{count} networks in one program: {1e3 * each:.3f} ms per step and network, "
            f"{each / alone:.2f} times that of one alone."
        )
    # Larger batches are computed in parts, of which XLA counts only one.
    compared = {
        str(batch): (step_cost(timings.model, batch), counted_by_xla(timings.model, batch, HPARAMS))
        for batch in _split(timings.batches)
        if batch <= PART
    }
    for batch, (ours, theirs) in compared.items():
        report.say(
            f"At batch {batch}, XLA counts {theirs.flops / ours.flops:.2f} times our operations and "
            f"{theirs.bytes / ours.bytes:.2f} times our bytes."
        )
    sentences = _conclusions(timings, fitted, fractions)
    for sentence in sentences:
        report.say(sentence)
    return {
        "protocol": caption,
        "ceilings": ceilings._asdict(),
        "fit": fitted._asdict(),
        "achieved": dict(zip(map(str, batches), fractions, strict=True)),
        "parts": parts_by_batch,
        "speed-up": speedups,
        "seconds a step and network": networks,
        "counted": {batch: ours._asdict() for batch, (ours, _) in compared.items()},
        "counted by XLA": {batch: theirs._asdict() for batch, (_, theirs) in compared.items()},
        "sentences": sentences,
    }


def _conclusions(timings: Timings, fitted: Fit, fractions: Sequence[float]) -> list[str]:
    """State the results in sentences; `fractions` are of the ceiling, by batch."""
    batches, seconds = timings.batches, np.array(timings.over_batches)
    error = seconds / [fitted.at(batch) for batch in batches] - 1
    worst = int(np.argmax(np.abs(error)))
    best = int(np.argmax(fractions))
    per_image = seconds / batches
    cheapest = int(np.argmin(per_image))
    mib = cost(timings.model).activation_bytes / 2**20
    equal = ""
    if min(fitted) > 0:
        equal = f"; the two are equal at batch {fitted.fixed / fitted.image:,.0f}"
    sentences = [
        f"Measured ceilings of one device: {timings.ceilings.flops / 1e9:,.0f} GFLOP/s in matrix products, "
        f"{timings.ceilings.bandwidth / 1e9:,.1f} GB/s of memory bandwidth.",
        f"A step takes {1e3 * fitted.fixed:.3f} ms plus {1e6 * fitted.image:.2f} µs per image{equal}. The "
        f"largest error of this fit is {error[worst]:+.0%}, at batch {batches[worst]:,}.",
        f"Batch {batches[best]:,} comes closest to the ceiling with {fractions[best]:.0%}; batch "
        f"{batches[0]:,} reaches {fractions[0]:.0%}, batch {batches[-1]:,} {fractions[-1]:.0%}.",
    ]
    if cheapest < len(batches) - 1:
        sentences.append(
            f"An image is cheapest at batch {batches[cheapest]:,} ({mib * batches[cheapest]:,.1f} MiB of "
            f"activations); at batch {batches[-1]:,} ({mib * batches[-1]:,.1f} MiB) it takes "
            f"{per_image[-1] / per_image[cheapest] - 1:.0%} longer."
        )
    else:
        sentences.append(f"An image is cheapest at the largest batch, {batches[-1]:,}.")
    if max(fractions) > 1:
        sentences.append("Above 100%, caches saved memory traffic that the count includes.")
    return sentences


def _write(out: Path, timings: Timings, record: dict[str, Any], caption: str, calls: int) -> None:
    rows = (
        (arm, number, calls, seconds)
        for arm, rounds in timings.seconds.items()
        for number, seconds in enumerate(rounds.tolist())
    )
    files.write_csv(out / "results.csv", ("arm", "seed", "epoch", "seconds_per_step"), rows)
    files.write_json(out / "summary.json", record | files.provenance())
    costs = [step_cost(timings.model, batch) for batch in timings.batches]
    fitted = Fit(**record["fit"])
    figure = partial(
        figures.scaling,
        timings.batches,
        np.array([timings.seconds[_batch(batch)] for batch in timings.batches]),
        {
            "fit: fixed + per image x batch": [fitted.at(batch) for batch in timings.batches],
            "lower bound: compute": [c.flops / timings.ceilings.flops for c in costs],
            "lower bound: memory": [c.bytes / timings.ceilings.bandwidth for c in costs],
        },
        {
            batch: ([1, *map(int, times)], [1.0, *times.values()])
            for batch, times in record["speed-up"].items()
        },
        (timings.members, [timings.median(_networks(count)) / count for count in timings.members]),
        timings.median(_batch(MEMBER_BATCH)),
        title="Time of a training step",
        caption=caption,
    )
    report.draw(out, {"scaling.png": figure})


if __name__ == "__main__":
    sys.exit(start(Scaling, QUICK, __doc__, "scaling.py"))
