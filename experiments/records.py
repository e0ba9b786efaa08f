"""How few parameters, and how little augmentation, does a very low test error on MNIST need?

Records to beat, both by a mean over seeds at the last epoch. Small: at most 10,000 parameters, with
augmentation; the best single run known has 0.50% error (8,932 parameters, best epoch on the test images).
Plain: one network without augmentation; 0.39% (max-pooling dropout, Wu and Gu 2015).

Protocol: with --validate, networks train on 50,000 images and are tested on the other 10,000, which is how
settings are chosen. Without it they train on all 60,000 and are tested on the test images; the error after
each epoch is drawn, and chooses nothing. Adam with decoupled weight decay, one cycle of the learning rate,
batch 128.

Statistics: the mean error over seeds with its 95% t interval. A record is beaten if the interval ends below
it.

Run `python experiments/records.py --record small`; it writes results.csv, summary.json, plan.json and
error.png to --out; interrupted, it resumes. On a CPU, 10 seeds take hours; on a GPU, minutes.
"""

import sys
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Literal, NamedTuple

import flax.linen as nn
import jax
import numpy as np
from common import hypothesis, start

from cnnjax import experiment, files, report
from cnnjax.api.ablation import run, settings
from cnnjax.cli.flags import OptimizerFlags
from cnnjax.cli.runner import OutDirectory
from cnnjax.data import split
from cnnjax.data.augmentation import chain, rotation, shift
from cnnjax.errors import ArgumentError
from cnnjax.experiment import Arm
from cnnjax.kernels.layers import Dropout
from cnnjax.plots.arms import metric_bands
from cnnjax.stats.contrasts import plain
from cnnjax.stats.intervals import FEWEST, t_interval
from cnnjax.stats.sentences import REHEARSAL
from cnnjax.task import Augment

QUICK = {"seeds": 2, "epochs": 1, "train_size": 2_000}


class Blocks(nn.Module):
    """Pairs of 3 x 3 convolutions with BatchNorm, a pooling after all but the last, a global average.

    Attributes:
        widths: channels of the two convolutions of each pair.
        classes: number of logits.
    """

    widths: tuple[tuple[int, int], ...]
    classes: int = 10

    @nn.compact
    def __call__(self, x: jax.Array, train: bool, dropout_rate: jax.Array) -> jax.Array:
        """Return the logits of images f[n, h, w, c]."""
        for block, pair in enumerate(self.widths):
            if block:
                x = nn.max_pool(x, (2, 2), (2, 2))
                x = Dropout()(x, dropout_rate, deterministic=not train)
            for width in pair:
                x = nn.Conv(width, (3, 3), use_bias=False)(x)
                x = nn.relu(nn.BatchNorm(use_running_average=not train, momentum=0.9)(x))
        x = Dropout()(x.mean((1, 2)), dropout_rate, deterministic=not train)
        return nn.Dense(self.classes)(x)


class Record(NamedTuple):
    """A network, and the test error in percent that its mean has to beat."""

    network: Blocks
    error: float
    rate: float  # of dropout
    augment: Augment | None = None
    parameters: int | None = None  # at most


MOVED = chain(rotation(10), shift(2))
RECORDS = {
    "small": Record(Blocks(((8, 12), (16, 16), (16, 16))), 0.50, 0.0, MOVED, 10_000),
    "plain": Record(Blocks(((32, 32), (64, 64), (128, 128))), 0.39, 0.3),
}


@dataclass(frozen=True)
class Records(OptimizerFlags):
    """Train a network with many seeds, and compare its mean test error with a record."""

    record: Literal["small", "plain"] = "small"
    """small: 10,000 parameters with augmentation; plain: any network without."""
    validate: bool = False
    """Train on 50,000 images and test on the other 10,000: how settings are chosen."""
    seeds: int = 10
    epochs: int = 60
    batch_size: int = 128
    optimizer: str = "adamw"
    learning_rate: float = 4e-3
    schedule: str = "one-cycle"
    weight_decay: float = 0.05
    out: OutDirectory = None
    """Output directory; results/records/RECORD by default."""
    quick: bool = False
    """Run for about a minute: 2 seeds, 1 epoch of 2,000 images."""

    def __call__(self) -> None:
        """Train the networks, print the sentence and draw the errors."""
        name = self.record + "_validation" * self.validate + "_quick" * self.quick
        out, record = self.out or Path("results/records") / name, RECORDS[self.record]
        if self.seeds < 2:
            raise ArgumentError(f"--seeds {self.seeds} gives no spread; use at least 2")
        experiment.use_every_core()
        protocol = replace(self.protocol(self.optimizer, self.schedule), train_split="all")
        splits = experiment.prepare(protocol, self.data_dir)
        if self.validate:
            train, val = split(splits.train, 5 / 6)
            splits = replace(splits, train=train, val=val, test=val)
        network = record.network.clone(classes=splits.train.classes)
        arms = [Arm(self.record, network, self.hparams(record.rate), augment=record.augment)]
        plan = self.plan(hypothesis(__doc__), (), metric="test_accuracy")
        results = run(arms, protocol, splits, out, **self.options(plan))
        error = 100 - 100 * results.final("test_accuracy")[0]
        mean, half, n = (float(value) for value in t_interval(error))
        images = "validation" if self.validate else "test"
        rehearsal = self.quick or n < FEWEST
        below = "below" if mean + half < record.error else "not shown to be below"
        said = (
            f"Mean {images} error {mean:.3f}% (95% interval {mean - half:.3f} to {mean + half:.3f}), {below} "
        )
        said = results.with_remarks(f"{REHEARSAL}." if rehearsal else f"{said}{record.error:.2f}%.")
        about = f"{REHEARSAL}. " * rehearsal + f"{self.record}, {settings(arms, protocol, splits)}"
        measured = plain({"record": record.error, "mean": mean, "half": half, "n": n})
        evidence = results.evidence.as_dict() if results.evidence else {}
        entry = {
            "protocol": about,
            "rehearsal": rehearsal,
            **measured,
            "answer": said,
            **evidence,
            **files.made(),
        }
        files.write_json(out / "summary.json", entry)
        report.say(about)
        report.say(said)
        epochs, curves = np.arange(1, self.epochs + 1), 100 - 100 * results.values["val_accuracy"]
        bands = partial(metric_bands, epochs, curves, [self.record], f"{images} error, %", caption=about)
        report.draw(out, {"error.png": bands})


if __name__ == "__main__":
    sys.exit(start(Records, QUICK, __doc__, "records.py"))
