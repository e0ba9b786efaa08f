"""Are these the tutorials' networks? Train both many times and compare with the published logs.

Question: could the published run have been one of ours? It could if it lies in the 95% prediction interval
of one more run. One in twenty values lies outside by chance, and the six values of one run stand or fall
together. The published runs were trained and validated on other images: the intervals of accuracies count
that (about 0.15 points), those of losses do not, since the spread of a loss over images is not stored.

Networks: the first tutorial's without dropout and with rate 0.5 (48,000 training and 12,000 validation
images, Adam 1e-3, 20 epochs); the second tutorial's, for which no accuracy was published (all 60,000 images,
pixels from 0 to 255, RMSprop 1e-3, 10 epochs). Batch size 32.

Published: one Keras run each, of June 2020 (cnnjax/data/published_runs).

Time: a training step on one core of this machine, the networks taking turns. Keras's time is from another
machine and covers the whole epoch.

Run `python experiments/reproduce_tutorials.py`; it writes results.csv, summary.json and a figure for each
network to --out, and continues an interrupted run.
"""

import math
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from common import hypothesis, start
from costs import milliseconds_per_step
from figures import Panel, published_over_ours
from scipy import stats

from cnnjax import experiment, files, report
from cnnjax.api.ablation import run
from cnnjax.cli.flags import Flags
from cnnjax.config import HParams
from cnnjax.data.published import published_history
from cnnjax.devices.processes import leads
from cnnjax.errors import ArgumentError
from cnnjax.experiment import Arm
from cnnjax.experiment.results import Results
from cnnjax.models import MODELS
from cnnjax.optimizers import OPTIMIZERS
from cnnjax.plots import Figure
from cnnjax.shapes import Float, Floats
from cnnjax.stats import REHEARSAL
from cnnjax.stats.intervals import FEWEST
from cnnjax.stats.sentences import plural
from cnnjax.train import to_device

RATES = (0.0, 0.5)
QUICK = {"seeds": 2, "epochs": 2, "second_epochs": 2, "train_size": 6_000}
LENET = MODELS["lenet-swish"].clone(pixel_scale=255.0, dropout="none")
CURVES = {"loss": "training loss", "val_loss": "validation loss", "val_accuracy": "validation accuracy"}


@dataclass(frozen=True)
class ReproduceTutorials(Flags):
    """Train the networks of both tutorials and compare them with the published runs."""

    seeds: int = 6
    """Runs of every network, at least 2."""
    epochs: int = 20
    """Epochs of the first tutorial's networks."""
    second_epochs: int = 10
    """Epochs of the second tutorial's network."""
    reuse: Path | None = None
    """Directory of a dropout_ablation.py run that has these networks: they are reused, and missing ones are
    trained and added there."""
    out: Path | None = None
    """Output directory; results/reproduce_tutorials by default."""
    quick: bool = False
    """Run for about a minute: 2 seeds, 2 epochs of 6,000 images."""

    def __call__(self) -> None:
        """Train all networks, print the tables and write the figures."""
        out = self.out or Path("results/reproduce_tutorials" + "_quick" * self.quick)
        if self.seeds < 2:
            raise ArgumentError(f"--seeds {self.seeds} must be at least 2: one run has no spread")
        experiment.use_every_core()
        if self.reuse and self.reuse.resolve() == out.resolve():
            raise ArgumentError(
                f"--reuse {self.reuse} is also --out, whose results.csv it would replace; give another --out"
            )
        # The names are those of dropout_ablation.py, so that --reuse finds its members.
        first = [Arm(f"rate {rate:g}", MODELS["keras-cnn"], HParams(1e-3, rate)) for rate in RATES]
        second = [Arm("lenet-swish", LENET, HParams(1e-3, 0.0))]
        adam = self.protocol()
        rmsprop = replace(self.protocol("rmsprop"), epochs=self.second_epochs, train_split="all")
        with files.claimed(out):
            record: dict[str, Any] = {}
            figures: dict[str, Callable[[], Figure]] = {}
            merged: list[str] = []
            for arms, protocol, directory in (
                (first, adam, self.reuse or out / "keras-cnn"),
                (second, rmsprop, out / "lenet-swish"),
            ):
                splits = experiment.prepare(protocol, self.data_dir, report.say)
                # A directory that is reused has a plan of its own.
                plan = None if directory == self.reuse else self.plan(hypothesis(__doc__), ())
                results = run(arms, protocol, splits, directory, **self.options(plan))
                milliseconds = milliseconds_per_step(
                    [(arm.model, arm.hparams) for arm in arms],
                    OPTIMIZERS[protocol.optimizer],
                    to_device(splits.train),
                    batch_size=self.batch_size,
                )
                for arm, step in zip(arms, milliseconds, strict=True):
                    caption = (
                        f"{arm.name}: {len(splits.train.labels):,} training images of {self.dataset}, "
                        f"{len(splits.val.labels):,} {'test' if arms is second else 'validation'} images, "
                        f"batch {self.batch_size}, {protocol.optimizer} 0.001, "
                        f"{plural(protocol.epochs, 'epoch')}"
                    )
                    images = len(splits.train.labels), len(splits.val.labels)
                    entry, figure = self._report(results, arm, caption, 1000 * step / self.batch_size, images)
                    record[arm.name], figures = entry, figures | figure
                record[arms[0].name] |= report.print_confusions(results.predictions, splits.test)
                if leads():
                    rows = (directory / "results.csv").read_text().splitlines(keepends=True)
                    merged += rows[len(merged) > 0 :]
            files.write_bytes(out / "results.csv", "".join(merged).encode())
            files.write_json(out / "summary.json", record)
            report.draw(out, figures)
            if (self.epochs, self.second_epochs, self.batch_size, self.train_size) != (20, 10, 32, None):
                report.say("This is not the published protocol, which may explain differences.")
            report.say(f"table, summary and figures in {out}")

    def _report(
        self, results: Results, arm: Arm, caption: str, microseconds: float, images: tuple[int, int]
    ) -> tuple[dict[str, Any], dict[str, Callable[[], Figure]]]:
        """Print one network beside its published run; return its entry of summary.json and its figure."""
        index = results.arms.index(arm.name)
        ours = {
            name: results.values[name][index] for name in ("loss", "accuracy", "val_loss", "val_accuracy")
        }
        finite = np.isfinite(np.stack(list(ours.values()))).all(axis=(0, 2))
        ours = {metric: values[finite] for metric, values in ours.items()}
        diverged = np.sum(~finite)
        caption += f", {np.sum(finite)} runs" + (f" ({diverged} diverged)" if diverged else "")
        rehearsal = self.quick or self.seeds < FEWEST
        caption = f"{REHEARSAL}. {caption}" if rehearsal else caption
        report.say(caption)
        if np.sum(finite) < 2:
            report.say("Fewer than two runs are finite, so there is no spread to compare with.")
            return {"protocol": caption, "rehearsal": rehearsal}, {}
        network = "lenet-swish" if arm.model is LENET else "keras-cnn"
        published = published_history(network, self.dataset, float(arm.hparams.dropout_rate))
        if published is not None:
            published = None if len(published) < results.epochs else published[: results.epochs]
        comparisons = compare(ours, published, images)
        _print_table(comparisons)
        time = f"{microseconds:.0f} µs per training image on one core"
        if published is not None:
            theirs = float(np.median([row["microseconds_per_sample"] for row in published]))
            time += f"; {theirs:.0f} µs published"
            if not rehearsal:
                inside = sum(c.within is True for c in comparisons)
                report.say(
                    f"{inside} of {len(comparisons)} published values, of one run, lie within our interval"
                )
        report.say(time)
        panels = {
            label: Panel(
                ours[metric],
                None if published is None else np.array([row[metric] for row in published]),
                *prediction_interval(ours[metric], _images(label, images)),
            )
            for metric, label in CURVES.items()
        }
        title = "Our runs; none was published" if published is None else "The published run and ours"
        figure = partial(published_over_ours, panels, title=title, caption=caption)
        entry = {
            "protocol": caption,
            "rehearsal": rehearsal,
            "microseconds_per_image": microseconds,
            **results.provenance,
            **{c.measure: c.as_dict() for c in comparisons},
        }
        return entry, {f"{arm.name.replace(' ', '-')}.png": figure}


def prediction_interval(
    values: Float[np.ndarray, "runs ..."], images: int | None = None
) -> tuple[Floats, Floats]:
    """Return the 95% prediction interval (low, high) for one more run; NaN below four values.

    It is mean -+ t(0.975, n - 1) sqrt(sd^2 (1 + 1/n) + v), clipped to what is possible. For normal values and
    v = 0 it contains the next one with probability 0.95 (Hahn and Meeker 1991, chapter 4).

    Args:
        values: of our runs.
        images: for accuracies, the number of images that each is a mean over. The other run was measured on
            as many other images of the same kind, hence v = 2 mean (1 - mean) / images: the binomial variance
            of our images, which all our runs share, and of theirs.
    """
    n = len(values)
    mean = values.mean(axis=0)
    other = 0.0 if images is None else 2 * mean * (1 - mean) / images
    scale = stats.t.ppf(0.975, n - 1) if n >= FEWEST else math.nan
    half = scale * np.sqrt(values.var(axis=0, ddof=1) * (1 + 1 / n) + other)
    return np.maximum(mean - half, 0), np.minimum(mean + half, math.inf if images is None else 1.0)


class Comparison(NamedTuple):
    """A published value and ours; `low` to `high` is their 95% prediction interval."""

    measure: str
    published: float | None
    ours: Float[np.ndarray, "seeds"]
    low: float
    high: float

    @property
    def within(self) -> bool | None:
        """Whether the published value lies in the interval; None if there is no value or no interval."""
        if self.published is None or math.isnan(self.low):
            return None
        return bool(self.low <= self.published <= self.high)

    def as_dict(self) -> dict[str, Any]:
        """Return the entry of summary.json."""
        return {
            "published": self.published,
            "n": len(self.ours),
            "mean": float(self.ours.mean()),
            "sd": float(self.ours.std(ddof=1)),
            "low": None if math.isnan(self.low) else self.low,
            "high": None if math.isnan(self.high) else self.high,
            "within": self.within,
        }


def compare(
    ours: Mapping[str, Float[np.ndarray, "seeds epochs"]],
    published: Sequence[Mapping[str, float]] | None,
    images: tuple[int, int],
) -> list[Comparison]:
    """Compare final accuracy and loss, the best validation loss and its (first) epoch.

    Args:
        ours: loss, accuracy, val_loss and val_accuracy, finite, of two seeds or more.
        published: a row with these metrics for each epoch.
        images: numbers of training and of validation images.
    """
    log = None if published is None else {key: np.array([row[key] for row in published]) for key in ours}
    measures = {
        "final training accuracy": lambda v: v["accuracy"][..., -1],
        "final training loss": lambda v: v["loss"][..., -1],
        "final validation accuracy": lambda v: v["val_accuracy"][..., -1],
        "final validation loss": lambda v: v["val_loss"][..., -1],
        "best validation loss": lambda v: v["val_loss"].min(axis=-1),
        "epoch of the best": lambda v: v["val_loss"].argmin(axis=-1) + 1.0,
    }
    comparisons = []
    for name, measure in measures.items():
        values = measure(ours)
        low, high = prediction_interval(values, _images(name, images))
        theirs = None if log is None else float(measure(log))
        comparisons.append(Comparison(name, theirs, values, float(low), float(high)))
    return comparisons


def _images(measure: str, images: tuple[int, int]) -> int | None:
    """Return over how many training or validation images a measure is a mean, if it is an accuracy."""
    return images["val" in measure] if "accuracy" in measure else None


def _print_table(comparisons: Sequence[Comparison]) -> None:
    verdict = {True: "yes", False: "NO", None: "-"}
    rows = []
    for c in comparisons:
        digits = 1 if c.measure.startswith("epoch") else 4
        published = "-" if c.published is None else f"{c.published:g}"
        interval = "too few runs" if math.isnan(c.low) else f"{c.low:.{digits}f} to {c.high:.{digits}f}"
        rows.append((c.measure, published, report.spread(c.ours, digits), interval, verdict[c.within]))
    report.print_table(("measure", "published", "ours", "95% prediction interval", "within"), rows)


if __name__ == "__main__":
    sys.exit(start(ReproduceTutorials, QUICK, __doc__, "reproduce_tutorials.py"))
