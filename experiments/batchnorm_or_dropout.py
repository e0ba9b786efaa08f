"""Does BatchNorm make dropout unnecessary, on MNIST and on Fashion-MNIST?

Plan, before any data. Arms: the first tutorial's network plain; with dropout 0.5 after flatten; with
BatchNorm after both ReLUs, one before that dropout and one behind it; with both. All arms of a seed share
initial weights, batches and masks.
Hypotheses: without BatchNorm, dropout raises validation accuracy at the last epoch; with it, by less.
Primary contrast: dropout's gain with BatchNorm. Dropout helps still if that is positive and significant; it
is unnecessary if the 95% interval ends below 0.2 points, half of its gain in the dropout ablation.
Protocol: 24,000 training and 12,000 validation images, batch 32, Adam 1e-3, 8 epochs, so that 80 networks
take about half an hour on two busy cores. Of fewer than 7 seeds, none of three contrasts is significant.
Statistics: mean paired difference, 95% t interval, exact sign-flip p, Holm-corrected over the three
contrasts of a data set.

It writes results.csv and figures for each data set, and summary.json, to --out, and resumes if interrupted.
"""

import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import flax.linen as nn
import jax
import numpy as np
from common import train
from figures import final_by_arm, metric_bands

from cnnjax import experiment, report
from cnnjax.cli import runner
from cnnjax.cli.flags import Flags
from cnnjax.config import HParams
from cnnjax.errors import ArgumentError
from cnnjax.experiment import Arm
from cnnjax.files import write_json
from cnnjax.kernels.layers import Conv, Dense, Dropout
from cnnjax.stats import summarise
from cnnjax.stats.intervals import t_interval
from cnnjax.stats.paired import ALPHA, holm, sign_flip_p

ARMS = {"plain": (False, 0.0), "dropout": (False, 0.5), "BatchNorm": (True, 0.0), "both": (True, 0.5)}
GAINS = ("dropout without BatchNorm", "dropout with BatchNorm", "difference")
MARGIN = 0.2  # percentage points


class Network(nn.Module):
    """The first tutorial's network, with BatchNorm after its activations if `norm`."""

    norm: bool
    classes: int

    @nn.compact
    def __call__(self, x: jax.Array, train: bool, dropout_rate: jax.Array) -> jax.Array:
        """Return the logits of images f[n, h, w, c]."""
        norm = nn.BatchNorm if self.norm else lambda use_running_average: lambda x: x
        x = norm(use_running_average=not train)(Conv(10, 3, "SAME", nn.relu, "max")(x))
        x = Dropout()(x, dropout_rate, deterministic=not train).reshape(len(x), -1)
        return Dense(self.classes)(norm(use_running_average=not train)(nn.relu(Dense(100)(x))))


def gains(accuracy: np.ndarray) -> np.ndarray:
    """Return f64[`GAINS`, seeds], in points, from accuracies f64[`ARMS`, seeds]."""
    plain, dropout, norm, both = 100 * accuracy
    return np.stack([dropout - plain, both - norm, (both - norm) - (dropout - plain)])


def compare(differences: np.ndarray) -> dict[str, dict[str, float]]:
    """Test each of the `GAINS` over its finite seeds."""
    p = [sign_flip_p(row[np.isfinite(row)], np.random.default_rng(0)) for row in differences]
    mean, half, n = t_interval(differences)
    rows = np.transpose([n, mean, mean - half, mean + half, p, holm(p)]).tolist()
    names = ("n", "difference", "low", "high", "p", "p_holm")
    return {gain: dict(zip(names, row, strict=True)) for gain, row in zip(GAINS, rows, strict=True)}


def verdict(gain: Mapping[str, float]) -> str:
    """Answer the question from the primary contrast."""
    helps = "helps still" if gain["difference"] > 0 else "harms"
    helps = helps if gain["p_holm"] <= ALPHA else "is not shown to help or harm"
    needless = "is unnecessary" if gain["high"] < MARGIN else "is not shown to be unnecessary"
    return f"With BatchNorm, dropout {helps} and {needless} (margin {MARGIN} points)."


@dataclass(frozen=True)
class BatchNormOrDropout(Flags):
    """Train paired networks with and without dropout and BatchNorm, and compare what dropout gains."""

    seeds: int = 10
    """Paired seeds per arm."""
    epochs: int = 8
    """Passes over the training images."""
    train_size: int | None = 24_000
    """Number of training images."""
    dataset: str = "both"
    """One data set; or both, mnist and fashion_mnist, which --data-dir then has as directories."""
    out: Path | None = None
    """Output directory; results/batchnorm_or_dropout by default."""
    quick: bool = False
    """Run for about a minute: 2 seeds, 2 epochs of 6,000 images."""

    def __call__(self) -> None:
        """Train all arms, print the answers and write the figures."""
        out = self.out or Path("results/batchnorm_or_dropout" + "_quick" * self.quick)
        if self.quick:
            return replace(self, seeds=2, epochs=2, train_size=6_000, out=out, quick=False)()
        if self.seeds < 2:
            raise ArgumentError(f"--seeds {self.seeds} gives no interval; use at least 2")
        experiment.use_every_core()
        both, record = self.dataset == "both", {}
        for name in ("mnist", "fashion_mnist") if both else (self.dataset,):
            protocol, directory = replace(self, dataset=name).protocol(), out / Path(name).stem
            splits = experiment.prepare(protocol, self.data_dir and self.data_dir / (name if both else ""))
            networks = [Network(norm, splits.train.classes) for norm in (False, True)]
            arms = [Arm(arm, networks[norm], HParams(1e-3, rate)) for arm, (norm, rate) in ARMS.items()]
            results = train(self, arms, protocol, splits, directory)
            accuracy, curves = results.final("val_accuracy"), results.values["val_accuracy"]
            caption = (
                f"{name}, {len(splits.train.labels):,} images, {self.epochs} epochs, {self.paired_seeds}"
            )
            contrasts, table = compare(gains(accuracy)), summarise(accuracy, results.arms).as_dict()["arms"]
            record[name] = {"protocol": caption, "arms": table, "contrasts": contrasts}
            record[name]["answer"] = verdict(contrasts[GAINS[1]])
            write_json(out / "summary.json", record)
            rows = [[gain, *(f"{value:.3g}" for value in c.values())] for gain, c in contrasts.items()]
            report.print_table((caption, *contrasts[GAINS[0]]), rows)
            print(record[name]["answer"])
            bands = metric_bands(
                np.arange(self.epochs) + 1, curves, results.arms, "accuracy", caption=caption
            )
            gained = final_by_arm(gains(accuracy), GAINS, "accuracy gained, points", caption=caption)
            report.draw(directory, {"val_accuracy.png": bands, "gains.png": gained})


if __name__ == "__main__":
    sys.exit(runner.run(BatchNormOrDropout, __doc__ or "", prog="batchnorm_or_dropout.py"))
