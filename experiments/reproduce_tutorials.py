"""Are these the tutorials' networks? Both trained again, many times, beside the logs that were published.

Networks    the first tutorial's without dropout and with a rate of 0.5 (48,000 images to train, 12,000 to
            validate, Adam 1e-3, 20 epochs); the second's (all 60,000 images, pixels from 0 to 255, RMSprop
            1e-3, 10 epochs), of which no accuracy was printed. Batches of 32.
Published   one run each, of June 2020, by Keras: cnnjax/published.
Question    is the published run one that ours could have been? It is where it lies in the 95% prediction
            interval of one more of our runs, mean -+ t(n - 1) sd sqrt(1 + 1/n). Of values that agree, one
            in twenty lies outside by chance. The published runs were validated on 12,000 other images, a
            spread that ours lack: of accuracy about 0.1 points.
Time        a training step, alone on one core of this machine, the networks taking turns. Keras's figure is
            of another machine, and of all that an epoch does.
"""

import math
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from costs import milliseconds_per_step
from reproduction import Comparison, compare

from cnnjax import experiment, files, report
from cnnjax.cli import runner
from cnnjax.cli.flags import Flags
from cnnjax.config import HParams
from cnnjax.data.published import published_history
from cnnjax.devices.processes import leads
from cnnjax.errors import ArgumentError
from cnnjax.experiment import Arm
from cnnjax.experiment.results import Results
from cnnjax.models import MODELS
from cnnjax.optimizers import OPTIMIZERS
from cnnjax.plots import arms
from cnnjax.stats.intervals import prediction_interval
from cnnjax.train import to_device

RATES = (0.0, 0.5)
LENET = MODELS["lenet-swish"].clone(pixel_scale=255.0, dropout="none")
CURVES = {"loss": "training loss", "val_loss": "validation loss", "val_accuracy": "validation accuracy"}


@dataclass(frozen=True)
class ReproduceTutorials(Flags):
    """Train the networks of both tutorials again and compare with what was published."""

    seeds: int = 6
    """Runs of every network; two at least."""
    epochs: int = 20
    """Passes over the training images, of the first tutorial's networks."""
    second_epochs: int = 10
    """The same, of the second tutorial's."""
    reuse: Path | None = None
    """Directory of dropout_ablation.py whose members are these very networks: what it holds is not trained
    again, and what it lacks is added to it."""
    out: Path | None = None
    """Where results go; results/reproduce_tutorials unless given."""
    quick: bool = False
    """About a minute: 2 seeds, 2 epochs of 6,000 images."""

    def __call__(self) -> None:
        """Train, then print the tables and draw the figures."""
        if self.quick:
            settings = replace(self, seeds=2, epochs=2, second_epochs=2, train_size=6_000, quick=False)
            return replace(settings, out=self.out or Path("results/reproduce_tutorials_quick"))()
        if self.seeds < 2:
            raise ArgumentError(f"--seeds {self.seeds} must be at least 2: one run has no spread")
        experiment.use_every_core()
        out = self.out or Path("results/reproduce_tutorials")
        if self.reuse and self.reuse.resolve() == out.resolve():
            raise ArgumentError(
                f"--reuse {self.reuse} is --out too, whose results.csv it would replace; give another --out"
            )
        exact = (self.epochs, self.second_epochs, self.batch_size, self.train_size) == (20, 10, 32, None)
        # Named as in dropout_ablation.py, whose members they are.
        first = [Arm(f"rate {rate:g}", MODELS["keras-cnn"], HParams(1e-3, rate)) for rate in RATES]
        second = [Arm("lenet-swish", LENET, HParams(1e-3, 0.0))]
        adam = self.protocol()
        rmsprop = replace(self.protocol("rmsprop"), epochs=self.second_epochs, train_split="all")
        with files.claimed(out):
            record: dict[str, Any] = {}
            merged: list[str] = []
            for arms, protocol, kept in (
                (first, adam, self.reuse or out / "keras-cnn"),
                (second, rmsprop, out / "lenet-swish"),
            ):
                splits = experiment.prepare(protocol, self.data_dir)
                with report.MemberProgress() as progress:
                    results = experiment.run(
                        arms,
                        protocol,
                        splits,
                        kept,
                        chunk=self.chunk,
                        on_nan=self.on_nan,
                        report=progress.update,
                    )
                milliseconds = milliseconds_per_step(
                    [(arm.model, arm.hparams) for arm in arms],
                    OPTIMIZERS[protocol.optimizer],
                    to_device(splits.train),
                    batch_size=self.batch_size,
                )
                for arm, step in zip(arms, milliseconds, strict=True):
                    told = (
                        f"{arm.name}: {len(splits.train.labels):,} images of {self.dataset} to train, "
                        f"{len(splits.val.labels):,} {'test images ' * (arms is second)}to validate, batch "
                        f"{self.batch_size}, {protocol.optimizer} 0.001, {protocol.epochs} epochs"
                    )
                    record[arm.name] = self._report(results, arm, told, 1000 * step / self.batch_size, out)
                record[arms[0].name] |= report.print_confusions(results.predictions, splits.test)
                if leads():
                    rows = (kept / "results.csv").read_text().splitlines(keepends=True)
                    merged += rows[len(merged) > 0 :]
            files.write_bytes(out / "results.csv", "".join(merged).encode())
            files.write_json(out / "summary.json", record)
            if not exact:
                print("This is not the published protocol: what differs may come from that.")
            print(f"table, summary and figures in {out}")

    def _report(
        self, results: Results, arm: Arm, told: str, microseconds: float, out: Path
    ) -> dict[str, Any]:
        mine = {metric: values[results.arms.index(arm.name)] for metric, values in results.values.items()}
        mine = {metric: mine[metric] for metric in ("loss", "accuracy", "val_loss", "val_accuracy")}
        whole = np.isfinite(np.stack(list(mine.values()))).all(axis=(0, 2))
        mine = {metric: values[whole] for metric, values in mine.items()}
        told += f", {np.sum(whole)} runs" + ("" if whole.all() else f" ({np.sum(~whole)} diverged)")
        print(told)
        if np.sum(whole) < 2:
            print("Fewer than two runs are left, so there is no spread to compare with.")
            return {"protocol": told}
        network = "lenet-swish" if arm.model is LENET else "keras-cnn"
        published = published_history(network, self.dataset, float(arm.hparams.dropout_rate))
        if published is not None and len(published) < results.epochs:
            published = None
        published = published and published[: results.epochs]
        compared = compare(mine, published)
        _table(compared)
        time = f"{microseconds:.0f} µs a training image here, on one core"
        if published is not None:
            theirs = float(np.median([row["microseconds_per_sample"] for row in published]))
            time += f"; {theirs:.0f} µs published"
            inside = sum(c.within is True for c in compared)
            print(f"{inside} of {len(compared)} published values lie within our spread")
        print(time)
        panels = {
            label: (
                mine[metric],
                None if published is None else [row[metric] for row in published],
                *prediction_interval(mine[metric], 1.0 if metric.endswith("accuracy") else math.inf),
            )
            for metric, label in CURVES.items()
        }
        title = "Ours; no run was published" if published is None else "The published run over ours"
        figure = arms.published_over_ours(panels, title=title, caption=told)
        report.draw(out, {f"{arm.name.replace(' ', '-')}.png": figure})
        return {
            "protocol": told,
            "microseconds_per_image": microseconds,
            **{c.measure: _entry(c) for c in compared},
        }


def _table(compared: list[Comparison]) -> None:
    verdict = {True: "yes", False: "NO", None: "not published"}
    rows = []
    for c in compared:
        digits = 1 if c.measure.startswith("epoch") else 4
        published = "-" if c.published is None else f"{c.published:g}"
        span = f"{c.low:.{digits}f} to {c.high:.{digits}f}"
        rows.append((c.measure, published, report.spread(c.ours, digits), span, verdict[c.within]))
    report.print_table(("measure", "published", "ours", "95% of our runs", "within"), rows)


def _entry(c: Comparison) -> dict[str, Any]:
    return {
        "published": c.published,
        "n": len(c.ours),
        "mean": float(c.ours.mean()),
        "sd": float(c.ours.std(ddof=1)),
        "low": c.low,
        "high": c.high,
        "within": c.within,
    }


if __name__ == "__main__":
    sys.exit(runner.run(ReproduceTutorials, __doc__ or "", prog="reproduce_tutorials.py"))
