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

Protocol: random images; the programs that `train` and the experiments run. Each launch is a new process that
compiles them anew; each of its rounds times every program once, starting with another one each time. The
value of a launch is the median of its rounds; medians over launches.

Run `python experiments/scaling.py`; it writes results.csv, summary.json and scaling.png to --out. Timings
are compared only within a run, so an interrupted run starts over.
"""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import jax
import numpy as np
import optax
from ceilings import figures
from ceilings.conclusions import (
    HPARAMS,
    MEMBER_BATCH,
    PARTS,
    Timings,
    batch_arm,
    describe,
    divided,
    networks_arm,
    part_arm,
    split_batches,
)
from ceilings.measurements import (
    Ceilings,
    Fit,
    Timer,
    forward_timer,
    memory_timer,
    population_timer,
    product_timers,
    step_timer,
)
from common import convnet_named, require_positive, start
from costs import step_cost
from timing import launched, time_in_rounds

from cnnjax import files, report
from cnnjax.cli.runner import OutDirectory, shown
from cnnjax.config import HParams
from cnnjax.devices import layouts
from cnnjax.errors import ArgumentError
from cnnjax.models import ConvNet
from cnnjax.optimizers import keras_adam
from cnnjax.runs.train_config import COMPUTE_DTYPES
from cnnjax.task import Task

QUICK = {"batches": (32, 256, 2048), "populations": (1, 2), "seeds": 1, "epochs": 1}
BATCHES = tuple(32 * 2**i for i in range(9))
MEMORY = "x + 1"


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
    chunk: Annotated[int | None, shown("INT", "chosen for the backend")] = None
    """Networks to vmap at a time."""
    seeds: int = 5
    """Launches of a process that times every program."""
    rounds: int = 3
    """Rounds of a launch; each times every program once."""
    epochs: int = 3
    """Calls of a compiled program in one timing, each of at least 8 steps."""
    out: OutDirectory = None
    """Output directory; results/scaling by default."""
    quick: bool = False
    """Run for about a minute: 3 batch sizes, one launch."""

    def __call__(self) -> None:
        """Time all programs, print tables and conclusions, and write the results."""
        out = self.out or Path("results/scaling" + "_quick" * self.quick)
        require_positive(
            batches=self.batches,
            devices=self.devices,
            populations=self.populations,
            seeds=self.seeds,
            rounds=self.rounds,
            epochs=self.epochs,
        )
        if self.compute_dtype not in COMPUTE_DTYPES:
            choices = ", ".join(COMPUTE_DTYPES)
            raise ArgumentError(f"--compute-dtype {self.compute_dtype!r} is unknown; choose from {choices}")
        model = convnet_named(self.model).clone(dtype=self.compute_dtype)
        with files.claimed(out):
            report.say(
                f"launches: {self.seeds}, rounds of each: {self.rounds}; a launch compiles all programs first"
            )
            launches = list(launched(measure_all, [(self,)] * self.seeds))
            layouts.host_devices(max(self.devices, default=layouts.cores()))
            device = f"{jax.device_count()} x {jax.devices()[0].device_kind}"
            caption = (
                f"{self.model}, {self.compute_dtype}, {device}, Adam, dropout 0.5, n={self.seeds} launches"
            )
            timings = over_launches(model, launches)
            record = describe(timings, caption)
            _write(out, launches, timings, record, caption, self.epochs)
            report.say(f"results.csv, summary.json and scaling.png in {out}")


class Launched(NamedTuple):
    """What a launch measured: `Timings` without the model, of which a process cannot send every function."""

    batches: Sequence[int]
    devices: Sequence[int]
    members: Sequence[int]
    seconds: Mapping[str, np.ndarray]  # seconds a step, f64[rounds], by arm
    ceilings: Ceilings


def measure_all(given: Scaling) -> Launched:
    """Compile all programs in this process, and time them."""
    model = convnet_named(given.model).clone(dtype=given.compute_dtype)
    layouts.host_devices(max(given.devices, default=layouts.cores()))
    batches = tuple(sorted({MEMBER_BATCH, *given.batches}))
    available = jax.device_count()
    powers = {2**i for i in range(1, available.bit_length())} | {available}
    devices = sorted((set(given.devices) or powers) - {1})
    multiples = given.populations or ((1, 2, 4) if jax.default_backend() == "cpu" else (1, 10, 100, 1000))
    members = sorted({available * multiple for multiple in multiples})
    timers = _timers(model, batches, devices, members, given.chunk)
    products, memory = product_timers(given.compute_dtype), memory_timer()
    timers |= {name: product.timer for name, product in products.items()} | {MEMORY: memory.timer}
    calls = [lambda _, timer=timer: timer(given.epochs) for timer in timers.values()]
    seconds = dict(zip(timers, time_in_rounds(calls, given.rounds), strict=True))
    ceilings = Ceilings(
        max(product.amount / seconds[name].min() for name, product in products.items()),
        memory.amount / seconds[MEMORY].min(),
    )
    return Launched(batches, devices, members, seconds, ceilings)


def over_launches(model: ConvNet, launches: Sequence[Launched]) -> Timings:
    """Return the median of each launch as `seconds`, f64[launches], and the best rates of all as ceilings."""
    first = launches[0]
    seconds = {
        arm: np.array([np.median(launch.seconds[arm]) for launch in launches]) for arm in first.seconds
    }
    best = np.max([launch.ceilings for launch in launches], axis=0)
    return Timings(model, *first[:3], seconds, Ceilings(*best.tolist()))


def _timers(
    model: ConvNet, batches: Sequence[int], devices: Sequence[int], members: Sequence[int], chunk: int | None
) -> dict[str, Timer]:
    """Compile all programs, named as the arms of results.csv."""
    one, bare = layouts.one_device(), model.clone(dropout="none")
    timers = {batch_arm(batch): step_timer(Task(model, keras_adam), batch, one, HPARAMS) for batch in batches}
    for batch in split_batches(batches):
        timers[part_arm(batch, PARTS[0])] = forward_timer(bare, batch)
        timers[part_arm(batch, PARTS[1])] = step_timer(Task(bare, _descent), batch, one, HPARAMS)
        timers[part_arm(batch, PARTS[2])] = step_timer(Task(bare, keras_adam), batch, one, HPARAMS)
    for batch in divided(batches):
        for count in devices:
            layout = layouts.layout(count)
            layouts.refuse_undivided(batch, layout)
            timers[batch_arm(batch, count)] = step_timer(Task(model, keras_adam), batch, layout, HPARAMS)
    for count in members:
        timers[networks_arm(count)] = population_timer(model, count, MEMBER_BATCH, chunk, HPARAMS)
    return timers


def _descent(hparams: HParams) -> optax.GradientTransformation:
    return optax.sgd(hparams.learning_rate)


def _write(
    out: Path,
    launches: Sequence[Launched],
    timings: Timings,
    record: dict[str, Any],
    caption: str,
    calls: int,
) -> None:
    rows = (
        (arm, launch, calls, number, seconds)
        for launch, each in enumerate(launches)
        for arm, rounds in each.seconds.items()
        for number, seconds in enumerate(rounds.tolist())
    )
    files.write_csv(out / "results.csv", ("arm", "seed", "epoch", "round", "seconds_per_step"), rows)
    files.write_json(out / "summary.json", record | files.made())
    costs = [step_cost(timings.model, batch) for batch in timings.batches]
    fitted = Fit(**record["fit"])
    figure = partial(
        figures.scaling,
        timings.batches,
        np.array([timings.seconds[batch_arm(batch)] for batch in timings.batches]),
        {
            "fit: fixed + per image x batch": [fitted.at(batch) for batch in timings.batches],
            "lower bound: compute": [c.flops / timings.ceilings.flops for c in costs],
            "lower bound: memory": [c.bytes / timings.ceilings.bandwidth for c in costs],
        },
        {
            batch: ([1, *map(int, times)], [1.0, *times.values()])
            for batch, times in record["speed-up"].items()
        },
        (timings.members, [timings.median(networks_arm(count)) / count for count in timings.members]),
        timings.median(batch_arm(MEMBER_BATCH)),
        title="Time of a training step",
        caption=caption,
    )
    report.draw(out, {"scaling.png": figure})


if __name__ == "__main__":
    sys.exit(start(Scaling, QUICK, __doc__, "scaling.py"))
