"""The sections of a report on runs, as data for the templates."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from itertools import groupby
from typing import Any

import jax
import numpy as np
from matplotlib.axes import Axes

from cnnjax import plots
from cnnjax.data.published import published_history
from cnnjax.experiment.results import Predictions
from cnnjax.files.records import without_defaults
from cnnjax.plots.style import epoch_axis, is_share, line_style
from cnnjax.report.html.charts import Chart, chart
from cnnjax.report.html.network import obstacle
from cnnjax.report.html.subjects import Run
from cnnjax.report.html.words import DASH, dataset, flat, interval, measured, number, percent
from cnnjax.report.tables import worst_pairs
from cnnjax.runs.programs import confusion
from cnnjax.shapes import Int
from cnnjax.stats.confusion import Pair, confused_pairs
from cnnjax.stats.intervals import t_interval, wilson_interval
from cnnjax.stats.sentences import enumerated, pair_sentence

IMAGES = 6
"""Mistakes shown of each confused pair."""
METRICS = ("loss", "accuracy", "val_loss", "val_accuracy")
"""Columns of history.csv."""
MANY = 20
"""With more classes than this, the most confused pairs stand in for the confusion matrix."""


def lead(run: Run) -> dict[str, Any]:
    """The network, its training and its test accuracy."""
    right, n = _right(run), len(run.test.labels)
    weights, span = sum(leaf.size for leaf in jax.tree.leaves(run.params)), _wilson(right, n)
    return {"run": run, "weights": weights, "accuracy": right / n, "interval": span}


def training(run: Run) -> dict[str, Any]:
    """The learning curves and the numbers behind them."""
    published = published_history(run.config.model, run.config.dataset, run.config.dropout_rate) or []
    published = published[: max(len(run.history), 2)]
    last, n = run.history[-1], len(run.test.labels)
    result = run.history[run.best - 1] if run.best else last
    validation = "validation" if run.config.train_split == "part" else "validation: the test images"
    spans = _wilson(round(result["val_accuracy"] * run.val_images), run.val_images), _wilson(_right(run), n)
    return {
        "best": min(run.history, key=lambda row: row["val_loss"]),
        "last": last,
        "best_kept": run.best,
        "loss": "loss, nats" if run.nats else "loss",
        "when": f"epoch {run.best}" if run.best else "the last epoch",
        "dropout": run.config.network != run.config.model,
        "epochs": [_epoch(row) for row in run.history],
        "charts": [
            chart(
                measured(metric, run.nats),
                lambda axis, m=metric: plots.draw_history(axis, m, run.history, published),
                share=is_share(metric),
            )
            for metric in ("loss", "accuracy")
        ],
        "final": [
            _row("training", run.train_images, result["loss"], result["accuracy"], DASH),
            _row(validation, run.val_images, result["val_loss"], result["val_accuracy"], spans[0]),
            _row("test", n, run.tested.loss, run.tested.accuracy, spans[1]),
        ],
    }


def _epoch(row: Mapping[str, float]) -> list[str]:
    metrics = (percent(row[m]) if is_share(m) else number(row[m]) for m in METRICS)
    return [f"{row['epoch']:.0f}", *metrics, number(row["seconds"], 1)]


def _row(split: str, n: int, loss: float, accuracy: float, span: str) -> list[str]:
    return [split, f"{n:,}", number(loss), percent(accuracy), span]


def confusions(run: Run) -> dict[str, Any]:
    """The confused pairs, their images, and the confusion matrix of the test images."""
    predictions, classes = Predictions.of(run.tested.logits[None]), run.class_names
    n, many = len(run.test.labels), len(run.class_names) > MANY
    pairs = confused_pairs(run.test.labels, predictions, len(classes))
    question = run.config.dataset == "mnist"  # readers of the second tutorial ask for 3 and 5
    return {
        "n": n,
        "sentence": pair_sentence(pairs, 3, 5, n) if question else "",
        "wrong": n - _right(run),
        "images": run.test.images,
        "pairs": worst_pairs(predictions, run.test, IMAGES, len(classes)),
        "matrix": None if many else _shaded(confusion(run.test.labels, run.tested.logits)),
        "most": _most(pairs, classes) if many else [],
        "classes": classes,
        "obstacle": obstacle(run),
    }


def _most(pairs: Sequence[Pair], classes: Sequence[str]) -> list[list[object]]:
    """Return the most confused pairs as rows: names, images, and of these in each direction."""
    counts = [(pair, *pair.counts[0].tolist()) for pair in pairs[:MANY] if pair.counts.any()]
    return [[f"{classes[pair.a]} and {classes[pair.b]}", a + b, a, b] for pair, a, b in counts]


def _shaded(counts: Int[np.ndarray, "classes classes"]) -> list[list[tuple[int, str]]]:
    """Return counts as rows of (count, shade): 0 to 4 for errors, else "right"."""
    most = max(int((counts - np.diag(np.diag(counts))).max()), 1)
    return [
        [(int(n), "right" if row == column else str(-(-4 * int(n) // most))) for column, n in enumerate(of)]
        for row, of in enumerate(counts)
    ]


def record(run: Run) -> list[dict[str, Any]]:
    """The configuration, and the lines of result.json that say where and how the run was done."""
    config = without_defaults(asdict(run.config))
    if run.result is None:
        return [config, {"result.json": "missing: the run is not finished"}]
    names = "device", "host", "python", "versions", "seconds", "data"
    return [config, {name: run.result[name] for name in names if run.result.get(name) is not None}]


def compared(runs: Sequence[Run]) -> dict[str, Any]:
    """Runs side by side: what differs in their settings, learning curves, test metrics, means over seeds."""
    settings = [_settings(run) for run in runs]
    differ = [name for name, value in settings[0].items() if any(of[name] != value for of in settings)]
    rows = [
        [
            run.name,
            *(of[name] for name in differ),
            number(run.tested.loss),
            percent(run.tested.accuracy),
            _wilson(_right(run), len(run.test.labels)),
        ]
        for run, of in zip(runs, settings, strict=True)
    ]
    tested = measured("test_loss", all(run.nats for run in runs)).lower(), "test accuracy", "95% interval"
    return {
        "charts": [_chart_of_runs(runs, "val_loss"), _chart_of_runs(runs, "val_accuracy")],
        "differ": enumerated(name.replace("_", " ") for name in differ) if differ else "",
        "heads": ["run", *(name.replace("_", " ") for name in differ), *tested],
        "rows": rows,
        "seeds": _over_seeds(runs),
    }


def _settings(run: Run) -> dict[str, str]:
    """Return the settings of a run as text, with the epochs that it has done."""
    config = asdict(run.config) | {"dataset": dataset(run.config.dataset), "epochs": len(run.history)}
    if run.config.network == run.config.model:  # it has no dropout
        config["dropout_rate"] = DASH
    return {name: flat(value) for name, value in config.items()}


def _chart_of_runs(runs: Sequence[Run], metric: str) -> Chart:
    def draw(axis: Axes) -> None:
        for i, run in enumerate(runs):
            epochs, values = zip(*((row["epoch"], row[metric]) for row in run.history), strict=True)
            axis.plot(epochs, values, label=run.name, **line_style(i), markersize=4)
        epoch_axis(axis, [row["epoch"] for run in runs for row in run.history])
        if metric == "val_loss":
            axis.set_ylim(bottom=0)

    return chart(measured(metric, all(run.nats for run in runs)), draw, share=is_share(metric))


def _over_seeds(runs: Sequence[Run]) -> list[list[object]]:
    """Return mean test accuracies of runs that differ in nothing but the seed, if there are several."""

    def but_for_seed(run: Run) -> str:
        return str({**asdict(run.config), "seed": None, "epochs": len(run.history)})

    rows: list[list[object]] = []
    for _, group in groupby(sorted(runs, key=but_for_seed), key=but_for_seed):
        members = list({run.config.seed: run for run in group}.values())
        if len(members) < 2:
            continue
        values = 100 * np.array([run.tested.accuracy for run in members], float)
        mean, half, _ = (float(v) for v in t_interval(values))
        spread = f"{mean:.2f} ± {values.std(ddof=1):.2f}%"
        span = f"{interval(max(0, mean - half), min(100, mean + half), 2)}%"
        rows.append([members[0].config.network, len(members), spread, span])
    return rows


def _right(run: Run) -> int:
    return int(np.sum(run.tested.logits.argmax(axis=1) == run.test.labels))


def _wilson(right: int, n: int) -> str:
    low, high = wilson_interval(right, n)
    return f"{interval(100 * low, 100 * high, 2)}%"
