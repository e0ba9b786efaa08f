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
in turn.

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
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from common import convnet_named, hypothesis, renamed, start
from costs import Cost, cost, milliseconds_per_step, narrowed
from figures import against_costs, shift_sensitivity

from cnnjax import experiment, plots, report
from cnnjax.api.ablation import run, settings
from cnnjax.cli.flags import OptimizerFlags
from cnnjax.cli.runner import shown
from cnnjax.data import Dataset
from cnnjax.errors import ArgumentError, choose
from cnnjax.experiment import Arm, Splits
from cnnjax.experiment.results import Results
from cnnjax.files import write_json
from cnnjax.models import ConvNet
from cnnjax.optimizers import OPTIMIZERS
from cnnjax.plots.arms import final_by_arm
from cnnjax.report.crossed import print_crossed
from cnnjax.stats import Contrast, Summary, summarise, summarise_together
from cnnjax.train import to_device

OPTIMIZER = {"keras-cnn": "adam", "lenet-swish": "rmsprop"}
SHIFTS = (1, 2)
MEASURES = {
    "gap": "validation loss minus training loss",
    **{f"lost_at_shift_{pixels}": f"accuracy lost to a shift of {pixels} px" for pixels in SHIFTS},
}
"""Metrics besides those of the validation images, in words."""
MARGIN = 0.002  # of accuracy: 0.2 points
ARMS = ("max", "average", "median", "strided", "none", "none, same size")
QUICK = {
    "model": ("lenet-swish",),
    "arms": ("max", "average", "none"),
    "seeds": 2,
    "epochs": 2,
    "train_size": 6_000,
}

Costs = Sequence[tuple[Cost, float]]  # one an arm, with the milliseconds of a training step


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
    out: Path | None = None
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
        chosen = {"max", *self.arms}
        networks = {
            name: {arm: model for arm, model in pooling_arms(convnet_named(name)).items() if arm in chosen}
            for name in dict.fromkeys(self.model)
        }
        optimizer = {name: self.optimizer or OPTIMIZER[name] for name in networks}
        hparams = self.hparams(0.0)
        arms = [
            Arm(f"{name}, {arm}", model, hparams, optimizer[name])
            for name, models in networks.items()
            for arm, model in models.items()
        ]
        protocol = self.protocol(schedule=self.schedule)
        splits = experiment.prepare(protocol, self.data_dir, report.say)
        probes = {f"shift_{pixels}": shifted(splits.val, pixels) for pixels in SHIFTS}
        family = tuple(arm.name for arm in arms if not arm.name.endswith(", max"))
        plan = self.plan(hypothesis(__doc__), family, margin=MARGIN)
        results = run(arms, protocol, splits, out, probes=probes, **self.options(plan))
        of_networks = {
            name: renamed(results, {f"{name}, {arm}": arm for arm in models})
            for name, models in networks.items()
        }
        accuracies = [(of.final("val_accuracy"), of.arms) for of in of_networks.values()]
        summaries = summarise_together(accuracies, margin=MARGIN, alpha=results.alpha)
        record = {}
        for (name, models), summary in zip(networks.items(), summaries, strict=True):
            of = [arm for arm in arms if arm.name.startswith(f"{name}, ")]
            caption = f"{name} on {self.dataset}, no dropout, {settings(of, protocol, splits)}"
            milliseconds = milliseconds_per_step(
                [(model, hparams) for model in models.values()],
                OPTIMIZERS[optimizer[name]],
                to_device(splits.train),
                batch_size=self.batch_size,
            )
            costs = list(zip(map(cost, models.values()), milliseconds, strict=True))
            of_network, rehearsal = of_networks[name], self.quick
            record[name] = _report(of_network, costs, splits, caption, summary, rehearsal)
            caption = record[name]["protocol"]
            figures = _figures(of_network, costs, caption, summary)
            figures |= report.confusion_figure(of_network.predictions, splits.test, caption)
            write_json(out / "summary.json", record)
            report.draw(out, {f"{name}-{file}": figure for file, figure in figures.items()})
        report.say(f"table, summary and figures in {out}")


# Arms and measures ------------------------------------------------------------------------------------------


def pooling_arms(model: ConvNet) -> dict[str, ConvNet]:
    """Return the arms by name, without dropout, the reference first."""
    model = model.clone(dropout="none")
    none = model.clone(pooling="none")
    return {
        "max": model.clone(pooling="max"),
        "average": model.clone(pooling="average"),
        "median": model.clone(pooling="median"),
        "strided": model.clone(pooling="strided"),
        "none": none,
        "none, same size": narrowed(none, cost(model).parameters),
    }


def shifted(dataset: Dataset, pixels: int) -> Dataset:
    """Shift successive images up, down, left and right, filling with black."""
    images = np.empty_like(dataset.images)
    padded = np.pad(dataset.images, ((0, 0), (pixels, pixels), (pixels, pixels), (0, 0)))
    _, height, width, _ = images.shape
    corners = ((2 * pixels, pixels), (0, pixels), (pixels, 2 * pixels), (pixels, 0))
    for i, (top, left) in enumerate(corners):
        images[i::4] = padded[i::4, top : top + height, left : left + width]
    return Dataset(images, dataset.labels)


def secondary(results: Results) -> dict[str, np.ndarray]:
    """Return the generalisation gap and the accuracy lost to shifts, float[arms, seeds]; lower is better."""
    unshifted = results.final("val_accuracy")
    lost = {f"lost_at_shift_{p}": unshifted - results.final(f"shift_{p}_accuracy") for p in SHIFTS}
    return {"gap": results.final("val_loss") - results.final("train_loss"), **lost}


# Conclusions ------------------------------------------------------------------------------------------------


def answers(results: Results, costs: Costs, summary: Summary) -> dict[str, str]:
    """Answer each question that these arms can answer in one sentence with its numbers.

    `summary` is of the validation accuracy.
    """
    accuracy = {contrast.arm: contrast for contrast in summary.contrasts}
    measures = secondary(results)
    contrasts = {metric: _contrasts(values, results.arms) for metric, values in measures.items()}
    cost_of = dict(zip(results.arms, costs, strict=True))

    def points(arm: str) -> str:
        return _effect(accuracy[arm], 100, " points", 2)

    def gap(arm: str) -> str:
        return _effect(contrasts["gap"][arm], 1, "", 4)

    def lost_by_max(pixels: int) -> str:
        return report.spread(100 * measures[f"lost_at_shift_{pixels}"][0], 2)

    def lost_without(pixels: int) -> str:
        return _effect(contrasts[f"lost_at_shift_{pixels}"]["none"], 100, " points", 2)

    def error(arm: str) -> str:
        return report.spread(100 - 100 * results.final("test_accuracy")[results.arms.index(arm)], 2) + "%"

    def times(field: Callable[[Cost], int]) -> str:
        return f"{field(cost_of['none'][0]) / field(cost_of['max'][0]):.1f} times the"

    def saved(arm: str) -> str:
        return f"{1 - cost_of[arm][0].flops / cost_of['none'][0].flops:.0%}"

    there, answered = set(results.arms), {}
    if "average" in there:
        question = "Would the average keep more than the maximum?"
        answered[question] = f"Average pooling changes validation accuracy by {points('average')}."
    if "median" in there:
        answered["Would the median?"] = f"Median pooling changes validation accuracy by {points('median')}."
    if {"average", "none"} <= there:
        answered["Does keeping only the maximum make mistakes likely?"] = (
            f"Test error is {error('max')} with max, {error('average')} with average and {error('none')} "
            "without pooling."
        )
    if "none" in there:
        question = "Is no pooling at all more exact?"
        answered[question] = f"Without pooling, validation accuracy changes by {points('none')}."
    if "none, same size" in there:
        answered["And is that not just the larger network?"] = (
            "Without pooling, at the parameter count of max, validation accuracy changes by "
            f"{points('none, same size')}."
        )
    if "none" in there:
        answered["Does pooling fight overfitting?"] = (
            f"Without pooling, validation loss minus training loss changes by {gap('none')}."
        )
    if "none, same size" in there:
        answered["Does it do so by having fewer weights?"] = (
            f"Without pooling, at the parameter count of max, the gap changes by {gap('none, same size')}."
        )
    if "none" in there:
        answered["Does it save weights and work?"] = (
            f"Without pooling, the network has {times(lambda c: c.parameters)} parameters, "
            f"{times(lambda c: c.flops)} operations and {times(lambda c: c.activation_bytes)} activations, "
            f"and a training step takes {cost_of['none'][1] / cost_of['max'][1]:.1f} times as long."
        )
    if {"strided", "none"} <= there:
        answered["Is saving all it does?"] = (
            f"A strided convolution saves {saved('strided')} of the operations and max pooling "
            f"{saved('max')}; with strides, validation accuracy changes by {points('strided')}."
        )
    if "none" in there:
        answered["Does it make the network bear a shift?"] = (
            f"A shift of one pixel costs max pooling {lost_by_max(1)} points, which removing pooling changes "
            f"by {lost_without(1)}; two pixels cost {lost_by_max(2)} points, changed by {lost_without(2)}."
        )
    return answered


def _contrasts(values: np.ndarray, arms: Sequence[str]) -> dict[str, Contrast]:
    return {contrast.arm: contrast for contrast in summarise(values, arms).contrasts}


def _effect(contrast: Contrast, scale: float, unit: str, digits: int) -> str:
    difference = f"{scale * contrast.difference:+.{digits}f}{unit}"
    if not contrast.can_claim:
        return f"{difference} (too few seeds to test)"
    low, high = (f"{scale * end:+.{digits}f}" for end in (contrast.test_low, contrast.test_high))
    caveat = "" if contrast.significant else ", not significant"
    confidence = f"{100 * (1 - contrast.level):.3g}% interval {low} to {high}"
    return f"{difference} ({confidence}, corrected p {contrast.p_holm:.2g}{caveat})"


def _report(
    results: Results, costs: Costs, splits: Splits, caption: str, summary: Summary, rehearsal: bool
) -> dict[str, Any]:
    """Print one network's tables and answers; return its entry of summary.json."""
    record = report.print_ablation(results, caption, summary, rehearsal=rehearsal)
    record |= print_crossed(results, splits.test)
    _cost_table(results, costs)
    record |= report.print_confusions(results.predictions, splits.test)
    record["answers"] = answers(results, costs, summary)
    for question, sentence in record["answers"].items():
        report.say(question)
        report.say(sentence, indent=4)
    record["costs"] = {
        arm: counted._asdict() | {"milliseconds_per_step": milliseconds}
        for arm, (counted, milliseconds) in zip(results.arms, costs, strict=True)
    }
    for metric, values in secondary(results).items():
        compared = summarise(values, results.arms, higher_is_better=False)
        record[metric] = compared.as_dict() | {"metric": MEASURES[metric]}
    return record


def _cost_table(results: Results, costs: Costs) -> None:
    measured = secondary(results)
    heads = ("parameters", "operations an image", "activation bytes", "ms a step")
    report.print_table(
        ("arm", *heads, "train accuracy %", "train loss", *(f"lost at {p} px, points" for p in SHIFTS)),
        (
            (
                arm,
                f"{counted.parameters:,}",
                f"{counted.flops:,}",
                f"{counted.activation_bytes:,}",
                f"{milliseconds:.2f}",
                report.spread(100 * results.final("train_accuracy")[i], 2),
                report.spread(results.final("train_loss")[i], 4),
                *(report.spread(100 * measured[f"lost_at_shift_{p}"][i], 2) for p in SHIFTS),
            )
            for i, (arm, (counted, milliseconds)) in enumerate(zip(results.arms, costs, strict=True))
        ),
    )


def _figures(
    results: Results, costs: Costs, caption: str, summary: Summary
) -> dict[str, Callable[[], plots.Figure]]:
    final = results.final("val_accuracy")
    moved = np.stack([final, *(results.final(f"shift_{pixels}_accuracy") for pixels in SHIFTS)])
    axes = {
        "operations an image": [counted.flops for counted, _ in costs],
        "parameters": [counted.parameters for counted, _ in costs],
        "ms a training step": [milliseconds for _, milliseconds in costs],
    }
    return {
        "accuracy_by_arm.png": partial(
            final_by_arm,
            final,
            results.arms,
            "validation accuracy",
            summary.contrasts,
            title="Which pooling? Accuracy at the last epoch",
            caption=caption,
        ),
        "cost_against_accuracy.png": partial(
            against_costs,
            axes,
            final,
            results.arms,
            "validation accuracy",
            title="Accuracy against cost",
            caption=caption,
        ),
        "shift_sensitivity.png": partial(
            shift_sensitivity,
            moved,
            results.arms,
            title="Accuracy lost to shifts (validation images)",
            caption=caption,
        ),
    }


if __name__ == "__main__":
    sys.exit(start(PoolingAblation, QUICK, __doc__, "pooling_ablation.py"))
