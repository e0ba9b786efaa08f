"""Does BatchNorm make dropout unnecessary, on MNIST and on Fashion-MNIST?

Plan, before any data. Arms: the first tutorial's network plain; with dropout 0.5 after flatten; with
BatchNorm after both ReLUs, once before that dropout; with both. All arms of a seed share initial weights,
batches and masks. Hypotheses: without BatchNorm, dropout raises validation accuracy at the last epoch; with
it, by less. Dropout's gain with BatchNorm answers the question: dropout helps still if that is positive and
significant; it is unnecessary if its interval ends below 0.2 points, half of its gain in the dropout
ablation. Protocol: 24,000 training and 12,000 validation images, batch 32, Adam 1e-3, 8 epochs; 10 seeds
(with 6, nothing could be significant). Statistics: mean paired difference, t intervals that hold jointly for
the 3 contrasts of a data set, exact sign-flip p, Holm-corrected over them, with the interval of the test.
It writes summary.json, and results.csv and figures for each data set, to --out; interrupted, it resumes.
"""

import sys
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import flax.linen as nn
import jax
import numpy as np
from common import hypothesis, start

from cnnjax import experiment, report
from cnnjax.api.ablation import run, settings
from cnnjax.cli import flags
from cnnjax.config import HParams
from cnnjax.errors import ArgumentError
from cnnjax.files import made, write_json
from cnnjax.kernels.layers import Conv, Dense, Dropout
from cnnjax.plots.arms import final_by_arm, metric_bands
from cnnjax.report.tables import contrast_cells, contrast_heads
from cnnjax.stats import Contrast, summarise
from cnnjax.stats.contrasts import compare
from cnnjax.stats.families import ALPHA
from cnnjax.stats.sentences import REHEARSAL

ARMS = {"plain": (False, 0.0), "dropout": (False, 0.5), "BatchNorm": (True, 0.0), "both": (True, 0.5)}
GAINS = ("dropout, without BatchNorm", "dropout, with BatchNorm", "difference")
QUICK = {"seeds": 2, "epochs": 2, "train_size": 6_000}
MARGIN, DATASETS = 0.2, ("mnist", "fashion_mnist")  # margin in percentage points


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


def tested(differences: np.ndarray, alpha: float = ALPHA) -> tuple[Contrast, ...]:
    """Test the `GAINS` over their finite seeds, as one family."""
    return compare(list(differences), GAINS, ("none",) * len(GAINS), margin=MARGIN, alpha=alpha)


def verdict(gain: Contrast) -> str:
    """Answer the question from the primary contrast."""
    if not gain.can_claim:
        return f"{REHEARSAL}."
    helps = "helps still" if gain.difference > 0 else "harms"
    helps = helps if gain.significant else "is not shown to help or harm"
    needless = "" if gain.high < MARGIN else "not shown to be "
    return f"With BatchNorm, dropout {helps} and is {needless}unnecessary (margin {MARGIN} points)."


@dataclass(frozen=True)
class BatchNormOrDropout(flags.Flags):
    """Train paired networks with and without dropout and BatchNorm, and compare what dropout gains."""

    seeds: int = 10
    epochs: int = 8
    train_size: int | None = 24_000
    dataset: str = "both"
    """One data set; or both, mnist and fashion_mnist, which --data-dir then has as directories."""
    out: Path | None = None
    """Output directory; results/batchnorm_or_dropout by default."""
    quick: bool = False
    """Run for about a minute: 2 seeds, 2 epochs of 6,000 images."""

    def __call__(self) -> None:
        """Train all arms, print the answers and write the figures."""
        out = self.out or Path("results/batchnorm_or_dropout" + "_quick" * self.quick)
        if self.seeds < 2:
            raise ArgumentError(f"--seeds {self.seeds} gives no interval; use at least 2")
        experiment.use_every_core()
        record, both = {}, self.dataset == "both"
        for name in DATASETS if both else (self.dataset,):
            protocol = replace(self, dataset=name).protocol()
            splits = experiment.prepare(
                protocol, self.data_dir and self.data_dir / (name if both else ""), report.say
            )
            networks = [Network(norm, splits.train.classes) for norm in (False, True)]
            arms = [experiment.Arm(arm, networks[n], HParams(1e-3, rate)) for arm, (n, rate) in ARMS.items()]
            where = out / Path(name).stem
            plan = self.plan(hypothesis(__doc__), GAINS, margin=MARGIN / 100)
            results = run(arms, protocol, splits, where, **self.options(plan))
            accuracy, curves = results.final("val_accuracy"), results.values["val_accuracy"]
            found, of_arms = tested(gains(accuracy), results.alpha), summarise(accuracy, list(ARMS))
            rehearsal = self.quick or not any(c.can_claim for c in found)
            about = f"{REHEARSAL}. " * rehearsal + f"{name}, {settings(arms, protocol, splits)}"
            record[name] = {
                "protocol": about,
                "rehearsal": rehearsal,
                "arms": of_arms.as_dict()["arms"],
                "contrasts": {contrast.arm: contrast.as_dict() for contrast in found},
                "answer": results.with_remarks(verdict(found[1])),
                **(results.evidence.as_dict() if results.evidence else {}),
                **made(),
            }
            write_json(out / "summary.json", record)
            rows = [[c.arm, str(c.n), *contrast_cells(c, 1, ".2f")] for c in found]
            report.print_table(("gain of dropout", "n", *contrast_heads("points", found)), rows)
            report.say(f"{about}: {record[name]['answer']}")
            epochs = np.arange(self.epochs) + 1
            bands = partial(metric_bands, epochs, curves, list(ARMS), "accuracy", caption=about)
            gained = partial(final_by_arm, gains(accuracy), GAINS, "accuracy gained, points", caption=about)
            report.draw(where, {"val_accuracy.png": bands, "gains.png": gained})


if __name__ == "__main__":
    sys.exit(start(BatchNormOrDropout, QUICK, __doc__, "batchnorm_or_dropout.py"))
