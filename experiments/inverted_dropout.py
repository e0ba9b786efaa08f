"""What is inverted about inverted dropout? Four questions, about a minute.

Hypotheses, with r the dropout rate and p = 1 - r the probability to be kept:

1. Masks alone make what the next layer receives 1/p times as large at test as in training. Lowering it by p
   at test ("classic", Srivastava et al. 2014) or raising it by 1/p in training ("inverted") makes both equal.
2. Both forms are one family of functions: classic with the next layer's kernel W computes what inverted
   computes with V = p W, in training with the same masks and at test. Training keeps to this only if start
   and steps are rescaled. The gradient by W is p times the gradient by V, and a step dW moves p W by p dW;
   so the classic network follows the inverted one if it starts from V / p, hands its optimizer gradient / p,
   and takes the optimizer's step / p. With plain SGD that is a learning rate 1/p^2 times as large, for this
   kernel alone; left as it is, the kernel learns p^2 times as fast as the inverted one. Adam divides the
   gradient by its own size, so the last 1/p remains: left as it is, p times as fast.
3. Scaling approximates the average over all networks that masks can sample. The average of k of them is worse
   at k = 1 and meets scaling by about k = 50 (Figure 11 of the 2014 paper).
4. A mask follows from (seed, layer, step, example) alone, on however many devices the batch is spread.

Data        stratified parts of MNIST: 4,800 training and 2,000 test images (--quick: 1,280 and 500).
Model       the first tutorial's network; dropout at rate 0.5 between Flatten and Dense_0.
Protocol    four arms for SGD and for Adam, from the same keys: the same V, batches and masks in every arm of
            a seed; batch 32, 2 epochs, 6 seeds. Trained networks are kept in --out and used again.
Statistics  paired within a seed, p by sign flips. The contrasts are chosen beforehand: for 1 test against
            training of each form, for 2 classic as it is against inverted, for 3 k = 50 against scaling.
"""

import json
import re
import sys
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from inverted import demonstration, dropout_figures, key_figures
from inverted.demonstration import largest_difference, meeting
from inverted.record import Record, store, stored
from inverted.rescaling import Trained, evaluation_sums, first_weights, make_training, scale_kernel

from cnnjax import files
from cnnjax.cli import runner
from cnnjax.config import HParams
from cnnjax.data import Dataset, load, split
from cnnjax.errors import ArgumentError
from cnnjax.metrics import means
from cnnjax.models import ConvNet
from cnnjax.optimizers import adam
from cnnjax.report import spread
from cnnjax.state import MakeOptimizer, Params
from cnnjax.stats.intervals import t_interval
from cnnjax.train import Arrays, to_device

RATE = 0.5
"""The tutorial's; p is a power of two, so that rescaling by it rounds nothing."""
KEEP = 1 - RATE
BATCH = 32
IMAGES = {False: (4_800, 2_000), True: (1_280, 500)}
"""Training and test images, without and with --quick."""
MASKS = 20
"""Masks behind each mean of question 1."""
NETWORKS = 100
"""Largest k of question 3."""
TOLD = (1, 2, 5, 10, 20, 50, 100)

# Model and arms ---------------------------------------------------------------------------------------------

MODEL = {kind: ConvNet(dropout=kind) for kind in ("inverted", "classic")}


class Arm(NamedTuple):
    """A form of dropout, and the factors of the first kernel and of both sides of its optimizer."""

    name: str
    kind: str
    start: float
    steps: float


INVERTED, CLASSIC, STARTED, RESCALED = (
    Arm("inverted", "inverted", 1.0, 1.0),
    Arm("classic as it is", "classic", 1.0, 1.0),
    Arm("classic, start rescaled", "classic", 1 / KEEP, 1.0),
    Arm("classic, start and steps rescaled", "classic", 1 / KEEP, 1 / KEEP),
)
ARMS = (INVERTED, CLASSIC, STARTED, RESCALED)


# Protocol ---------------------------------------------------------------------------------------------------


def sgd(hparams: HParams) -> optax.GradientTransformation:
    """Plain stochastic gradient descent, without momentum."""
    return optax.sgd(hparams.learning_rate)


OPTIMIZERS: dict[str, tuple[MakeOptimizer, float]] = {"SGD": (sgd, 0.1), "Adam": (adam, 1e-3)}
"""With their learning rates."""


def train_all(
    out: Path, stamp: str, seeds: jax.Array, train: Arrays, test: Arrays, epochs: int
) -> dict[str, dict[str, Trained]]:
    """The arms of every optimizer: those in `out` that were made by the same `stamp`, the others anew."""
    found: dict[str, dict[str, Trained]] = {}
    for name, (make_optimizer, rate) in OPTIMIZERS.items():
        hparams = HParams(jnp.float32(rate), jnp.float32(RATE))
        programs = {
            kind: make_training(model, make_optimizer, batch_size=BATCH, epochs=epochs)
            for kind, model in MODEL.items()
        }
        found[name] = {}
        for arm in ARMS:
            path = out / f"{re.sub('[^a-z]+', '-', f'{name} {arm.name}'.lower())}.npz"
            trained = stored(path, stamp)
            if trained is None:
                began = time.perf_counter()
                weights = first_weights(MODEL["inverted"], seeds)
                factors = (jnp.float32(arm.start), jnp.float32(arm.steps))
                trained = programs[arm.kind](seeds, weights, *factors, hparams, train, test)
                trained = jax.device_get(trained)
                store(path, stamp, trained)
                print(f"trained {name}, {arm.name} ({time.perf_counter() - began:.1f} s)", flush=True)
            found[name][arm.name] = trained
    return found


# The four questions -----------------------------------------------------------------------------------------


def what_dense_receives(record: Record, arms: dict[str, Trained], seeds: jax.Array, test: Arrays) -> None:
    """Question 1: three forms on the same networks, and what forgetting to scale costs classic ones."""
    images = demonstration.all_of(test).images
    networks = arms[INVERTED.name].params
    found = demonstration.activations(MODEL["inverted"], networks, seeds, images, RATE, MASKS)
    training = {form: values.mean(axis=1) for form, values in found.training.items()}
    ratios = {form: found.test[form][:, None] / found.training[form] for form in training}
    record.table(
        "1. The mean activation that Dense_0 receives: mean ± sd over seeds, the same networks in every row",
        ("form of dropout", "in training", "at test", "test / training", "its sd over masks"),
        [
            (
                form,
                spread(training[form], 4),
                spread(found.test[form], 4),
                spread(ratio.mean(axis=1), 4),
                f"{np.std(ratio, axis=1, ddof=1).mean():.4f}",
            )
            for form, ratio in ratios.items()
        ],
    )
    for form in training:
        pair = {f"{form} in training": training[form], f"{form} at test": found.test[form]}
        record.contrast(f"activation, {form}", "mean activation", pair)
        for arm, values in pair.items():
            record.add("activation", arm, (), mean_activation=values)
    classic = arms[CLASSIC.name]

    def unscaled(params: Params) -> dict[str, jax.Array]:
        return means(evaluation_sums(MODEL["classic"], params, test, 0.0))

    forgotten = jax.device_get(jax.jit(partial(jax.lax.map, unscaled))(classic.params))
    record.table(
        "   Networks trained with classic dropout (Adam), and what their test makes of it",
        ("at test", "test error %", "test loss"),
        [
            (name, spread(100 * error, 2), spread(loss, 3))
            for name, error, loss in (
                ("activations times p", classic.test_error[:, -1], classic.test_loss[:, -1]),
                ("not scaled", 1 - forgotten["accuracy"], forgotten["loss"]),
            )
        ],
    )
    pair = {"classic": classic.test_loss[:, -1], "classic not scaled at test": forgotten["loss"]}
    record.contrast("forgotten scaling", "test loss", pair)
    record.figure(
        "activations.png",
        dropout_figures.activations(
            found.training,
            found.test,
            title="Masks lower the mean in training; classic lowers the test, inverted raises training",
            caption=f"{record.protocol}, {MASKS} masks a seed. The same networks (trained inverted, Adam) in "
            "each form. Bars: 95% t intervals over seeds; dots: one seed and mask each.",
        ),
    )


def one_family(
    record: Record, networks: dict[str, dict[str, Trained]], seeds: jax.Array, test: Arrays
) -> None:
    """Question 2: the same function after rescaling, and what training makes of it."""
    images, rate = demonstration.all_of(test).images, jnp.float32(RATE)

    def logits(kind: str, params: Params, train: bool = False) -> np.ndarray:
        found = demonstration.logits(MODEL[kind], params, seeds, images, rate, train)
        return jax.device_get(found)

    inverted = networks["Adam"][INVERTED.name].params
    classic = scale_kernel(inverted, np.float32(1 / KEEP))
    gaps = {
        mode: largest_difference(logits("classic", classic, train), logits("inverted", inverted, train))
        for mode, train in (("in training, same masks", True), ("at test", False))
    }
    record.summary["rescaled: largest difference of logits"] = gaps
    told = "; ".join(f"{mode} {gap:.2g}" for mode, gap in gaps.items())
    print(
        f"\n2. A trained inverted network V, and classic with W = V / p. Largest gap between logits: {told}"
    )
    rows, others, notes, reference = [], {}, {}, {}
    for optimizer, arms in networks.items():
        base = arms[INVERTED.name]
        base_logits = logits("inverted", base.params)
        reference[optimizer], others[optimizer], notes[optimizer] = base_logits[0, :200].ravel(), {}, {}
        for arm in ARMS:
            trained, own = arms[arm.name], KEEP if arm.kind == "classic" else 1.0
            found = logits(arm.kind, trained.params)
            gap = largest_difference(found, base_logits)
            weights = largest_difference(scale_kernel(trained.params, np.float32(own)), base.params)
            step = own * trained.first_step / base.first_step
            error, loss = trained.test_error[:, -1], trained.test_loss[:, -1]
            cells = (f"{step.mean():.3f}", f"{gap:.2g}", f"{weights:.2g}")
            rows.append((f"{optimizer}: {arm.name}", *cells, spread(100 * error, 2), spread(loss, 3)))
            record.add(
                "training",
                f"{optimizer}: {arm.name}",
                ("epoch",),
                loss=trained.loss,
                test_loss=trained.test_loss,
                test_error=trained.test_error,
            )
            if arm is not INVERTED:
                others[optimizer][arm.name] = found[0, :200].ravel()
                notes[optimizer][arm.name] = (
                    f"largest difference {gap:.2g}\nfirst step {step.mean():.2f} of inverted's"
                )
                record.summary[f"{optimizer}: {arm.name} against inverted"] = {
                    "first_step": step.mean().item(),
                    "largest_difference_of_logits": gap,
                    "largest_difference_of_weights": weights,
                }
    heads = (
        "trained",
        "p dW / dV, first step",
        "largest gap: logits",
        "weights, p W - V",
        "test error %",
        "loss",
    )
    record.table(f"   Networks trained from the same keys (p = {KEEP:g}, p^2 = {KEEP**2:g})", heads, rows)
    for optimizer, arms in networks.items():
        loss = {f"{optimizer}: {a.name}": arms[a.name].test_loss[:, -1] for a in (INVERTED, CLASSIC, STARTED)}
        record.contrast(f"{optimizer}: classic", "test loss", loss, primary=f"{optimizer}: {CLASSIC.name}")
    record.figure(
        "same_function.png",
        dropout_figures.same_function(
            reference,
            others,
            notes,
            title="From the same keys, classic follows inverted when start and steps are rescaled by 1/p",
            caption=f"{record.protocol}. Drawn: 200 test images of seed 0, 10 logits each; differences are "
            "over all images and seeds. First step: that of p W, against the inverted network's of V.",
        ),
    )


def averaging(record: Record, trained: Trained, seeds: jax.Array, test: Arrays) -> None:
    """Question 3, on the inverted networks of Adam."""
    found = demonstration.averages(MODEL["inverted"], trained.params, seeds, test, RATE, NETWORKS)
    curves = {"test error (%)": 100 * found.error, "test loss (nats)": found.loss}
    lines = {"test error (%)": 100 * found.scaled_error, "test loss (nats)": found.scaled_loss}
    rows = [[f"{k}"] for k in TOLD]
    for metric, curve in curves.items():
        mean, half, _ = t_interval(curve - lines[metric][:, None], axis=0)
        for row, k in zip(rows, TOLD, strict=True):
            row += [spread(curve[:, k - 1], 3), f"{mean[k - 1]:+.3f} ± {half[k - 1]:.3f}"]
    rows.append(["weight scaling", *(cell for line in lines.values() for cell in (spread(line, 3), ""))])
    heads = (
        "k networks averaged",
        *(head for metric in curves for head in (metric, "- weight scaling [95%]")),
    )
    record.table("3. Averaging sampled networks against scaling the weights", heads, rows)
    for metric, curve in curves.items():
        first, always = meeting(curve, lines[metric])
        record.summary[f"meeting in {metric}"] = {"first_k": first, "every_k_from": always}
        reach = f"holds 0 first at k = {first}" if first else f"holds 0 at no k up to {NETWORKS}"
        print(f"{metric}: the 95% interval {reach}" + (f", and always from k = {always}" if always else ""))
    pair = {"weight scaling": found.scaled_error, "average of 50": found.error[:, 49]}
    record.contrast("averaging", "test error", pair)
    record.add("averaging", "sampled networks", ("k",), test_loss=found.loss, test_error=found.error)
    scaled = {"test_loss": found.scaled_loss, "test_error": found.scaled_error}
    record.add("averaging", "weight scaling", (), **scaled)
    record.figure(
        "monte_carlo.png",
        dropout_figures.monte_carlo(
            curves,
            lines,
            title="Averaging k sampled networks against scaling the weights",
            caption=f"{record.protocol}; inverted, Adam. Averages are of class probabilities, each image has "
            "its own masks. Bands: 95% t intervals over seeds; below, of the difference within a seed.",
        ),
    )


def masks_and_keys(record: Record) -> None:
    """Question 4, on the first batch of seed 0."""
    masks = demonstration.batch_masks(0, 0, (BATCH, 14, 14, 10), RATE)
    one = masks["1 device"]
    differ = {name: int(np.sum(mask != one)) for name, mask in masks.items()}
    parts = {name: mask.reshape(demonstration.DEVICES, -1) for name, mask in masks.items()}
    record.summary["masks"] = {"bits": one.size, "that differ from 1 device": differ}
    record.table(
        f"4. The {one.size:,} mask bits of the first batch of seed 0",
        ("how the batch is run", "bits that differ from 1 device", "different eighths of the batch"),
        [
            (name, f"{count:,}", f"{len({part.tobytes() for part in parts[name]})} of 8")
            for name, count in differ.items()
        ],
    )
    shown = {name: masks[name] for name in ("1 device", "8 devices, shard_map", demonstration.MISTAKE)}
    record.figure(
        "masks.png",
        key_figures.masks_and_keys(
            shown,
            {name: int(name[0]) for name in shown},
            demonstration.key_tree(0, 0, one),
            title=f"The masks of one batch, and their keys: {differ['8 devices, shard_map']} of "
            f"{one.size:,} bits differ between 1 device and 8",
            caption=f"Seed 0, step 0, batch {BATCH}, dropout rate {RATE:g}; blue is kept. Orange: the path "
            "to these masks; grey: its siblings. An element is kept where its half of a word, the right half "
            "first, is at least 8000 (the rate times 2^16, in hex). Nothing on the path knows of devices.",
        ),
    )


@dataclass(frozen=True)
class InvertedDropout:
    """What the command line asks for."""

    seeds: int = 6
    """Networks of every arm."""
    epochs: int = 2
    """Passes over the training images."""
    quick: bool = False
    """1,280 training and 500 test images."""
    dataset: str = "mnist"
    """mnist, fashion_mnist or kmnist."""
    data_dir: Path | None = None
    """Directory with the four IDX files (plain or .gz) to use instead of a download."""
    out: Path | None = None
    """Where results go; results/inverted_dropout unless given, or results/inverted_dropout_quick."""

    def __call__(self) -> None:
        """Train what is not there yet, answer the questions, and leave figures and tables."""
        for name in ("seeds", "epochs"):
            if getattr(self, name) < 1:
                raise ArgumentError(f"--{name} {getattr(self, name)} must be at least 1")
        # Question 4 needs eight devices of any machine, and JAX counts them at its first computation.
        jax.config.update("jax_num_cpu_devices", demonstration.DEVICES)
        began = time.perf_counter()
        out = self.out or Path("results/inverted_dropout" + "_quick" * self.quick)
        loaded = load(self.dataset, self.data_dir, announce=print)
        sets = map(part, (split(loaded.train)[0], loaded.test), IMAGES[self.quick])
        train, test = map(to_device, sets)
        protocol = (
            f"{self.dataset}, {len(train.labels):,} training and {len(test.labels):,} test images, "
            f"batch {BATCH}, {self.epochs} epoch{'s' * (self.epochs > 1)}, dropout rate {RATE:g}, "
            f"n={self.seeds} seed{'s' * (self.seeds > 1)}"
        )
        made_by = {"protocol": protocol, "sha256": loaded.sha256, **files.provenance()}
        kept = {name: made_by[name] for name in ("protocol", "sha256", "versions", "mask_scheme")}
        seeds = jnp.arange(self.seeds, dtype=jnp.uint32)
        with files.claimed(out):
            networks = train_all(out, json.dumps(kept), seeds, train, test, self.epochs)
            print(protocol)
            record = Record(out, protocol, [], made_by)
            what_dense_receives(record, networks["Adam"], seeds, test)
            one_family(record, networks, seeds, test)
            averaging(record, networks["Adam"][INVERTED.name], seeds, test)
            masks_and_keys(record)
            record.write()
        print(f"\ntables, summary and four figures in {out} ({time.perf_counter() - began:.0f} s)")


def part(dataset: Dataset, images: int) -> Dataset:
    """A stratified part of so many images, the same for ever; all of them where there are fewer."""
    there = len(dataset.labels)
    return split(dataset, images / there)[0] if images < there else dataset


if __name__ == "__main__":
    sys.exit(runner.run(InvertedDropout, __doc__ or "", prog="inverted_dropout.py"))
