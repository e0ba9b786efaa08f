"""The four questions of `inverted_dropout.py`: each function writes tables and a figure to the record."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from cnnjax.metrics import means
from cnnjax.report import say, spread
from cnnjax.state import Params
from cnnjax.stats.intervals import t_interval
from cnnjax.task import to_unit_interval
from cnnjax.train import Arrays
from inverted import demonstration, dropout_figures, key_figures
from inverted.arms import ARMS, BATCH, CLASSIC, INVERTED, KEEP, MODEL, RATE, STARTED
from inverted.demonstration import largest_difference, meeting
from inverted.record import Record
from inverted.rescaling import TrainedArm, evaluation_sums, scale_kernel

MASKS = 20
"""Masks per seed in question 1."""
NETWORKS = 100
"""Largest k in question 3."""
SHOWN = (1, 2, 5, 10, 20, 50, 100)
MARGINS = {"test error (%)": 0.2, "test loss (nats)": 0.01}
"""Differences from weight scaling that do not matter in question 3: of errors in percentage points."""


def mean_activations(record: Record, arms: dict[str, TrainedArm], seeds: jax.Array, test: Arrays) -> None:
    """Question 1: mean activations in three forms, and the cost of forgetting to scale at test."""
    images = to_unit_interval(test.images)
    networks = arms[INVERTED.name].params
    measured = demonstration.activations(MODEL["inverted"], networks, seeds, images, RATE, MASKS)
    training = {form: values.mean(axis=1) for form, values in measured.training.items()}
    ratios = {form: measured.test[form][:, None] / measured.training[form] for form in training}
    record.table(
        "1. Mean input of Dense_0 (mean ± sd over seeds; the same networks in every row)",
        ("form of dropout", "in training", "at test", "test / training", "sd over masks"),
        [
            (
                form,
                spread(training[form], 4),
                spread(measured.test[form], 4),
                spread(ratio.mean(axis=1), 4),
                f"{np.std(ratio, axis=1, ddof=1).mean():.4f}",
            )
            for form, ratio in ratios.items()
        ],
    )
    for form in training:
        pair = {f"{form} in training": training[form], f"{form} at test": measured.test[form]}
        record.contrast(f"activation, {form}", "mean activation", pair)
        for arm, values in pair.items():
            record.add("activation", arm, (), mean_activation=values)
    classic = arms[CLASSIC.name]

    def unscaled(params: Params) -> dict[str, jax.Array]:
        return means(evaluation_sums(MODEL["classic"], params, test, 0.0))

    forgotten = jax.device_get(jax.jit(partial(jax.lax.map, unscaled))(classic.params))
    record.table(
        "   Networks trained with classic dropout (Adam), tested with and without scaling",
        ("at test", "test error %", "test loss"),
        [
            (name, spread(100 * error, 2), spread(loss, 3))
            for name, error, loss in (
                ("scaled by p", classic.test_error[:, -1], classic.test_loss[:, -1]),
                ("not scaled", 1 - forgotten["accuracy"], forgotten["loss"]),
            )
        ],
    )
    pair = {"classic": classic.test_loss[:, -1], "classic not scaled at test": forgotten["loss"]}
    record.contrast("forgotten scaling", "test loss", pair)
    record.figure(
        "activations.png",
        dropout_figures.activations,
        measured.training,
        measured.test,
        title="Masks lower the mean in training; classic also lowers it at test, inverted raises it back",
        caption=f"{record.protocol}, {MASKS} masks per seed. The same networks (trained inverted, Adam) "
        "in each form. Bars: 95% t intervals over seeds. Dots: one seed and mask each.",
    )


def one_family(
    record: Record, networks: dict[str, dict[str, TrainedArm]], seeds: jax.Array, test: Arrays
) -> None:
    """Question 2: classic and inverted are the same function after rescaling, before and after training."""
    images, rate = to_unit_interval(test.images), jnp.float32(RATE)

    def logits(kind: str, params: Params, train: bool = False) -> np.ndarray:
        return jax.device_get(demonstration.logits(MODEL[kind], params, seeds, images, rate, train))

    inverted = networks["Adam"][INVERTED.name].params
    classic = scale_kernel(inverted, np.float32(1 / KEEP))
    gaps = {
        mode: largest_difference(logits("classic", classic, train), logits("inverted", inverted, train))
        for mode, train in (("in training, same masks", True), ("at test", False))
    }
    record.summary["rescaled: largest difference of logits"] = gaps
    listed = "; ".join(f"{mode} {gap:.2g}" for mode, gap in gaps.items())
    print()
    say(f"2. Inverted networks with V and classic ones with W = V / p differ in logits by at most: {listed}")
    rows, others, notes, reference = [], {}, {}, {}
    for optimizer, arms in networks.items():
        base = arms[INVERTED.name]
        base_logits = logits("inverted", base.params)
        reference[optimizer], others[optimizer], notes[optimizer] = base_logits[0, :200].ravel(), {}, {}
        for arm in ARMS:
            trained, own = arms[arm.name], KEEP if arm.kind == "classic" else 1.0
            arm_logits = logits(arm.kind, trained.params)
            gap = largest_difference(arm_logits, base_logits)
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
                others[optimizer][arm.name] = arm_logits[0, :200].ravel()
                notes[optimizer][arm.name] = (
                    f"largest difference {gap:.2g}\nfirst step {step.mean():.2f} times inverted's"
                )
                record.summary[f"{optimizer}: {arm.name} against inverted"] = {
                    "first_step": step.mean().item(),
                    "largest_difference_of_logits": gap,
                    "largest_difference_of_weights": weights,
                }
    differences = ("largest difference, logits", "weights, p W - V")
    heads = ("arm", "first step, p dW / dV", *differences, "test error %", "test loss")
    record.table(f"   Networks trained from the same keys (p = {KEEP:g}, p^2 = {KEEP**2:g})", heads, rows)
    for optimizer, arms in networks.items():
        loss = {f"{optimizer}: {a.name}": arms[a.name].test_loss[:, -1] for a in (INVERTED, CLASSIC, STARTED)}
        record.contrast(f"{optimizer}: classic", "test loss", loss, primary=f"{optimizer}: {CLASSIC.name}")
    record.figure(
        "same_function.png",
        dropout_figures.same_function,
        reference,
        others,
        notes,
        title="From the same keys, classic follows inverted if start and steps are scaled by 1/p",
        caption=f"{record.protocol}. Dots: the 10 logits of 200 test images, seed 0. Differences are "
        "over all images and seeds. First step: p dW of the classic over dV of the inverted network.",
    )


def averaging(record: Record, trained: TrainedArm, seeds: jax.Array, test: Arrays) -> None:
    """Question 3: averages of sampled networks against weight scaling, on the given inverted networks."""
    averages = demonstration.averages(MODEL["inverted"], trained.params, seeds, test, RATE, NETWORKS)
    curves = {"test error (%)": 100 * averages.error, "test loss (nats)": averages.loss}
    lines = {"test error (%)": 100 * averages.scaled_error, "test loss (nats)": averages.scaled_loss}
    rows = [[f"{k}"] for k in SHOWN]
    for metric, curve in curves.items():
        mean, half, _ = t_interval(curve - lines[metric][:, None], axis=0)
        for row, k in zip(rows, SHOWN, strict=True):
            ends = f" [{mean[k - 1] - half[k - 1]:+.3f}, {mean[k - 1] + half[k - 1]:+.3f}]"
            row += [spread(curve[:, k - 1], 3), f"{mean[k - 1]:+.3f}" + ends * bool(np.isfinite(half[k - 1]))]
    rows.append(["weight scaling", *(cell for line in lines.values() for cell in (spread(line, 3), ""))])
    heads = [head for metric in curves for head in (f"{metric} ± sd", "minus weight scaling [95% t]")]
    record.table("3. Averages of k sampled networks against weight scaling", ("k", *heads), rows)
    for metric, curve in curves.items():
        margin = MARGINS[metric]
        first, always = meeting(curve, lines[metric], margin)
        record.summary[f"meeting in {metric}"] = {"margin": margin, "first_k": first, "every_k_from": always}
        where = f"at k = {first}, and always from k = {always}" if always else f"at k = {first}"
        where = where if first else f"at no k up to {NETWORKS}"
        say(f"{metric}: averages are shown to equal weight scaling to within {margin:g} {where}")
    pair = {"weight scaling": averages.scaled_error, "average of 50": averages.error[:, 49]}
    record.contrast("averaging", "test error", pair)
    record.add("averaging", "sampled networks", ("k",), test_loss=averages.loss, test_error=averages.error)
    scaled = {"test_loss": averages.scaled_loss, "test_error": averages.scaled_error}
    record.add("averaging", "weight scaling", (), **scaled)
    record.figure(
        "monte_carlo.png",
        dropout_figures.monte_carlo,
        curves,
        lines,
        title="Averages of k sampled networks against weight scaling",
        caption=f"{record.protocol}; inverted, Adam. Class probabilities are averaged; each image has "
        "its own masks. Bands: 95% t intervals over seeds (below: of the paired difference).",
    )


def masks_and_keys(record: Record) -> None:
    """Question 4: the masks of the first batch of seed 0, and their keys."""
    masks = demonstration.batch_masks(0, 0, (BATCH, 14, 14, 10), RATE)
    one = masks["1 device"]
    differ = {name: int(np.sum(mask != one)) for name, mask in masks.items()}
    parts = {name: mask.reshape(demonstration.DEVICES, -1) for name, mask in masks.items()}
    record.summary["masks"] = {"bits": one.size, "that differ from 1 device": differ}
    record.table(
        f"4. The {one.size:,} mask bits of the first batch of seed 0",
        ("execution", "bits that differ from 1 device", "distinct eighths of the batch"),
        [
            (name, f"{count:,}", f"{len({part.tobytes() for part in parts[name]})} of 8")
            for name, count in differ.items()
        ],
    )
    shown = {name: masks[name] for name in ("1 device", "8 devices, shard_map", demonstration.MISTAKE)}
    record.figure(
        "masks.png",
        key_figures.masks_and_keys,
        shown,
        {name: int(name[0]) for name in shown},
        demonstration.key_tree(0, 0, one),
        title=f"The masks of one batch, and their keys: {differ['8 devices, shard_map']} of "
        f"{one.size:,} bits differ between 1 device and 8",
        caption=f"Seed 0, step 0, batch {BATCH}, dropout rate {RATE:g}; blue: kept. Orange: the path to "
        "these masks; grey: siblings. An element is kept if its half of a word, right half first, is at "
        "least 8000 (the rate times 2^16, in hex). Nothing on the path depends on devices.",
    )
