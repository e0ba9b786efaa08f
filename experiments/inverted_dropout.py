"""What is inverted about inverted dropout? Four questions, about a minute.

Hypotheses, with r the dropout rate and p = 1 - r the probability of keeping a unit:

1. With masks alone, the next layer's input is 1/p times as large at test as in training. Multiplying by p at
test ("classic", Srivastava et al. 2014) or by 1/p in training ("inverted") makes both equal.

2. Both forms are one family of functions: classic with the next layer's kernel W computes the same as
inverted with V = p W, at test, and in training with the same masks. Training preserves this only if the
initial weights and the steps are rescaled: the gradient with respect to W is p times that with respect to V,
and a step dW moves p W by p dW. The classic network therefore follows the inverted one if it starts from
V/p, passes gradient/p to its optimizer, and multiplies the step by 1/p. With plain SGD this equals a
learning rate 1/p^2 times as large for this kernel; without it, the kernel learns p^2 times as fast. Adam
normalises the gradient, so only the last 1/p remains; without it, p times as fast.

3. Weight scaling approximates the average over all networks that masks can sample. An average of k networks
is worse at k = 1 and equals weight scaling at about k = 50 (Figure 11 of the 2014 paper) to within 0.2 points
of error and 0.01 nats of loss.

4. A mask depends only on (seed, layer, step, example), not on the number of devices.

Data: stratified parts of MNIST, 4,800 training and 2,000 test images (--quick: 1,280 and 500).

Model: the first tutorial's network, dropout with rate 0.5 between Flatten and Dense_0.

Protocol: four arms, each with SGD and with Adam. All arms of a seed share initial V, batches and masks.
Batch size 32, 2 epochs, 6 seeds.

Statistics: paired differences, sign-flip p. Contrasts, chosen beforehand: test against training for each
form (question 1); classic without rescaling against inverted (2); k = 50 against weight scaling (3). Each is
a question of its own, and not corrected for the others; equality is tested at each k by itself.

Run `python experiments/inverted_dropout.py`; it writes results.csv, summary.json, four figures and the
trained networks to --out, and reuses the networks there. plan.json and looks.csv record what was to be
claimed and at how many seeds the results were looked at.
"""

import json
import sys
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from common import require_positive, start
from inverted.arms import BATCH, INVERTED, RATE, count_epochs, train_all
from inverted.demonstration import DEVICES
from inverted.questions import averaging, masks_and_keys, mean_activations, one_family
from inverted.record import Record

from cnnjax import files
from cnnjax.cli.runner import DataDirectory, OutDirectory
from cnnjax.data import load, split, subset
from cnnjax.experiment import Plan
from cnnjax.experiment.ledger import Ledger
from cnnjax.report import say
from cnnjax.stats import REHEARSAL
from cnnjax.stats.intervals import FEWEST
from cnnjax.train import to_device

IMAGES = {False: (4_800, 2_000), True: (1_280, 500)}
"""Numbers of training and test images, by --quick."""


def claims(docstring: str | None) -> str:
    """Return what the experiment will claim: the paragraph of its docstring about statistics."""
    (paragraph,) = [part for part in (docstring or "").split("\n\n") if part.startswith("Statistics: ")]
    return " ".join(paragraph.split())


@dataclass(frozen=True)
class InvertedDropout:
    """Answer four questions about inverted dropout."""

    seeds: int = 6
    """Paired seeds of every arm."""
    epochs: int = 2
    """Passes over the training images."""
    quick: bool = False
    """Use 1,280 training and 500 test images."""
    dataset: str = "mnist"
    """mnist, fashion_mnist or kmnist."""
    data_dir: DataDirectory = None
    out: OutDirectory = None
    """Output directory; results/inverted_dropout by default."""

    def __call__(self) -> None:
        """Train the missing networks, answer the questions, and write tables and figures."""
        require_positive(seeds=self.seeds, epochs=self.epochs)
        # Question 4 needs eight CPU devices, which must be set before JAX's first computation.
        jax.config.update("jax_num_cpu_devices", DEVICES)
        began = time.perf_counter()
        out = self.out or Path("results/inverted_dropout" + "_quick" * self.quick)
        loaded = load(self.dataset, self.data_dir, announce=say)
        subsets = map(subset, (split(loaded.train)[0], loaded.test), IMAGES[self.quick])
        train, test = map(to_device, subsets)
        rehearsal = f"{REHEARSAL}. " * (self.quick or self.seeds < FEWEST)
        protocol = (
            f"{rehearsal}{self.dataset}, {len(train.labels):,} training and {len(test.labels):,} test "
            f"images, batch {BATCH}, {self.epochs} epoch{'s' * (self.epochs > 1)}, dropout rate {RATE:g}, "
            f"n={self.seeds} seed{'s' * (self.seeds > 1)}"
        )
        origin: dict[str, Any] = {"protocol": protocol, "rehearsal": bool(rehearsal)}
        origin |= {"sha256": loaded.sha256, **files.provenance()}
        stamp = {name: origin[name] for name in ("protocol", "sha256", "versions", "mask_scheme")}
        seeds = jnp.arange(self.seeds, dtype=jnp.uint32)
        with files.claimed(out):
            plan = Plan(claims(__doc__), "test_loss", seeds=self.seeds)
            # A changed plan is not refused: every conclusion tells it.
            ledger = Ledger(out, plan, plan, partial(count_epochs, out), replan=True)
            ledger.write()
            networks = train_all(out, json.dumps(stamp), seeds, train, test, self.epochs)
            evidence = ledger.look(plan.numbers)
            say(protocol)
            record = Record(out, protocol, [], origin | evidence.as_dict(), {}, evidence.remarks)
            mean_activations(record, networks["Adam"], seeds, test)
            one_family(record, networks, seeds, test)
            averaging(record, networks["Adam"][INVERTED.name], seeds, test)
            masks_and_keys(record)
            record.write()
        print()
        say(f"tables, summary and four figures in {out} ({time.perf_counter() - began:.0f} s)")


if __name__ == "__main__":
    sys.exit(start(InvertedDropout, {}, __doc__, "inverted_dropout.py"))
