"""Does BatchNorm make dropout unnecessary, on MNIST and on Fashion-MNIST?

Arms: the first tutorial's network, plain; with dropout 0.5 after flatten; with BatchNorm after both ReLUs;
with both. They share initial weights, batches and masks. Hypotheses: without BatchNorm, dropout raises
validation accuracy at the last epoch; with it, by less. Dropout helps still if its gain with BatchNorm is
positive and significant; it is unnecessary if that gain's interval ends below 0.2 points, half of its gain in
the dropout ablation. Protocol: 24,000 training and 12,000 validation images, batch 32, Adam 1e-3, 8 epochs,
10 seeds. Statistics: t intervals joint for 3 paired differences; exact sign-flip p, Holm-corrected.
"""

import sys
from collections.abc import Sequence
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
from cnnjax.cli.runner import OutDirectory
from cnnjax.config import HParams
from cnnjax.files import write_json
from cnnjax.kernels.layers import Conv, Dense, Dropout
from cnnjax.plots import Figure
from cnnjax.plots.arms import final_by_arm
from cnnjax.report.tables import contrast_cells, contrast_heads
from cnnjax.stats import ALPHA, REHEARSAL, Contrast, compare, summarise
from cnnjax.stats.sentences import POINTS, disagreement

ARMS = {"plain": (False, 0.0), "dropout": (False, 0.5), "BatchNorm": (True, 0.0), "both": (True, 0.5)}
GAINS = ("dropout, without BatchNorm", "dropout, with BatchNorm", "difference")
QUICK = {"seeds": 2, "epochs": 2, "train_size": 6_000}
MARGIN, DATASETS = 0.002, ("mnist", "fashion_mnist")  # margin of accuracy: 0.2 points


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
    """Return f64[`GAINS`, seeds] from accuracies f64[`ARMS`, seeds]."""
    plain, dropout, norm, both = accuracy
    return np.stack([dropout - plain, both - norm, (both - norm) - (dropout - plain)])


def tested(differences: np.ndarray, alpha: float = ALPHA) -> tuple[Contrast, ...]:
    """Test the `GAINS` over their finite seeds, as one family."""
    return compare(list(differences), GAINS, ("no dropout",) * len(GAINS), margin=MARGIN, alpha=alpha)


def verdict(gain: Contrast) -> str:
    """Answer the question from the primary contrast."""
    if not gain.can_claim:
        return f"{REHEARSAL}."
    effect = "helps still" if gain.difference > 0 else "harms"
    effect = effect if gain.significant else "is not shown to help or harm"
    needless = "" if gain.high < MARGIN else "not shown to be "
    answer = (
        f"With BatchNorm, dropout {effect} and is {needless}unnecessary (margin {100 * MARGIN:g} points)."
    )
    dissent = disagreement([gain], POINTS)
    return f"{answer} {dissent[0].upper()}{dissent[1:]}." if dissent else answer


def figure(accuracy: np.ndarray, contrasts: Sequence[Contrast], caption: str) -> Figure:
    """Draw the accuracies f64[`ARMS`, seeds], and beside them the gains with the intervals of the table."""
    return final_by_arm(accuracy, list(ARMS), "validation accuracy", contrasts, caption=caption)


@dataclass(frozen=True)
class BatchNormOrDropout(flags.Flags):
    """Train paired networks with and without dropout and BatchNorm, and compare what dropout gains."""

    seeds: int = 10
    epochs: int = 8
    train_size: int | None = 24_000
    dataset: str = "both"
    """One data set; or both, mnist and fashion_mnist, which --data-dir then has as directories."""
    out: OutDirectory = None
    """Output directory; results/batchnorm_or_dropout by default."""
    quick: bool = False
    """Run for about a minute: 2 seeds, 2 epochs of 6,000 images."""

    def __call__(self) -> None:
        """Train all arms, print the answers and write the figures."""
        out, record = self.out or Path("results/batchnorm_or_dropout" + "_quick" * self.quick), {}
        experiment.use_every_core()
        for name in DATASETS if self.dataset == "both" else (self.dataset,):
            protocol = replace(self, dataset=name).protocol()
            where = self.data_dir and self.data_dir / (name if self.dataset == "both" else "")
            splits = experiment.prepare(protocol, where, report.say)
            networks = [Network(norm, splits.train.classes) for norm in (False, True)]
            arms = [experiment.Arm(arm, networks[n], HParams(1e-3, rate)) for arm, (n, rate) in ARMS.items()]
            options = self.options(self.plan(hypothesis(__doc__), GAINS, margin=MARGIN))
            results = run(arms, protocol, splits, out / Path(name).stem, **options)
            accuracy = results.final("val_accuracy")
            contrasts = tested(gains(accuracy), results.alpha)
            rehearsal = self.quick or not any(contrast.can_claim for contrast in contrasts)
            about = f"{REHEARSAL}. " * rehearsal + f"{name}, {settings(arms, protocol, splits)}"
            record[name] = {
                "protocol": about,
                "rehearsal": rehearsal,
                "metric": "validation accuracy",
                "arms": summarise(accuracy, list(ARMS)).as_dict()["arms"],
                "contrasts": {contrast.arm: contrast.as_dict() for contrast in contrasts},
                "answer": results.with_remarks(verdict(contrasts[1])),
                **results.provenance,
            }
            write_json(out / "summary.json", record)
            heads = ("gain of dropout", "n", *contrast_heads("points", contrasts))
            report.print_table(heads, [[c.arm, str(c.n), *contrast_cells(c, 100, ".2f")] for c in contrasts])
            report.say(f"{about}: {record[name]['answer']}")
            draw = partial(figure, accuracy, contrasts, about)
            report.draw(out / Path(name).stem, {"gains.png": draw})


if __name__ == "__main__":
    sys.exit(start(BatchNormOrDropout, QUICK, __doc__, "batchnorm_or_dropout.py"))
