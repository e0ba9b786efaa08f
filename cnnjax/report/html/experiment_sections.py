"""The sections of a report on an experiment, as data for the templates."""

from collections.abc import Iterator, Mapping
from itertools import groupby
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes

from cnnjax import plots
from cnnjax.experiment.rows import values_of
from cnnjax.plots.style import is_share
from cnnjax.report.html import words
from cnnjax.report.html.charts import Chart, chart
from cnnjax.report.html.encoding import png_uri
from cnnjax.report.html.records import Record
from cnnjax.report.html.run_sections import IMAGES
from cnnjax.report.html.subjects import Experiment
from cnnjax.report.html.words import DASH, digits_for, interval, measured, number
from cnnjax.report.tables import confusion_table, converged, spread, worst_pairs
from cnnjax.shapes import Float
from cnnjax.stats import summarise
from cnnjax.stats.crossed import Crossed
from cnnjax.stats.sentences import interval_name

FINAL = ("val_accuracy", "val_loss", "test_accuracy", "test_loss")
CURVES = ("val_loss", "val_accuracy")


def lead(experiment: Experiment) -> dict[str, Any]:
    """The conclusion, the hypotheses and the protocols."""
    sentences = experiment.sentences.items()
    return {
        "finished": experiment.finished,
        "conclusions": [text for keys, text in sentences if keys == ("conclusion",)]
        + [": ".join((*keys[:-1], text)) for keys, text in sentences if keys[-1] == "answer"],
        "hypotheses": experiment.hypotheses,
        "protocols": [text for keys, text in sentences if keys[-1] == "protocol"],
    }


def results(experiment: Experiment) -> dict[str, Any]:
    """Every comparison of summary.json, or of the finished seeds, with tables and intervals."""
    comparisons = experiment.comparisons if experiment.finished else _so_far(experiment)
    reproductions = groupby(experiment.reproductions, key=lambda record: record[0][:-1])
    nats = experiment.nats
    return {
        "comparisons": [_comparison(*record, nats) for record in comparisons],
        "reproductions": [
            (keys, [_reproduction(*one, nats) for one in group]) for keys, group in reproductions
        ],
        "crossed": [_crossed(*record) for record in experiment.crossed],
        "answers": [(keys, text) for keys, text in experiment.sentences.items() if "answers" in keys],
    }


def curves(experiment: Experiment) -> list[dict[str, Any]]:
    """Learning curves and the metrics of the last epoch, for each group of arms."""
    groups = []
    for group in _groups(experiment):
        if group.curves:
            charts = [_curve(group, metric, experiment.nats) for metric in group.curves]
            heads, rows = _final(group, experiment.nats)
            groups.append({"name": group.name, "charts": charts, "heads": heads, "rows": rows})
    return groups


def confusions(experiment: Experiment) -> list[dict[str, Any]]:
    """The pairs that the networks of the first arm confuse most, for each group of arms."""
    groups, test = [], experiment.test
    for group in _groups(experiment):
        of = {short: experiment.predictions.get(arm) for short, arm in group.arms.items()}
        predictions = converged({short: stored for short, stored in of.items() if stored is not None})
        if predictions and test is not None:
            classes = experiment.class_names
            first, of_first = next(iter(predictions.items()))
            pairs = worst_pairs(of_first, test, IMAGES, len(classes))
            heads, rows = confusion_table(predictions, test, classes)
            groups.append({"name": group.name, "first": first, "pairs": pairs, "heads": heads, "rows": rows})
            groups[-1] |= {"images": test.images, "classes": classes}
    return groups


def figures(experiment: Experiment) -> list[tuple[str, str, str]]:
    """Title, data URI and file name of each figure in the directory that the page does not show already."""
    shown = {f"{metric}.png" for metric in CURVES} if experiment.rows else set()
    return [
        (words.title(name.removesuffix(".png")), png_uri(content), name)
        for name, content in experiment.figures.items()
        if name not in shown and not (experiment.test is not None and name.endswith("confused.png"))
    ]


def record(experiment: Experiment) -> list[dict[str, Any]]:
    """The protocol, and where and when the summary was made."""
    given = (
        {k: v for k, v in of.items() if v not in ({}, [], None)}
        for of in (experiment.protocol, experiment.origin)
    )
    return [pairs for pairs in given if pairs]


def _crossed(keys: tuple[str, ...], record: Mapping[str, Any]) -> dict[str, Any]:
    rows = []
    for arm, c in record.items():
        mean, low, high, seeds, images = (None if c[k] is None else 100 * c[k] for k in Crossed._fields)
        difference = f"{number(mean, 2, sign=True)} [{interval(low, high, 2, sign=True)}]"
        rows.append([arm, difference, number(seeds, 2), number(images, 2)])
    return {"keys": keys[:-1], "rows": rows}


def _comparison(keys: tuple[str, ...], record: Mapping[str, Any], nats: bool) -> dict[str, Any]:
    name, arms, contrasts = keys[-1] if keys else "", record["arms"], record["contrasts"]
    metric = record.get("metric") or name
    share = is_share(metric)
    fields = ("difference", "low", "high", "test_low", "test_high")
    bounds = np.array([[c.get(k) for k in fields] for c in contrasts], float)
    bounds = (100.0 if share else 1.0) * bounds.reshape(-1, len(fields))
    digits = 2 if share else digits_for(bounds[:, 2] - bounds[:, 1])
    reference = next((c["reference"] for c in contrasts if "reference" in c), arms[0]["name"] if arms else "")
    tests, tips = {}, []
    for c, (mean, low, high, test_low, test_high) in zip(contrasts, bounds, strict=True):
        described = interval(low, high, digits, sign=True)
        tested = interval(test_low, test_high, digits, sign=True)
        difference = number(mean, digits, sign=True) + f" [{described}]" * (described != DASH)
        p = (number(c[k], 3) if c.get("can_claim", True) else "too few seeds" for k in ("p", "p_holm"))
        tests[c["arm"]] = [difference, *p, tested]
        tips.append((mean, len(tips), f"{c['arm']}: {difference}"))
    names = [arm["name"] for arm in arms]
    others = [c for c in contrasts if c["arm"] not in names]
    blank = ["" if others else "reference", "", "", ""]
    rows = [
        [
            arm["name"],
            f"{arm['n']}" + (f" ({arm['diverged']} diverged)" if arm.get("diverged") else ""),
            _mean(arm, 2 if share else digits_for(arm["sd"] for arm in arms), 100.0 if share else 1.0),
            *tests.get(arm["name"], blank),
        ]
        for arm in arms
    ] + [[c["arm"], f"{c.get('n', '')}", "", *tests[c["arm"]]] for c in others]
    named = measured(metric, nats)
    title = named if metric == name else f"{words.title(name)} · {named}"
    section = {"keys": keys, "title": title, "reference": reference, "rows": rows, "charts": []}
    # Those of earlier versions were bootstrap intervals.
    described = interval_name(contrasts) if all("family" in c for c in contrasts) else "95% interval"
    section |= {"interval": described, "unit": ", in points" * share}
    if contrasts:
        difference, low, high, test_low, test_high = bounds.T
        lines = max(label.count("\n") + 1 for label in plots.row_labels(list(tests)))
        unit = section["unit"] or ", in nats" * (nats and "loss" in metric)
        drawn = chart(
            f"{words.title(metric)}: difference to “{reference}”{unit}",
            lambda axis: plots.draw_differences(
                axis, list(tests), difference, (low, high), (test_low, test_high)
            ),
            height=0.45 + (0.25 + 0.2 * lines) * len(contrasts),
            description="; ".join(text for *_, text in tips),
            tips=tips,
        )
        section["charts"].append(drawn)
    return section


def _reproduction(keys: tuple[str, ...], record: Mapping[str, Any], nats: bool) -> list[object]:
    share = is_share(keys[-1])
    digits, scale = (2, 100.0) if share else (digits_for([record["sd"]]), 1.0)
    published, low, high = (
        None if record[k] is None else scale * record[k] for k in ("published", "low", "high")
    )
    within = {True: "yes", False: "no"}.get(record["within"], "")
    ours = _mean(record, digits, scale)
    return [
        measured(keys[-1], nats),
        number(published, digits),
        ours,
        record["n"],
        interval(low, high, digits),
        within,
    ]


def _mean(record: Mapping[str, Any], digits: int, scale: float = 1.0) -> str:
    mean, sd = (None if record[key] is None else scale * record[key] for key in ("mean", "sd"))
    return f"{number(mean, digits)} ± {number(sd, digits)}"


class Group(NamedTuple):
    """Arms that are shown together, with the metrics that have a value; all arms have the group's seeds."""

    name: str
    arms: dict[str, str]  # the name within the group -> the name in results.csv
    values: dict[str, Float[np.ndarray, "arms seeds epochs"]]  # NaN where there is no row

    @property
    def curves(self) -> list[str]:
        """The metrics to draw over epochs."""
        return [metric for metric in CURVES if metric in self.values]


def _groups(experiment: Experiment) -> list[Group]:
    """Group arms by network: the part of their names before a comma, or "" if a name has no comma."""
    arms = list(dict.fromkeys(arm for arm, _, _ in experiment.rows))
    named = all(", " in arm for arm in arms)
    order = {arm["name"]: i for _, record in experiment.comparisons for i, arm in enumerate(record["arms"])}
    groups = []
    for name in dict.fromkeys(arm.split(", ")[0] if named else "" for arm in arms):
        within = f"{name}, " if named else ""
        of = {arm.removeprefix(within): arm for arm in arms if arm.startswith(within)}
        of = dict(sorted(of.items(), key=lambda pair: order.get(pair[0], len(order))))
        cells = [cell for cell in experiment.rows if cell[0] in of.values()]
        seeds, epochs = sorted({seed for _, seed, _ in cells}), max(epoch for _, _, epoch in cells)
        values = {m: values_of(experiment.rows, m, list(of.values()), seeds, epochs) for m in FINAL}
        groups.append(Group(name, of, {m: table for m, table in values.items() if np.isfinite(table).any()}))
    return groups


def _so_far(experiment: Experiment) -> Iterator[Record]:
    """Compare the arms of each group on the seeds that all of them have finished."""
    for group in _groups(experiment):
        for metric in group.curves:
            values = group.values[metric][:, :, -1]
            values = values[:, np.isfinite(values).all(axis=0)]
            if values.shape[1]:
                summary = summarise(values, list(group.arms), higher_is_better="loss" not in metric)
                yield ((group.name, metric) if group.name else (metric,)), summary.as_dict()


def _curve(group: Group, metric: str, nats: bool) -> Chart:
    values = group.values[metric]

    def draw(axis: Axes) -> None:
        # The interval of a few seeds may go beyond the values that are possible.
        limits = (0, 1 if is_share(metric) else np.inf)
        plots.draw_bands(axis, np.arange(1, values.shape[2] + 1), values, list(group.arms), limits=limits)
        if "loss" in metric:
            axis.set_ylim(bottom=0)

    return chart(measured(metric, nats), draw, share=is_share(metric))


def _final(group: Group, nats: bool) -> tuple[list[str], list[list[str]]]:
    metrics = [metric for metric in FINAL if metric in group.values]
    heads = ["arm", *(measured(metric, nats) for metric in metrics)]
    last = [group.values[metric][:, :, -1] for metric in metrics]
    last = [(100 * v, 2) if is_share(m) else (v, 4) for m, v in zip(metrics, last, strict=True)]
    rows = [[arm, *(spread(v[i], digits) for v, digits in last)] for i, arm in enumerate(group.arms)]
    return heads, rows
