"""Are these the tutorials' networks? Train both many times and compare with the published logs.

Question: could the published run have been one of ours? It could if it lies in the 95% prediction interval
of one more run. One in twenty values lies outside by chance, and the six values of one run stand or fall
together. The published runs were trained and validated on other images: the intervals of accuracies count
that (about 0.15 points), those of losses do not, since the spread of a loss over images is not stored.

So one in twenty is true of accuracies alone: losses, and the epoch of the best one, lie outside more often.

Networks: the first tutorial's without dropout and with rate 0.5 (48,000 training and 12,000 validation
images, Adam 1e-3, 20 epochs); the second tutorial's, for which no accuracy was published (all 60,000 images,
pixels from 0 to 255, RMSprop 1e-3, 10 epochs). Batch size 32.

Published: one Keras run each, of June 2020 (cnnjax/data/published_runs).

Time: a training step on one core of this machine, the networks taking turns, in five launches of a process;
the median of the launches. Keras's time is from another
machine and covers the whole epoch.

Run `python experiments/reproduce_tutorials.py`; it writes results.csv, summary.json and a figure for each
network to --out, and continues an interrupted run.
"""

import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from common import hypothesis, start
from figures import Panel, published_over_ours
from published import Comparison, compare, images_of, prediction_interval
from timing import LAUNCHES, launch_range, milliseconds_by_launch

from cnnjax import experiment, files, report
from cnnjax.api.ablation import run
from cnnjax.cli.flags import Flags
from cnnjax.cli.runner import OutDirectory
from cnnjax.config import HParams
from cnnjax.data.published import published_history
from cnnjax.devices.processes import leads
from cnnjax.errors import ArgumentError
from cnnjax.experiment import Arm
from cnnjax.experiment.results import Results
from cnnjax.models import MODELS
from cnnjax.optimizers import OPTIMIZERS
from cnnjax.plots import Figure
from cnnjax.stats import REHEARSAL
from cnnjax.stats.intervals import FEWEST
from cnnjax.stats.sentences import plural

RATES = (0.0, 0.5)
QUICK = {"seeds": 2, "epochs": 2, "second_epochs": 2, "train_size": 6_000}
LENET = MODELS["lenet-swish"].clone(pixel_scale=255.0, dropout="none")
CURVES = {"loss": "training loss", "val_loss": "validation loss", "val_accuracy": "validation accuracy"}


def first() -> list[Arm]:
    """Return the first tutorial's arms; their names let --reuse find those of dropout_ablation.py."""
    return [Arm(f"rate {rate:g}", MODELS["keras-cnn"], HParams(1e-3, rate)) for rate in RATES]


def second() -> list[Arm]:
    """Return the second tutorial's arm."""
    return [Arm("lenet-swish", LENET, HParams(1e-3, 0.0))]


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
    out: OutDirectory = None
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
        adam = self.protocol()
        rmsprop = replace(self.protocol("rmsprop"), epochs=self.second_epochs, train_split="all")
        with files.claimed(out):
            record: dict[str, Any] = {}
            figures: dict[str, Callable[[], Figure]] = {}
            merged: list[str] = []
            for make, protocol, directory in (
                (first, adam, self.reuse or out / "keras-cnn"),
                (second, rmsprop, out / "lenet-swish"),
            ):
                arms = make()
                splits = experiment.prepare(protocol, self.data_dir, report.say)
                # A directory that is reused has a plan of its own.
                plan = None if directory == self.reuse else self.plan(hypothesis(__doc__), ())
                results = run(arms, protocol, splits, directory, **self.options(plan))
                milliseconds = milliseconds_by_launch(
                    make,
                    OPTIMIZERS[protocol.optimizer],
                    splits.train,
                    batch_size=self.batch_size,
                    launches=1 if self.quick else LAUNCHES,
                )
                for arm, step in zip(arms, milliseconds, strict=True):
                    caption = (
                        f"{arm.name}: {len(splits.train.labels):,} training images of {self.dataset}, "
                        f"{len(splits.val.labels):,} {'test' if make is second else 'validation'} images, "
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
        self, results: Results, arm: Arm, caption: str, microseconds: np.ndarray, images: tuple[int, int]
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
        ours_took = launch_range(microseconds, 0)
        time = f"{ours_took} µs per training image on one core, n={len(microseconds)} launches"
        answer = "There is no published run to compare with."
        if published is not None:
            theirs = float(np.median([row["microseconds_per_sample"] for row in published]))
            time += f"; {theirs:.0f} µs published"
            inside = sum(c.within is True for c in comparisons)
            answer = (
                f"{inside} of {len(comparisons)} published values, of one run, lie within our intervals. "
                "Those of losses and of the best epoch do not count that it had other images."
            )
        report.say(results.with_remarks(f"{REHEARSAL}." if rehearsal else answer))
        report.say(time)
        panels = {
            label: Panel(
                ours[metric],
                None if published is None else np.array([row[metric] for row in published]),
                *prediction_interval(ours[metric], images_of(label, images)),
            )
            for metric, label in CURVES.items()
        }
        title = "Our runs; none was published" if published is None else "The published run and ours"
        figure = partial(published_over_ours, panels, title=title, caption=caption)
        entry = {
            "protocol": caption,
            "rehearsal": rehearsal,
            "microseconds_by_launch": microseconds.tolist(),
            "timed": files.made()["made"],
            **results.provenance,
            **{c.measure: c.as_dict() for c in comparisons},
        }
        return entry, {f"{arm.name.replace(' ', '-')}.png": figure}


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
