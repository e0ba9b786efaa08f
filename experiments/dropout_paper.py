"""Does the MNIST section of the dropout paper hold, and how sure are we?

The tables and figures of Srivastava et al. (2014) about fully connected networks on MNIST, with paired
seeds where the paper has one number. Hypotheses: the paper's, one a table or figure (paper/items.py).

Networks: fully connected; rectified linear units unless an arm says logistic; 20% of the inputs and 50% of
the hidden units dropped; max-norm projection after every update. All arms of a seed share batches, and
initial weights and masks where shapes agree.

Protocol: batch 100, 60,000 training images, gradient descent with momentum 0.5 rising to 0.95. The paper
takes up to a million updates; here --epochs decides (600 updates each), and the learning rate falls
linearly to 0 in that time. --item choice compares learning rates and bounds on norms on 10,000 validation
images. The last update counts. The test error after each epoch is drawn, and chooses nothing.

Statistics: a published error agrees if it lies in the 95% prediction interval of one more run of ours. Arms
differ if the exact sign-flip test says so: the primary arm first; the others, Holm-corrected, count only if
it is significant. Differences below 0.1 points (ten test images) do not matter.

Run `python experiments/dropout_paper.py --item table10`; without --item, a CPU runs what fits into an hour.
It writes results.csv, plan.json and figures for each item, and summary.json, to --out; interrupted, it
resumes.
"""

import sys
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Annotated

import jax
from common import start
from paper.analysis import ANALYSES, Setting
from paper.items import ITEMS, MARGIN, TABLE10, operations, rehearsed, weights
from paper.training import momentum_sgd
from timing import milliseconds_per_step

from cnnjax import experiment, files, report
from cnnjax.cli.flags import Flags
from cnnjax.cli.runner import OutDirectory, shown
from cnnjax.data import subset
from cnnjax.errors import ArgumentError
from cnnjax.experiment import Splits
from cnnjax.files.misspelt import choose
from cnnjax.stats.intervals import FEWEST
from cnnjax.train import to_device

QUICK = {"seeds": 2, "epochs": 1, "train_size": 2_000}
HOUR = 3600.0
ACCELERATOR = 1e13  # operations a second; an H200 reached 1.3e13 with Table 10's network and 10 seeds
ALL = "all that fit into an hour on a CPU; all on an accelerator"


@dataclass(frozen=True)
class DropoutPaper(Flags):
    """Train the networks of the paper's tables and figures, and compare their errors with the published."""

    item: Annotated[str, shown("STR", ALL)] = ""
    """table10, figure11, figure10, table9, figure9 or table2; or choice, which compares learning rates."""
    seeds: int = 10
    """Paired seeds: nine is the least that can tell the arms of figure 9 apart."""
    epochs: int = 10
    """Passes over the training images: 600 updates each; 1667 are the paper's million."""
    batch_size: int = 100
    """Images per step."""
    out: OutDirectory = None
    """Output directory; results/dropout_paper by default."""
    quick: bool = False
    """Rehearse every item in about two minutes: 2 seeds, networks of 32 hidden units, 20 updates."""

    def __call__(self) -> None:
        """Train the networks of the items, print their tables and write the figures."""
        out = self.out or Path("results/dropout_paper" + "_quick" * self.quick)
        if self.item and self.item not in ITEMS:
            raise ArgumentError(f"--item {self.item} is unknown{choose(self.item, ITEMS)}")
        if self.seeds < 2:
            raise ArgumentError(f"--seeds {self.seeds} gives no spread; use at least 2")
        experiment.use_every_core()
        protocol = replace(self.protocol(), train_split="all")
        splits = experiment.prepare(protocol, self.data_dir)
        plan = partial(self.plan, margin=MARGIN, metric="test_accuracy")
        options = {name: value for name, value in self.options(None).items() if name != "plan"}
        setting = Setting(protocol, splits, plan, options, self.quick or self.seeds < FEWEST)
        with files.claimed(out):
            record = files.read_json(out / "summary.json") or {}
            for name in [self.item] if self.item else self.fitting(splits):
                item = rehearsed(ITEMS[name]) if self.quick else ITEMS[name]
                record[name], figures = ANALYSES[name](setting, item, out / name)
                files.write_json(out / "summary.json", record)
                report.draw(out / name, figures)
        print(f"tables, summary and figures in {out}")

    def fitting(self, splits: Splits) -> list[str]:
        """Return the items that fit into an hour on a CPU; say what the others would take, and where."""
        names = [name for name in ITEMS if name != "choice"]
        if self.quick or jax.default_backend() != "cpu":
            return names
        network, hparams = TABLE10.arms["Bernoulli"]
        measured = to_device(subset(splits.train, 10 * self.batch_size))
        options = {"batch_size": self.batch_size, "steps": 10, "rounds": 3}
        (step,) = milliseconds_per_step([(network, hparams)], momentum_sgd, measured, **options)
        rate = 6e3 * weights(network) * self.batch_size / step * jax.device_count()
        print(
            f"A step of Table 10's network takes {step:.1f} ms on one core: {rate / 1e9:.0f} GFLOP/s in all."
        )
        updates, chosen, left = self.epochs * len(splits.train.labels) // self.batch_size, [], HOUR
        for name in names:
            count = self.seeds * operations(ITEMS[name], updates, self.batch_size)
            here = f"{name}: {count / rate / 60:.0f} min"
            if not chosen or count / rate <= left:
                chosen.append(name)
                left -= count / rate
                print(here)
            else:
                there = f"about {count / ACCELERATOR / 60:.0f} min on a GPU of {ACCELERATOR / 1e12:g} TFLOP/s"
                print(f"{here}; left out, --item {name} runs it: {there}")
        return chosen


if __name__ == "__main__":
    sys.exit(start(DropoutPaper, QUICK, __doc__, "dropout_paper.py"))
