"""How much does dropout add to a training step?

Hypothesis: at most 20%, for the first tutorial's network at batch 32 on a CPU. (Keras: 18% on an idle
machine, 38% in the tutorial's log.)

Arms: no dropout, and the four kinds of dropout at rate 0.5 after Flatten.

Replicates: launches, each a new process that compiles all arms anew.

Pairing: each round times every arm once, starting with another arm each time, so that background load
affects all arms of a round. Round r uses the weights and keys of seed r. The ratio of a launch is the median
over its rounds.

Protocol: one timing is --epochs passes of 32 steps over 1,024 random images, in one call of the compiled
program that `train` also runs (a `lax.scan` of steps), after a warm-up. Adam, batch size 32.

Clocks: wall time, and processor time summed over the threads of this process, which other processes hardly
affect.

Statistics: geometric mean over launches of the ratio to no dropout, with a t interval of its logarithm;
sign-flip p of the logarithm of wall time, with the inverted form as the primary contrast.

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
from common import require_positive, start
from timing import launched, time_in_rounds

from cnnjax import files, plots
from cnnjax.batches import sequential_plan
from cnnjax.config import HParams
from cnnjax.dropout import DROPOUT
from cnnjax.keys import streams
from cnnjax.models import ConvNet
from cnnjax.optimizers import keras_adam
from cnnjax.plots.style import COLOURS, HALO, frame
from cnnjax.report import draw as write_figures
from cnnjax.report import print_table, say
from cnnjax.stats import REHEARSAL, summarise
from cnnjax.stats.contrasts import plain
from cnnjax.stats.intervals import FEWEST, t_interval
from cnnjax.task import Task
from cnnjax.train import Arrays, make_training

RATE, BATCH, STEPS = 0.5, 32, 32
QUICK = {"seeds": 2, "rounds": 4, "epochs": 1}
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
    """Return seconds a step, float[arms, rounds, clocks], of this process."""
    data = random_images(jax.random.key(0))
    timers = [timer(model, data, epochs) for model in ARMS.values()]
    return time_in_rounds(timers, rounds)


@dataclass(frozen=True)
class DropoutCost:
    """Time training steps with and without dropout."""

    seeds: int = 8
    """Launches of a process that times every arm."""
    rounds: int = 10
    """Rounds of a launch; each times every arm once."""
    epochs: int = 2
    """Passes of 32 steps in one timing."""
    quick: bool = False
    """Run for about a minute: 2 launches of 4 rounds of one pass."""
    out: Path = Path("results/dropout_cost")
    """Output directory."""

    def __call__(self) -> None:
        """Time all arms, print the table and write the results."""
        require_positive(seeds=self.seeds, rounds=self.rounds, epochs=self.epochs)
        with files.claimed(self.out):
            seconds = np.stack(list(launched(measure_all, [(self.rounds, self.epochs)] * self.seeds)))
            device, steps = jax.devices()[0].device_kind, self.epochs * STEPS
            protocol = (
                f"batch {BATCH}, rate {RATE:g}, {device}, n={self.seeds} launches of {self.rounds} paired "
                f"rounds of {steps} steps"
            )
            rehearsal = self.quick or self.seeds < FEWEST
            report(self.out, seconds, f"{REHEARSAL}. " * rehearsal + protocol, self.epochs)


def report(out: Path, seconds: np.ndarray, protocol: str, epochs: int) -> None:
    """Print, draw and write the results of seconds a step, float[launches, arms, rounds, clocks]."""
    names = list(ARMS)
    # [clocks, arms, launches]: within a launch, the median over rounds.
    ratios = np.moveaxis(np.median(seconds[:, 1:] / seconds[:, :1], axis=2), (0, 1, 2), (2, 1, 0))
    milliseconds = 1e3 * np.median(seconds, axis=(0, 2))  # [arms, clocks]
    mean, half, _ = t_interval(np.log(ratios))
    middle, low, high = np.exp([mean, mean - half, mean + half])  # [clocks, arms]
    heads = (f"{clock} {head}" for clock in CLOCKS for head in ("ms a step", "ratio [95% t]"))
    rows = []
    for i, name in enumerate(names):
        cells = []
        for clock in range(len(CLOCKS)):
            ends = f"{low[clock, i - 1]:.3f}, {high[clock, i - 1]:.3f}"
            interval = f" [{ends}]" if np.isfinite(low[clock, i - 1]) else ""
            cells += [f"{milliseconds[i, clock]:.3f}", f"{middle[clock, i - 1]:.3f}{interval}" if i else ""]
        rows.append((name, *cells))
    say(f"Cost of dropout in a training step: {protocol}")
    print_table(("dropout", *heads), rows)
    columns = ("arm", "seed", "epoch", "round", *(f"{clock}_seconds_per_step" for clock in CLOCKS))
    timings = (
        (names[arm], launch, epochs, number, *seconds[launch, arm, number].tolist())
        for launch, arm, number in np.ndindex(seconds.shape[:3])
    )
    files.write_csv(out / "results.csv", columns, timings)
    logarithms = np.concatenate([np.zeros_like(ratios[0, :1]), np.log(ratios[0])])
    compared = summarise(logarithms, names, higher_is_better=False, primary="inverted")
    shown = {
        clock: {
            name: plain({"mean": middle[c, i].item(), "low": low[c, i].item(), "high": high[c, i].item()})
            for i, name in enumerate(names[1:])
        }
        for c, clock in enumerate(CLOCKS)
    }
    summary = {"protocol": protocol, "rehearsal": protocol.startswith(REHEARSAL), "ratio": shown}
    summary["logarithm of wall seconds"] = compared.as_dict()
    files.write_json(out / "summary.json", summary | files.made())
    caption = f"{protocol}. Dots: launches. Black: geometric mean and 95% t interval."
    write_figures(out, {"cost.png": partial(draw, ratios, (middle, low, high), names[1:], caption)})
    say(f"results.csv, summary.json and cost.png in {out}")


def draw(
    ratios: np.ndarray, summary: tuple[np.ndarray, ...], names: Sequence[str], caption: str
) -> plots.Figure:
    """Draw the ratios float[clocks, arms, launches] to no dropout, a panel per clock.

    `summary`: mean and ends of the interval, float[clocks, arms] each; NaN where there is no interval.
    """
    title = "Cost of dropout in a training step"
    figure, axes = frame(6.8, 3.8, title, caption, panels=len(CLOCKS))
    for axis, clock, arms, *bounds in zip(axes, CLOCKS, ratios, *summary, strict=True):
        for x, (ratio, middle, low, high) in enumerate(zip(arms, *bounds, strict=True)):
            axis.plot(x + np.linspace(-0.2, 0.2, len(ratio)), ratio, ".", color=COLOURS[x], alpha=0.6)
            ends = None if np.isnan(low) else [[middle - low], [high - middle]]
            axis.errorbar(x, middle, ends, color="black", marker="D", capsize=6)
            look = {"textcoords": "offset points", "fontsize": 9, "path_effects": HALO}
            axis.annotate(f"{middle:.2f}", (x + 0.2, middle), (0, 5), **look)
        axis.axhline(1, color="black", linewidth=0.8)
        axis.set_xticks(range(len(names)), names)
        axis.set(title=f"{clock} time", xlim=(-0.5, len(names) - 0.3))
    axes[0].set_ylabel("step time, times that without dropout")
    return figure


if __name__ == "__main__":
    sys.exit(start(DropoutCost, QUICK, __doc__, "dropout_cost.py"))
