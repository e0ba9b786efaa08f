"""Which pooling is best: what does it buy, and what does it cost?

Hypotheses: on each of the two networks, each of the five other arms' validation accuracy at the last epoch
differs from max pooling's. These ten contrasts are one family.

Arms: max (the reference), average and median pooling; a convolution with stride 2 instead of pooling; no
pooling, with a dense layer that grows with its input; no pooling, with a dense layer narrowed to the
parameter count of max. No dropout.

Pairing: all arms of a seed share batches, and initial weights where shapes agree.

Protocol: the networks of both tutorials, 48,000 training and 12,000 validation images, pixels in [0, 1],
batch size 32, Adam (keras-cnn) and RMSprop (lenet-swish) at 1e-3. Eleven seeds find a difference of 1.5
standard deviations of the paired differences with 80% probability; with fewer than nine, none of ten
corrected contrasts could be significant. Five epochs, because these 132 networks then take about 20 minutes
on two cores.

Costs: operations are counted for the forward pass of one image. Training steps are timed on one core, arms
in turn, in five launches of a process; medians of launches.

Shift: validation images shifted by 1 and 2 pixels, a quarter of them in each direction, padded with black.

Statistics: mean paired difference to max with a t interval, simultaneous over the family; exact sign-flip p,
Holm-corrected over the family, with the interval that inverts the test. Differences below 0.2 points do not
matter: equal is what is within them (two one-sided t tests). Loss, gap and shift are secondary: corrected
over the arms of a network, but not over networks and questions.
(The first plan tested average first and the others only if it was significant. Average and max did not
differ, which would have left every other question unanswered; Holm over all arms was chosen after seeing
this, and over both networks after a first run with eight seeds. A confirmation takes fresh seeds.)

Run `python experiments/pooling_ablation.py`; it writes results.csv, summary.json and PNG figures to --out,
and continues an interrupted run.
"""

import sys
from collections.abc import Collection
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated

from common import convnet_named, hypothesis, renamed, start
from costs import cost
from pooled.arms import ARMS, SHIFTS, pooling_arms, shifted
from pooled.output import described, figures
from timing import LAUNCHES, milliseconds_by_launch

from cnnjax import experiment, report
from cnnjax.api.ablation import run, settings
from cnnjax.cli.flags import OptimizerFlags
from cnnjax.cli.runner import OutDirectory, shown
from cnnjax.config import HParams
from cnnjax.errors import ArgumentError
from cnnjax.experiment import Arm
from cnnjax.files import write_json
from cnnjax.files.misspelt import choose
from cnnjax.models import ConvNet
from cnnjax.optimizers import OPTIMIZERS
from cnnjax.stats import summarise_together

OPTIMIZER = {"keras-cnn": "adam", "lenet-swish": "rmsprop"}
MARGIN = 0.002  # of accuracy: 0.2 points
QUICK = {
    "model": ("lenet-swish",),
    "arms": ("max", "average", "none"),
    "seeds": 2,
    "epochs": 2,
    "train_size": 6_000,
}


def arms_of(network: str, chosen: Collection[str], hparams: HParams, optimizer: str) -> list[Arm]:
    """Return the chosen arms of a network, the reference first."""
    models = pooling_arms(convnet_named(network))
    return [Arm(f"{network}, {arm}", models[arm], hparams, optimizer) for arm in models if arm in chosen]


@dataclass(frozen=True)
class PoolingAblation(OptimizerFlags):
    """Train paired networks that differ only in pooling, and compare accuracy, cost and robustness."""

    seeds: int = 11
    """Paired seeds of every arm."""
    epochs: int = 5
    """Passes over the training images."""
    model: tuple[str, ...] = ("keras-cnn", "lenet-swish")
    """Names of the networks."""
    arms: tuple[str, ...] = ARMS
    """Arms to train; max, the reference, is always included."""
    optimizer: Annotated[str, shown("STR", "the network's own: adam or rmsprop")] = ""
    """adam, rmsprop, sgd or adamw, as in Keras."""
    out: OutDirectory = None
    """Output directory; results/pooling_ablation by default."""
    quick: bool = False
    """Run for about a minute: lenet-swish, 3 arms, 2 seeds, 2 epochs of 6,000 images."""

    def __call__(self) -> None:
        """Train all arms, print tables and answers, and write the figures."""
        out = self.out or Path("results/pooling_ablation" + "_quick" * self.quick)
        if unknown := set(self.arms) - set(ARMS):
            arm = unknown.pop()
            raise ArgumentError(f"--arms {arm!r} is unknown{choose(arm, list(map(repr, ARMS)))}")
        experiment.use_every_core()
        chosen = ("max", *self.arms)
        hparams = self.hparams(0.0)
        make = {
            name: partial(arms_of, name, chosen, hparams, self.optimizer or OPTIMIZER[name])
            for name in dict.fromkeys(self.model)
        }
        networks = {name: arms() for name, arms in make.items()}
        arms = [arm for of in networks.values() for arm in of]
        protocol = self.protocol(schedule=self.schedule)
        splits = experiment.prepare(protocol, self.data_dir, report.say)
        probes = {f"shift_{pixels}": shifted(splits.val, pixels) for pixels in SHIFTS}
        family = tuple(arm.name for arm in arms if not arm.name.endswith(", max"))
        plan = self.plan(hypothesis(__doc__), family, margin=MARGIN)
        results = run(arms, protocol, splits, out, probes=probes, **self.options(plan))
        of_networks = {
            name: renamed(results, {arm.name: arm.name.removeprefix(f"{name}, ") for arm in of})
            for name, of in networks.items()
        }
        accuracies = [(of.final("val_accuracy"), of.arms) for of in of_networks.values()]
        summaries = summarise_together(accuracies, margin=MARGIN, alpha=results.alpha)
        record = {}
        for (name, of), summary in zip(networks.items(), summaries, strict=True):
            caption = f"{name} on {self.dataset}, no dropout, {settings(of, protocol, splits)}"
            milliseconds = milliseconds_by_launch(
                make[name],
                OPTIMIZERS[self.optimizer or OPTIMIZER[name]],
                splits.train,
                batch_size=self.batch_size,
                launches=1 if self.quick else LAUNCHES,
            )
            counted = [cost(arm.model) for arm in of if isinstance(arm.model, ConvNet)]
            costs = list(zip(counted, milliseconds, strict=True))
            of_network, rehearsal = of_networks[name], self.quick
            record[name] = described(of_network, costs, splits, caption, summary, rehearsal)
            caption = record[name]["protocol"]
            drawn = figures(of_network, costs, caption, summary)
            drawn |= report.confusion_figure(of_network.predictions, splits.test, caption)
            write_json(out / "summary.json", record)
            report.draw(out, {f"{name}-{file}": figure for file, figure in drawn.items()})
        report.say(f"table, summary and figures in {out}")


if __name__ == "__main__":
    sys.exit(start(PoolingAblation, QUICK, __doc__, "pooling_ablation.py"))
