"""How much does dropout add to a training step?

Hypothesis: at most 20%, for the first tutorial's network at batch 32 on a CPU. (Keras: 18% on an idle
machine, 38% in the tutorial's log.)

Arms: no dropout, and the four kinds of dropout at rate 0.5 after Flatten.

Pairing: each round times every arm once, starting with another arm each time, so that background load
affects all arms of a round. Round r uses the weights and keys of seed r.

Protocol: one timing is --epochs passes of 32 steps over 1,024 random images, in one call of the compiled
program that `train` also runs (a `lax.scan` of steps), after a warm-up. Adam, batch size 32.

Clocks: wall time, and processor time summed over the threads of this process, which other processes hardly
affect.

Statistics: ratio to no dropout in the same round, with median and quartiles; sign-flip p of log wall time,
with the inverted form as the primary contrast.

Run `python experiments/dropout_cost.py`; it writes results.csv, summary.json and cost.png to --out. Timings
are compared only within a run, so an interrupted run starts over.
"""

import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from common import require_positive, start, time_in_rounds

from cnnjax import files, plots
from cnnjax.batches import sequential_plan
from cnnjax.config import HParams
from cnnjax.dropout import DROPOUT
from cnnjax.keys import streams
from cnnjax.models import ConvNet
from cnnjax.optimizers import keras_adam
from cnnjax.plots.style import COLOURS, frame
from cnnjax.report import draw as write_figures
from cnnjax.report import print_table
from cnnjax.stats import summarise
from cnnjax.task import Task
from cnnjax.train import Arrays, make_training

RATE, BATCH, STEPS = 0.5, 32, 32
QUICK = {"seeds": 10, "epochs": 1}
WITHOUT = "no dropout"
CLOCKS: dict[str, Callable[[], float]] = {"wall": time.perf_counter, "processor": time.process_time}


ARMS = {WITHOUT: ConvNet(dropout="none"), **{kind: ConvNet(dropout=kind) for kind in DROPOUT}}


def random_images(key: jax.Array) -> Arrays:
    """Return random images and labels."""
    pixels, labels = jax.random.split(key)
    return Arrays(
        jax.random.bits(pixels, (STEPS * BATCH, 28, 28, 1), jnp.uint8),
        jax.random.randint(labels, (STEPS * BATCH,), 0, 10),
    )


def timer(model: ConvNet, data: Arrays, epochs: int) -> Callable[[int], tuple[float, ...]]:
    """Compile an arm; return a function from a seed to the seconds a step by each of `CLOCKS`."""
    hparams = HParams(jnp.float32(1e-3), jnp.float32(RATE))
    plan = jnp.tile(sequential_plan(STEPS * BATCH, BATCH), (epochs, 1))
    run = make_training(Task(model, keras_adam), data.images.shape[1:], len(data.labels), BATCH)
    init, train = jax.jit(run.init), jax.jit(run.epoch)

    def measure(seed: int) -> tuple[float, ...]:
        state = jax.block_until_ready(init(streams(jax.random.key(seed)), hparams))
        began = [clock() for clock in CLOCKS.values()]
        jax.block_until_ready(train(state, data, plan, hparams))
        return tuple((clock() - t) / len(plan) for clock, t in zip(CLOCKS.values(), began, strict=True))

    measure(0)
    return measure


def measure_all(rounds: int, epochs: int) -> np.ndarray:
    """Return seconds a step, float[clocks, arms, rounds]."""
    data = random_images(jax.random.key(0))
    timers = [timer(model, data, epochs) for model in ARMS.values()]
    return np.moveaxis(time_in_rounds(timers, rounds), -1, 0)


@dataclass(frozen=True)
class DropoutCost:
    """Time training steps with and without dropout."""

    seeds: int = 40
    """Rounds; each times every arm once."""
    epochs: int = 2
    """Passes of 32 steps in one timing."""
    quick: bool = False
    """Run 10 rounds of one pass."""
    out: Path = Path("results/dropout_cost")
    """Output directory."""

    def __call__(self) -> None:
        """Time all arms, print the table and write the results."""
        require_positive(seeds=self.seeds, epochs=self.epochs)
        rounds, epochs = self.seeds, self.epochs
        with files.claimed(self.out):
            seconds = measure_all(rounds, epochs)
            device = jax.devices()[0].device_kind
            protocol = (
                f"batch {BATCH}, rate {RATE:g}, {device}, n={rounds} paired rounds of {epochs * STEPS} steps"
            )
            report(self.out, seconds, protocol, epochs)


def report(out: Path, seconds: np.ndarray, protocol: str, epochs: int) -> None:
    """Print, draw and write the results of seconds a step, float[clocks, arms, rounds]."""
    names = list(ARMS)
    ratios = seconds[:, 1:] / seconds[:, :1]
    quartiles = np.percentile(ratios, (25, 50, 75), axis=-1)  # [3, clocks, arms]
    heads = (f"{clock} {head}" for clock in CLOCKS for head in ("ms a step", "ratio (quartiles)"))
    rows = []
    for i, name in enumerate(names):
        cells = []
        for clock in range(len(CLOCKS)):
            low, median, high = quartiles[:, clock, i - 1]
            ratio = f"{median:.3f} ({low:.3f} to {high:.3f})" if i else ""
            cells += [f"{1e3 * np.median(seconds[clock, i]):.3f}", ratio]
        rows.append((name, *cells))
    print(f"Cost of dropout in a training step, medians: {protocol}")
    print_table(("dropout", *heads), rows)
    columns = ("arm", "seed", "epoch", *(f"{clock}_seconds_per_step" for clock in CLOCKS))
    timings = (
        (names[arm], number, epochs, *seconds[:, arm, number].tolist())
        for arm, number in np.ndindex(seconds.shape[1:])
    )
    files.write_csv(out / "results.csv", columns, timings)
    logarithm = summarise(np.log(seconds[0]), names, higher_is_better=False, primary="inverted")
    spread = {
        clock: {
            name: dict(
                zip(("lower_quartile", "median", "upper_quartile"), quartiles[:, c, i].tolist(), strict=True)
            )
            for i, name in enumerate(names[1:])
        }
        for c, clock in enumerate(CLOCKS)
    }
    summary = {"protocol": protocol, "ratio": spread, "logarithm of wall seconds": logarithm.as_dict()}
    files.write_json(out / "summary.json", summary | files.provenance())
    caption = f"{protocol}. Dots: rounds (between 0.5 and 2.5). Black: median and quartiles."
    write_figures(out, {"cost.png": partial(draw, ratios, names[1:], caption)})
    print(f"results.csv, summary.json and cost.png in {out}")


def draw(ratios: np.ndarray, names: Sequence[str], caption: str) -> plots.Figure:
    """Draw the ratios float[clocks, arms, rounds] to no dropout, a panel per clock."""
    title = "Cost of dropout in a training step"
    figure, axes = frame(10, 4.4, title, caption, panels=len(CLOCKS))
    for axis, clock, arms in zip(axes, CLOCKS, ratios, strict=True):
        for x, ratio in enumerate(arms):
            low, median, high = np.percentile(ratio, (25, 50, 75))
            axis.plot(x + np.linspace(-0.2, 0.2, len(ratio)), ratio, ".", color=COLOURS[x], alpha=0.6)
            axis.errorbar(x, median, [[median - low], [high - median]], color="black", marker="D", capsize=6)
            axis.annotate(
                f"{median:.2f}", (x + 0.24, median), (0, 5), textcoords="offset points", fontsize=10
            )
        axis.axhline(1, color="black", linewidth=0.8)
        axis.set_xticks(range(len(names)), names)
        axis.set(title=f"{clock} time", xlim=(-0.5, len(names) - 0.3))
        # Rounds delayed by other processes would compress the axis.
        axis.set_ylim(0.5, 2.5)
    axes[0].set_ylabel("step time with dropout / without")
    return figure


if __name__ == "__main__":
    sys.exit(start(DropoutCost, QUICK, __doc__, "dropout_cost.py"))
