"""What a report says of runs."""

from collections.abc import Sequence
from dataclasses import asdict
from itertools import groupby
from typing import Any

import numpy as np

from cnnjax.data.published import published_history
from cnnjax.experiment.results import Predictions
from cnnjax.models import parameter_count
from cnnjax.report.html import mistakes
from cnnjax.report.html.charts import Line, chart, key
from cnnjax.report.html.markup import Markup, facts, join, table, tag
from cnnjax.report.html.subjects import CLASSES, Run
from cnnjax.report.html.words import DASH, DATASETS, interval, number, percent, several
from cnnjax.runs.programs import confusion
from cnnjax.stats.intervals import t_interval, wilson_interval

SPLITS = (("", "training"), ("val_", "validation"))


def lead(run: Run) -> Markup:
    """The run in two sentences."""
    right, n = _right(run), len(run.test.labels)
    low, high = wilson_interval(right, n)
    epochs = several(len(run.history), "epoch")
    asked = "" if len(run.history) == run.config.epochs else f" of {run.config.epochs}"
    kept = f", each of its flattened features dropped with probability {run.config.dropout_rate:g}"
    return tag(
        "p",
        f"{several(parameter_count(run.params), 'weight')}, trained for {epochs}{asked} on "
        f"{several(run.train_images, 'image')} of {DATASETS[run.config.dataset]}"
        f"{kept if run.config.dropout_rate else ' without dropout'}. It gets ",
        tag("strong", percent(right / n)),
        f" of the {several(n, 'test image')} right, with a 95% interval from {percent(low)} to "
        f"{percent(high)}.",
        class_="lead",
    )


def learned(run: Run) -> Markup:
    """The curves, what they show, and the numbers behind them."""
    epochs = [row["epoch"] for row in run.history]
    published = published_history(run.config.model, run.config.dataset, run.config.dropout_rate) or []
    published = published[: max(len(epochs), 2)]

    def lines(metric: str) -> list[Line]:
        ours = [
            Line(name, epochs, [row[prefix + metric] for row in run.history], 1 - i, dashed=not prefix)
            for i, (prefix, name) in enumerate(SPLITS)
        ]
        theirs = [
            Line(
                f"published, {name}",
                [row["epoch"] for row in published],
                [row[prefix + metric] for row in published],
                -1,
                dashed=not prefix,
            )
            for prefix, name in SPLITS
            if published
        ]
        return ours + theirs

    best, last = min(run.history, key=lambda row: row["val_loss"]), run.history[-1]
    told = f"The validation loss is lowest after epoch {best['epoch']:.0f}, at {best['val_loss']:.4f}"
    told += ", the last." if best == last else f", and {last['val_loss']:.4f} at the end."
    heads = ["epoch", "loss", "accuracy", "validation loss", "validation accuracy", "seconds"]
    rows: list[list[object]] = [
        [
            f"{row['epoch']:.0f}",
            number(row["loss"]),
            number(row["accuracy"]),
            number(row["val_loss"]),
            number(row["val_accuracy"]),
            number(row["seconds"], 1),
        ]
        for row in run.history
    ]
    return join(
        tag("p", told),
        key(lines("loss")),
        tag(
            "div",
            chart(lines("loss"), "Loss", from_zero=True),
            chart(lines("accuracy"), "Accuracy"),
            class_="pair-of-charts",
        ),
        _final(run),
        tag("details", tag("summary", "Every epoch"), table(heads, rows, class_="cards numbers")),
    )


def _final(run: Run) -> Markup:
    last, n = run.history[-1], len(run.test.labels)
    seen = round(last["val_accuracy"] * run.val_images)
    rows: list[list[object]] = [
        ["training", f"{run.train_images:,}", number(last["loss"]), percent(last["accuracy"]), DASH],
        [
            "validation" if run.config.train_split == "part" else "validation: the test images",
            f"{run.val_images:,}",
            number(last["val_loss"]),
            percent(last["val_accuracy"]),
            _wilson(seen, run.val_images),
        ],
        ["test", f"{n:,}", number(run.tested.loss), percent(run.tested.accuracy), _wilson(_right(run), n)],
    ]
    note = (
        "The interval says what other images might show. What another seed might show, it cannot say: that "
        "takes more runs. Training figures are means over the last epoch, with dropout on and "
        "weights still moving."
    )
    heads = ["images", "how many", "loss", "accuracy", "95% interval"]
    return join(table(heads, rows, "After the last epoch", "cards"), tag("p", note, class_="note"))


def confused(run: Run) -> Markup:
    """Pairs, images and matrix of the test images."""
    said, classes = Predictions.of(run.tested.logits[None]), CLASSES[run.config.dataset]
    wrong = len(run.test.labels) - _right(run)
    told = (
        f"{several(wrong, 'test image')} of {len(run.test.labels):,} {'is' if wrong == 1 else 'are'} taken "
        "for something else. Below each image: what it is, what it is taken for, and how probable that seems."
    )
    return join(
        tag("p", told),
        mistakes.pairs(said, run.test, classes),
        mistakes.sentence(said, run.test, classes) if run.config.dataset == "mnist" else None,
        mistakes.matrix(confusion(run.test.labels, run.tested.logits), classes),
    )


def record(run: Run) -> Markup:
    """What was asked for, and where and with what it was done."""
    asked = {name.replace("_", " "): value for name, value in asdict(run.config).items()}
    done = _provenance(run.result) if run.result else {"result.json": "none: the run is not finished"}
    return join(facts(asked), facts(done))


def compared(runs: Sequence[Run]) -> Markup:
    """Runs side by side: curves, and test accuracies over the seeds of one configuration."""

    def lines(metric: str) -> list[Line]:
        return [
            Line(run.name, [row["epoch"] for row in run.history], [row[metric] for row in run.history], i)
            for i, run in enumerate(runs)
        ]

    charts = (
        chart(lines("val_loss"), "Validation loss", from_zero=True),
        chart(lines("val_accuracy"), "Validation accuracy"),
    )
    heads = ["run", "network", "dropout", "seed", "epochs", "test loss", "test accuracy", "95% interval"]
    rows: list[list[object]] = [
        [
            run.name,
            run.config.model,
            f"{run.config.dropout_rate:g}",
            run.config.seed,
            len(run.history),
            number(run.tested.loss),
            percent(run.tested.accuracy),
            _wilson(_right(run), len(run.test.labels)),
        ]
        for run in runs
    ]
    return join(
        key(lines("val_loss")),
        tag("div", *charts, class_="pair-of-charts"),
        table(heads, rows, "Test images", "cards"),
        _over_seeds(runs),
    )


def _over_seeds(runs: Sequence[Run]) -> Markup | None:
    """Mean test accuracies of configurations that differ in nothing but the seed, where there are several."""

    def same(run: Run) -> str:
        return str({**asdict(run.config), "seed": None, "epochs": len(run.history)})

    rows: list[list[object]] = []
    for _, group in groupby(sorted(runs, key=same), key=same):
        members = list({run.config.seed: run for run in group}.values())
        if len(members) < 2:
            continue
        values = np.array([run.tested.accuracy for run in members], float)
        mean, half, _ = (float(v) for v in t_interval(values))
        config = members[0].config
        rows.append(
            [
                f"{config.model}, dropout rate {config.dropout_rate:g}",
                len(members),
                f"{100 * mean:.2f} ± {100 * values.std(ddof=1):.2f}%",
                f"{interval(max(0, 100 * (mean - half)), min(100, 100 * (mean + half)), 2)}%",
            ]
        )
    heads = ["runs that differ in the seed alone", "seeds", "mean ± sd", "95% t interval of the mean"]
    return table(heads, rows, "Test accuracy over seeds", "cards") if rows else None


def _provenance(result: dict[str, Any]) -> dict[str, object]:
    """Flat lines of result.json, whatever it holds."""

    def flat(value: Any) -> str:
        if isinstance(value, dict):
            return ", ".join(f"{name} {flat(inner)}" for name, inner in value.items())
        return str(value)

    data = result.get("data")
    sums = data.get("sha256") if isinstance(data, dict) else None
    lines = {name: result.get(name) for name in ("device", "host", "python", "versions", "seconds")}
    if isinstance(data, dict):
        lines["data"] = {name: value for name, value in data.items() if name != "sha256"}
    if isinstance(sums, dict):
        lines |= {f"sha256 of {name}": value for name, value in sums.items()}
    return {name: flat(value) for name, value in lines.items() if value is not None}


def _right(run: Run) -> int:
    return int(np.sum(run.tested.logits.argmax(axis=1) == run.test.labels))


def _wilson(right: int, n: int) -> str:
    low, high = wilson_interval(right, n)
    return f"{interval(100 * low, 100 * high, 2)}%"
