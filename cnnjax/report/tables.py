"""Tables and sentences of an ablation, printed and returned for summary.json, and its figures."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from cnnjax import plots
from cnnjax.data import DIGITS, Dataset
from cnnjax.experiment.results import Predictions, Results
from cnnjax.files import write_bytes
from cnnjax.plots import confusion
from cnnjax.report.terminal import print_table, say
from cnnjax.stats import Contrast, Summary, conclusion, summarise
from cnnjax.stats.confusion import Mistake, Pair, confused_pairs, worst_mistakes
from cnnjax.stats.families import ALPHA
from cnnjax.stats.sentences import REHEARSAL, interval_name, pair_sentence, pairing_sentence

PAIRS = 4
"""Confused pairs that are shown."""


def print_ablation(
    results: Results, protocol: str, summary: Summary, *, rehearsal: bool = False
) -> dict[str, Any]:
    """Print the protocol, the table and the conclusion; return them for summary.json.

    Arguments: see `ablation_record`.
    """
    record = ablation_record(results, protocol, summary, rehearsal=rehearsal)
    say(record["protocol"])
    print_table(*summary_table(results, summary, rehearsal=rehearsal))
    say(record["conclusion"])
    if record["pairing"]:
        say(record["pairing"])
    return record


def ablation_record(
    results: Results, protocol: str, summary: Summary, *, rehearsal: bool = False
) -> dict[str, Any]:
    """Return the protocol, the statistics and the conclusion, for summary.json.

    Args:
        results: of all arms.
        protocol: one line.
        summary: of the validation accuracy. The validation loss is compared in the same way, but apart: it
            is not corrected for the accuracy.
        rehearsal: the protocol is too short to answer the question.
    """
    loss = summarise(
        results.final("val_loss"),
        results.arms,
        primary=summary.primary,
        higher_is_better=False,
        alpha=summary.contrasts[0].alpha if summary.contrasts else ALPHA,
    )
    return {
        "protocol": caption(protocol, summary, rehearsal),
        "rehearsal": rehearsal or summary.rehearsal,
        "val_accuracy": summary.as_dict(),
        "val_loss": loss.as_dict(),
        "conclusion": results.with_remarks(
            conclusion(summary, "validation accuracy", accuracy=True, rehearsal=rehearsal)
        ),
        "pairing": pairing_sentence(summary),
        **results.provenance,
    }


def caption(protocol: str, summary: Summary, rehearsal: bool = False) -> str:
    """Return the protocol, after a warning where it cannot answer the question."""
    return f"{REHEARSAL}. {protocol}" if rehearsal or summary.rehearsal else protocol


def print_confusions(predictions: Mapping[str, Predictions], test: Dataset) -> dict[str, Any]:
    """Print the most confused pairs of the first arm, beside the other arms; return them for summary.json.

    `predictions` are those of the test images by arm; without any, nothing is printed. Diverged networks do
    not count.
    """
    record = confusion_record(predictions, test)
    if record:
        print_table(*confusion_table(predictions, test, test.class_names))
        say(list(record.values())[-1])
    return record


def confusion_record(predictions: Mapping[str, Predictions], test: Dataset) -> dict[str, Any]:
    """Return what `print_confusions` prints, for summary.json."""
    predictions = converged(predictions)
    if not predictions:
        return {}
    names = test.class_names
    pairs = {arm: confused_pairs(test.labels, of_arm, test.classes) for arm, of_arm in predictions.items()}
    arm, first = next(iter(pairs.items()))
    a, b = (3, 5) if names == DIGITS else first[0][:2]
    sentence = f"{arm}: {pair_sentence(first, a, b, len(test.labels), names)}"
    counts = {
        arm: {f"{names[p.a]} and {names[p.b]}": p.counts.tolist() for p in of[:PAIRS]}
        for arm, of in pairs.items()
    }
    return {"confused": counts, f"{names[a]} and {names[b]}": sentence}


def converged(predictions: Mapping[str, Predictions]) -> dict[str, Predictions]:
    """Leave out diverged networks, whose classes mean nothing, and arms that have no others."""
    finite = {arm: np.isfinite(of_arm.probability).all(axis=1) for arm, of_arm in predictions.items()}
    return {
        arm: Predictions(of_arm.labels[finite[arm]], of_arm.probability[finite[arm]])
        for arm, of_arm in predictions.items()
        if finite[arm].any()
    }


def confusion_table(
    predictions: Mapping[str, Predictions], test: Dataset, classes: Sequence[str]
) -> tuple[list[str], list[list[str]]]:
    """Return heads and rows: the first arm's most confused pairs, and how often each arm confuses them."""
    counted = converged(predictions)
    pairs = {arm: confused_pairs(test.labels, of, len(classes)) for arm, of in counted.items()}
    rows = []
    for a, b, _ in next(iter(pairs.values()))[:PAIRS]:
        same = (next(pair for pair in of if (pair.a, pair.b) == (a, b)) for of in pairs.values())
        counts = (spread(pair.per_seed, int(len(pair.counts) > 1)) for pair in same)
        rows.append([f"{classes[a]} and {classes[b]}", *counts])
    return ["most confused", *(f"{arm} (n={len(of[0].counts)})" for arm, of in pairs.items())], rows


def worst_pairs(
    predictions: Predictions, test: Dataset, images: int, classes: int = 10
) -> list[tuple[Pair, list[Mistake]]]:
    """Return the most confused pairs of classes, each with its worst mistakes."""
    return [
        (pair, worst_mistakes(test.labels, predictions, pair, images))
        for pair in confused_pairs(test.labels, predictions, classes)[:PAIRS]
    ]


def confusion_figure(
    predictions: Mapping[str, Predictions], test: Dataset, protocol: str
) -> dict[str, Callable[[], plots.Figure]]:
    """Return what draws the test images that the networks of the first arm confuse most, as confused.png."""
    predictions = converged(predictions)
    if not predictions:
        return {}
    arm, first = next(iter(predictions.items()))
    rows = worst_pairs(first, test, confusion.COLUMNS, classes=test.classes)
    title = f"Most confused test images, {arm}"
    make = partial(confusion.worst_images, test.images, rows, test.class_names, title=title, caption=protocol)
    return {"confused.png": make}


def draw(out: Path, figures: Mapping[str, Callable[[], plots.Figure]]) -> None:
    """Write figures as PNG, by file name. One that cannot be drawn is named in one line instead."""
    for name, make in figures.items():
        png = plots.attempt(name, make)
        if png is not None:
            write_bytes(out / name, png)
        else:  # an older one would not be of these numbers
            (out / name).unlink(missing_ok=True)


def spread(values: np.ndarray, digits: int) -> str:
    """Format mean ± sd of the finite values; a single value has no sd."""
    finite = values[np.isfinite(values)]
    if not len(finite):
        return "-"
    sd = f" ± {np.std(finite, ddof=1):.{digits}f}" if len(finite) > 1 else ""
    return f"{np.mean(finite):.{digits}f}{sd}"


def summary_table(
    results: Results, summary: Summary, *, rehearsal: bool = False
) -> tuple[list[str], list[list[str]]]:
    """Return heads and rows: each arm's final metrics (mean ± sd), and its paired difference to the first.

    The gap is validation loss minus training loss, both measured without dropout. Arguments: see
    `ablation_record`.
    """
    compared = {c.arm: contrast_cells(c, 100, ".2f") for c in summary.contrasts}
    gap = results.final("val_loss") - results.final("train_loss")
    rows = [
        [
            arm.name,
            f"{arm.n}" + (f" ({arm.diverged} diverged)" if arm.diverged else ""),
            spread(100 * results.final("val_accuracy")[i], 2),
            spread(results.final("val_loss")[i], 4),
            spread(100 * results.final("test_accuracy")[i], 2),
            spread(gap[i], 4),
            *compared.get(arm.name, ["reference", ""]),
        ]
        for i, arm in enumerate(summary.arms)
    ]
    metrics = "val accuracy %", "val loss", "test accuracy %", "gap (loss)"
    heads = contrast_heads(f"difference to {summary.arms[0].name}, points", summary.contrasts)
    first = "arm (a rehearsal)" if rehearsal or summary.rehearsal else "arm"
    return [first, "n", *metrics, *heads], rows


def contrast_heads(difference: str, contrasts: Sequence[Contrast]) -> list[str]:
    """Return the heads of `contrast_cells`: both intervals are named for what they are."""
    described = interval_name([c._asdict() for c in contrasts])
    return [f"{difference} [{described}]", "p (corrected) [interval of the test]"]


def contrast_cells(contrast: Contrast, scale: float, digits: str) -> list[str]:
    """Return the difference with its t interval, and p with the interval that inverts its test.

    A difference or an interval is left out where there is none, and p where no p could be significant.
    """

    def interval(low: float, high: float) -> str:
        ends = f" [{scale * low:+{digits}}, {scale * high:+{digits}}]"
        return ends if np.isfinite([low, high]).all() else ""

    found = f"{scale * contrast.difference:+{digits}}{interval(contrast.low, contrast.high)}"
    difference = found if np.isfinite(contrast.difference) else "-"
    if not contrast.can_claim:
        return [difference, "too few seeds"]
    p = f"{contrast.p:.3f} ({contrast.p_holm:.3f})".replace("0.000", "<0.001")
    return [difference, p + (interval(contrast.test_low, contrast.test_high) or " not tested")]
