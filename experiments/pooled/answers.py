"""What the numbers of `pooling_ablation.py` say, a sentence a question."""

from collections.abc import Callable, Sequence

import numpy as np
from costs import Cost
from timing import launch_range

from cnnjax import report
from cnnjax.experiment.results import Results
from cnnjax.stats import Contrast, Summary, summarise
from pooled.arms import Costs, secondary


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
        longer = cost_of["none"][1] / cost_of["max"][1]
        answered["Does it save weights and work?"] = (
            f"Without pooling, the network has {times(lambda c: c.parameters)} parameters, "
            f"{times(lambda c: c.flops)} operations and {times(lambda c: c.activation_bytes)} activations, "
            f"and a training step takes {launch_range(longer, 1)} times as long (n={len(longer)} launches)."
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
