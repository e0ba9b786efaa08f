"""Tables and figures of `pooling_ablation.py`."""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from figures import against_costs, shift_sensitivity
from timing import launch_range

from cnnjax import files, plots, report
from cnnjax.experiment import Splits
from cnnjax.experiment.results import Results
from cnnjax.plots.arms import final_by_arm
from cnnjax.report.crossed import crossed_record
from cnnjax.stats import Summary, summarise
from pooled.answers import answers
from pooled.arms import MEASURES, SHIFTS, Costs, secondary


def described(
    results: Results, costs: Costs, splits: Splits, caption: str, summary: Summary, rehearsal: bool
) -> dict[str, Any]:
    """Print one network's tables and answers; return its entry of summary.json."""
    record = report.print_ablation(results, caption, summary, rehearsal=rehearsal)
    record |= crossed_record(results, splits.test, rehearsal=record["rehearsal"])
    if "over_seeds_and_images" in record:
        report.say(record["over_seeds_and_images"])
    _cost_table(results, costs)
    record |= report.print_confusions(results.predictions, splits.test)
    record["answers"] = answers(results, costs, summary)
    for question, sentence in record["answers"].items():
        report.say(question)
        report.say(sentence, indent=4)
    record["costs"] = {
        arm: counted._asdict() | {"milliseconds_by_launch": milliseconds.tolist()}
        for arm, (counted, milliseconds) in zip(results.arms, costs, strict=True)
    }
    record["timed"] = files.made()["made"]  # the networks may have been trained elsewhere
    for metric, values in secondary(results).items():
        compared = summarise(values, results.arms, higher_is_better=False)
        record[metric] = compared.as_dict() | {"metric": MEASURES[metric]}
    return record


def _cost_table(results: Results, costs: Costs) -> None:
    measured = secondary(results)
    heads = ("parameters", "operations an image", "activation bytes", "ms a step (launches)")
    report.print_table(
        ("arm", *heads, "train accuracy %", "train loss", *(f"lost at {p} px, points" for p in SHIFTS)),
        (
            (
                arm,
                f"{counted.parameters:,}",
                f"{counted.flops:,}",
                f"{counted.activation_bytes:,}",
                launch_range(milliseconds, 2),
                report.spread(100 * results.final("train_accuracy")[i], 2),
                report.spread(results.final("train_loss")[i], 4),
                *(report.spread(100 * measured[f"lost_at_shift_{p}"][i], 2) for p in SHIFTS),
            )
            for i, (arm, (counted, milliseconds)) in enumerate(zip(results.arms, costs, strict=True))
        ),
    )


def figures(
    results: Results, costs: Costs, caption: str, summary: Summary
) -> dict[str, Callable[[], plots.Figure]]:
    """Return the functions that draw one network's figures, by file name."""
    final = results.final("val_accuracy")
    moved = np.stack([final, *(results.final(f"shift_{pixels}_accuracy") for pixels in SHIFTS)])
    axes = {
        "operations an image": [counted.flops for counted, _ in costs],
        "parameters": [counted.parameters for counted, _ in costs],
        "ms a step, median of launches": [float(np.median(each)) for _, each in costs],
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
