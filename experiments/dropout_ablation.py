"""Does dropout help, by how much, and how sure are we?

Hypothesis, stated before any data: dropping half of the flattened features raises the validation accuracy of
the first tutorial's network at the last epoch. The tutorial reports 0.9837 without dropout and 0.9885 with
it, from one run each.

Arms: dropout rates 0, 0.25, 0.5 and 0.75 before the dense layers.

Pairing: all arms of a seed share initial weights, batches and the uniforms behind the masks.

Protocol: 48,000 training and 12,000 validation images, batch 32, Adam 1e-3, 20 epochs; the last epoch
counts.

Statistics: mean paired difference to rate 0 with a 95% t interval; exact sign-flip p with the interval that
inverts it. Rate 0.5 is tested first; the other rates, Holm-corrected, count only if it is significant.
Differences below 0.2 points do not matter: equal is what is within them (two one-sided t tests).

Run `python experiments/dropout_ablation.py`; it writes results.csv, summary.json and PNG figures to --out,
and continues an interrupted run.
"""

import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

from common import convnet_named, hypothesis, start

from cnnjax import experiment, report
from cnnjax.api.ablation import run, settings
from cnnjax.cli.flags import OptimizerFlags
from cnnjax.cli.runner import OutDirectory
from cnnjax.errors import ArgumentError
from cnnjax.experiment import Arm
from cnnjax.plots.arms import final_by_arm
from cnnjax.report.ablation import Ablation

PRIMARY = 0.5
MARGIN = 0.002  # of accuracy: 0.2 points
QUICK = {"rates": (0.0, PRIMARY), "epochs": 2, "train_size": 12_000}


@dataclass(frozen=True)
class DropoutAblation(OptimizerFlags):
    """Train paired networks that differ only in the dropout rate, and compare them."""

    rates: tuple[float, ...] = (0.0, 0.25, 0.5, 0.75)
    """Dropout rates; the first is the reference."""
    kind: Literal["inverted", "classic", "spatial", "gaussian"] = "inverted"
    """Kind of dropout."""
    model: str = "keras-cnn"
    """Name of the network."""
    out: OutDirectory = None
    """Output directory; results/dropout_ablation by default."""
    quick: bool = False
    """Run for about a minute: 2 rates, 2 epochs of 12,000 images."""

    def __call__(self) -> None:
        """Train all arms, print the table and write the figures."""
        out = self.out or Path("results/dropout_ablation" + "_quick" * self.quick)
        if len(set(self.rates)) < 2 or not all(0 <= rate <= 1 for rate in self.rates):
            raise ArgumentError(f"--rates {self.rates} must be two or more different rates between 0 and 1")
        experiment.use_every_core()
        protocol = self.protocol(self.optimizer, self.schedule)
        splits = experiment.prepare(protocol, self.data_dir, report.say)
        model = convnet_named(self.model).clone(dropout=self.kind, classes=splits.train.classes)
        arms = [Arm(f"rate {rate:g}", model, self.hparams(rate)) for rate in self.rates]
        reference, *others = (arm.name for arm in arms)
        primary = f"rate {PRIMARY:g}" if PRIMARY in self.rates[1:] else None
        if primary is None:
            report.say(f"no contrast is primary: rate {PRIMARY:g} is none of those compared with {reference}")
        question = hypothesis(__doc__) if primary else ""
        plan = self.plan(question, tuple(others), primary, MARGIN, reference=reference)
        results = run(arms, protocol, splits, out, **self.options(plan))
        caption = f"{self.model} on {self.dataset}, {self.kind} dropout, {settings(arms, protocol, splits)}"
        result = Ablation(results, splits.test, caption, primary, MARGIN, results.alpha, self.quick)
        figure = partial(
            final_by_arm,
            results.final("val_accuracy"),
            results.arms,
            "validation accuracy",
            result.compared.contrasts,
            rates=self.rates,
            title="How much dropout? Accuracy at the last epoch",
            caption=result.caption,
        )
        result.write(out, {"accuracy_against_rate.png": figure})


if __name__ == "__main__":
    sys.exit(start(DropoutAblation, QUICK, __doc__, "dropout_ablation.py"))
