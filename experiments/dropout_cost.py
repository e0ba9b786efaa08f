"""What does dropout add to a training step?

Hypothesis: at most 20%, of the first tutorial's network at batch 32 on a CPU (Keras: 18% on a quiet machine,
38% in the tutorial's log).

Arms        no dropout at all, and the four kinds at rate 0.5 on the Flatten layer.
Pairs       a round times every arm once, in turn, beginning with another one each time: what slows the
            machine down slows all arms of a round. Round r has the weights and keys of seed r.
Protocol    a timing is --epochs passes of 32 steps over 1,024 random images, in one call of the program that
            `train` runs too (the steps in a `lax.scan`; compiled, and run once, before); Adam, batch 32.
Clocks      the wall's, and the processor's: seconds summed over this process's threads, which other
            processes hardly change: a ratio that can be had on a busy machine too.
Statistics  the ratio to no dropout of the same round: median and quartiles; p of the logarithm of wall
            seconds by sign flips, for the inverted form first.

Timings are only compared within a round, so an interrupted run is started again, not continued.
"""

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from inverted import dropout_figures

from cnnjax import files, plots
from cnnjax.batches import sequential_plan
from cnnjax.cli import runner
from cnnjax.config import HParams
from cnnjax.dropout import DROPOUT, Place, Rate
from cnnjax.errors import ArgumentError
from cnnjax.keys import streams
from cnnjax.models import ConvNet
from cnnjax.optimizers import adam
from cnnjax.report import print_table
from cnnjax.state import init_state
from cnnjax.stats import summarise
from cnnjax.train import Arrays, make_train_step, train_epoch

RATE, BATCH, STEPS = 0.5, 32, 32
WITHOUT = "no dropout"
CLOCKS: dict[str, Callable[[], float]] = {"wall": time.perf_counter, "processor": time.process_time}


class WithoutDropout(ConvNet):
    """The same network, whose training never draws a mask."""

    def __call__(
        self,
        images: jax.Array,
        train: bool = False,
        dropout_rate: Rate = 0.0,
        dropout_key: jax.Array | None = None,
        first_example: Place = 0,
    ) -> jax.Array:
        """As at evaluation."""
        return super().__call__(images)


ARMS: dict[str, ConvNet] = {WITHOUT: WithoutDropout(), **{kind: ConvNet(dropout=kind) for kind in DROPOUT}}


def random_images(key: jax.Array) -> Arrays:
    """Images and labels that cost as much as real ones."""
    pixels, labels = jax.random.split(key)
    return Arrays(
        jax.random.bits(pixels, (STEPS * BATCH, 28, 28, 1), jnp.uint8),
        jax.random.randint(labels, (STEPS * BATCH,), 0, 10),
    )


def timer(model: ConvNet, data: Arrays, epochs: int) -> Callable[[int], tuple[float, ...]]:
    """Compile an arm; seconds a step by each of `CLOCKS`, for the seed it is called with."""
    hparams = HParams(jnp.float32(1e-3), jnp.float32(RATE))
    plan = jnp.tile(sequential_plan(STEPS * BATCH, BATCH), (epochs, 1))
    train = jax.jit(partial(train_epoch, make_train_step(model, adam)))

    @jax.jit
    def start(seed: jax.Array) -> object:
        return init_state(model, adam, streams(jax.random.key(seed)), jnp.zeros((1, 28, 28, 1)), hparams)

    def measure(seed: int) -> tuple[float, ...]:
        state = jax.block_until_ready(start(jnp.uint32(seed)))
        began = [clock() for clock in CLOCKS.values()]
        jax.block_until_ready(train(state, data, plan, hparams))
        return tuple((clock() - t) / len(plan) for clock, t in zip(CLOCKS.values(), began, strict=True))

    measure(0)
    return measure


def measure_all(rounds: int, epochs: int) -> np.ndarray:
    """Seconds a step, float[clocks, arms, rounds]."""
    data = random_images(jax.random.key(0))
    timers = [timer(model, data, epochs) for model in ARMS.values()]
    seconds = np.empty((len(CLOCKS), len(timers), rounds))
    for number in range(rounds):
        for turn in range(len(timers)):
            arm = (number + turn) % len(timers)
            seconds[:, arm, number] = timers[arm](number)
    return seconds


@dataclass(frozen=True)
class DropoutCost:
    """What the command line asks for."""

    seeds: int = 40
    """Rounds: each times every arm once."""
    epochs: int = 2
    """Passes of 32 steps in a timing."""
    quick: bool = False
    """10 rounds of one pass."""
    out: Path = Path("results/dropout_cost")
    """Where results go."""

    def __call__(self) -> None:
        """Measure, print the table, and leave results.csv, summary.json and cost.png."""
        for name in ("seeds", "epochs"):
            if getattr(self, name) < 1:
                raise ArgumentError(f"--{name} {getattr(self, name)} must be at least 1")
        rounds, epochs = (min(self.seeds, 10), 1) if self.quick else (self.seeds, self.epochs)
        with files.claimed(self.out):
            seconds = measure_all(rounds, epochs)
            device = jax.devices()[0].device_kind
            protocol = (
                f"batch {BATCH}, rate {RATE:g}, {device}, n={rounds} paired rounds of {epochs * STEPS} steps"
            )
            report(self.out, seconds, protocol, epochs)


def report(out: Path, seconds: np.ndarray, protocol: str, epochs: int) -> None:
    """Print, draw and write what float[clocks, arms, rounds] seconds a step say."""
    names = list(ARMS)
    ratios = seconds[:, 1:] / seconds[:, :1]
    quartiles = np.percentile(ratios, (25, 50, 75), axis=-1)  # [3, clocks, arms]
    heads = (f"{clock} {head}" for clock in CLOCKS for head in ("ms a step", "ratio [quartiles]"))
    rows = []
    for i, name in enumerate(names):
        cells = []
        for clock in range(len(CLOCKS)):
            low, median, high = quartiles[:, clock, i - 1]
            ratio = f"{median:.3f} [{low:.3f}, {high:.3f}]" if i else ""
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
    figure = dropout_figures.ratios(
        {clock: dict(zip(names[1:], ratios[c], strict=True)) for c, clock in enumerate(CLOCKS)},
        "time of a step, with dropout / without",
        title="What dropout adds to a training step",
        caption=f"{protocol}. Dots: one round each, where between 0.5 and 2.5; black: median and quartiles.",
    )
    files.write_bytes(out / "cost.png", plots.png(figure))
    print(f"results.csv, summary.json and cost.png in {out}")


if __name__ == "__main__":
    sys.exit(runner.run(DropoutCost, __doc__ or "", prog="dropout_cost.py"))
