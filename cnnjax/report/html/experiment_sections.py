"""The sections of a report on an experiment, as data for the templates."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from cnnjax import plots
from cnnjax.experiment.results import METRICS, values_of
from cnnjax.report import spread
from cnnjax.report.html import mistakes
from cnnjax.report.html.charts import Chart, chart
from cnnjax.report.html.encoding import png_uri
from cnnjax.report.html.subjects import CLASSES, Comparison, Experiment, Reproduction
from cnnjax.report.html.words import digits_for, flat, interval, number, title
from cnnjax.stats import summarise

FINAL = {"val_accuracy": 100.0, "val_loss": 1.0, "test_accuracy": 100.0, "test_loss": 1.0}
CURVES = ("val_loss", "val_accuracy")


def lead(experiment: Experiment) -> dict[str, Any]:
    """The conclusion and the protocol."""
    return {
        "finished": experiment.finished,
        "conclusion": experiment.sentences.get(("conclusion",), ""),
        "protocols": [text for keys, text in experiment.sentences.items() if keys[-1] == "protocol"],
    }


def results(experiment: Experiment) -> dict[str, Any]:
    """Every comparison of summary.json, or of the seeds so far, with tables and intervals."""
    comparisons = experiment.comparisons if experiment.finished else list(_so_far(experiment))
    answers = [(keys, text) for keys, text in experiment.sentences.items() if "answers" in keys]

    def conclusion(keys: tuple[str, ...]) -> str:
        return experiment.sentences.get((*keys, "conclusion"), "")

    return {
        "comparisons": [
            {
                "heading": " · ".join(keys),
                "conclusion": conclusion(keys) if keys else "",
                "items": [_comparison(item) | {"conclusion": conclusion(item.keys)} for item in group],
            }
            for keys, group in groupby(comparisons, key=lambda item: item.keys[:-1])
        ],
        "reproductions": [
            (" · ".join(keys), [_reproduction(item) for item in group])
            for keys, group in groupby(experiment.reproductions, key=lambda item: item.keys[:-1])
        ],
        "answers": [
            (" · ".join(("Readers' questions", *where)), [(keys[-1], text) for keys, text in group])
            for where, group in groupby(answers, key=lambda answer: answer[0][:-2])
        ],
    }


def curves(experiment: Experiment) -> list[dict[str, Any]]:
    """Learning curves and the metrics of the last epoch, for each group of arms."""
    groups = []
    for group, arms in _groups(experiment).items():
        metrics = [metric for metric in CURVES if _measured(experiment, arms, metric)]
        if metrics:
            charts = [_curve(experiment, arms, group, metric) for metric in metrics]
            heads, rows = _final(experiment, arms, group)
            groups.append({"name": group, "charts": charts, "heads": heads, "rows": rows})
    return groups


def confusions(experiment: Experiment) -> list[dict[str, Any]]:
    """The pairs that the networks of the first arm confuse most, for each group of arms."""
    groups = []
    test = experiment.test
    for group, arms in _groups(experiment).items():
        stored = [arm for arm in arms if arm in experiment.predictions]
        predictions = {_short(arm, group): experiment.predictions[arm] for arm in stored}
        if predictions and test is not None:
            classes = CLASSES[str(experiment.protocol.get("dataset", "mnist"))]
            first = next(iter(predictions))
            heads, rows = mistakes.by_arm(predictions, test, classes)
            pairs = mistakes.pairs(predictions[first], test, classes)
            groups.append({"name": group, "first": first, "pairs": pairs, "heads": heads, "rows": rows})
    return groups


def figures(experiment: Experiment) -> list[tuple[str, str, str]]:
    """Title, data URI and file name of each figure in the directory that the page does not show already."""
    shown = {f"{metric}.png" for metric in CURVES} if experiment.rows else set()
    return [
        (title(name.removesuffix(".png")), png_uri(content), name)
        for name, content in experiment.figures.items()
        if name not in shown and not (experiment.predictions and name.endswith("confused.png"))
    ]


def record(experiment: Experiment) -> dict[str, Any]:
    """The entries of protocol.json."""
    return {"lists": [{name.replace("_", " "): flat(v) for name, v in experiment.protocol.items()}]}


def _comparison(comparison: Comparison) -> dict[str, Any]:
    name = comparison.keys[-1] if comparison.keys else ""
    points = "accuracy" in name or name.startswith("lost_at")
    scale, percent_sign = (100.0, "%") if points else (1.0, "")
    contrasts = {c["arm"]: c for c in comparison.contrasts}
    ends = [c[bound] for c in comparison.contrasts for bound in ("difference", "low", "high")]
    digits = 2 if points else max(digits_for(ends), digits_for(arm["sd"] for arm in comparison.arms))
    reference = comparison.arms[0]["name"] if comparison.arms else ""

    def scaled(value: float | None) -> float | None:
        return None if value is None else scale * value

    def difference(c: Mapping[str, Any]) -> str:
        span = interval(scaled(c["low"]), scaled(c["high"]), digits, sign=True)
        return f"{number(scaled(c['difference']), digits, sign=True)} [{span}]"

    rows = []
    for arm in comparison.arms:
        c = contrasts.get(arm["name"])
        rows.append(
            [
                arm["name"],
                f"{arm['n']}" + (f" ({arm['diverged']} diverged)" if arm.get("diverged") else ""),
                f"{number(scaled(arm['mean']), digits)} ± {number(scaled(arm['sd']), digits)}{percent_sign}",
                *(
                    ["reference", "", ""]
                    if c is None
                    else [difference(c), number(c["p"], 3), number(c["p_holm"], 3)]
                ),
            ]
        )
    names = [c["arm"] for c in comparison.contrasts]
    columns = [[scaled(c[bound]) for c in comparison.contrasts] for bound in ("difference", "low", "high")]
    drawn = chart(
        f"{title(name)}: difference to {reference}{', points' if points else ''}",
        lambda axis: plots.draw_differences(axis, names, *(np.array(column, float) for column in columns)),
        height=0.45 + 0.45 * len(names),
        description="; ".join(f"{c['arm']}: {difference(c)}" for c in comparison.contrasts),
    )
    return {"title": title(name), "reference": reference, "rows": rows, "charts": [drawn] if names else []}


def _reproduction(reproduction: Reproduction) -> list[object]:
    r = reproduction.record
    digits = digits_for([r["sd"]])
    return [
        reproduction.keys[-1],
        number(r["published"], 4),
        f"{number(r['mean'], digits)} ± {number(r['sd'], digits)}",
        r["n"],
        interval(r["low"], r["high"], digits),
        {True: "yes", False: "no"}.get(r["within"], ""),
    ]


def _so_far(experiment: Experiment) -> Iterator[Comparison]:
    """Compare the arms of each group on the seeds that all of them have finished."""
    for group, arms in _groups(experiment).items():
        for metric in CURVES:
            values = _values(experiment, arms, metric)[:, :, -1]
            values = values[:, np.isfinite(values).all(axis=0)]
            if values.shape[1]:
                names = [_short(arm, group) for arm in arms]
                summary = summarise(values, names, higher_is_better="loss" not in metric).as_dict()
                keys = (group, metric) if group else (metric,)
                yield Comparison(keys, summary["arms"], summary["contrasts"])


def _groups(experiment: Experiment) -> dict[str, list[str]]:
    """Group arms by their network, which their names give before a comma; if one has none, all are a group."""
    arms = list(dict.fromkeys(arm for arm, _, _ in experiment.rows))
    if not arms:
        return {}
    if not all(", " in arm for arm in arms):
        return {"": arms}
    groups: dict[str, list[str]] = {}
    for arm in arms:
        groups.setdefault(arm.split(", ")[0], []).append(arm)
    order = {arm["name"]: i for comparison in experiment.comparisons for i, arm in enumerate(comparison.arms)}
    return {
        name: sorted(of, key=lambda arm: order.get(_short(arm, name), len(order)))
        for name, of in groups.items()
    }


def _short(arm: str, group: str) -> str:
    return arm.removeprefix(f"{group}, ") if group else arm


def _values(experiment: Experiment, arms: Sequence[str], metric: str) -> np.ndarray:
    """Return float[arms, seeds, epochs], NaN where there is no row."""
    cells = [cell for cell in experiment.rows if cell[0] in arms]
    seeds, epochs = sorted({seed for _, seed, _ in cells}), max(epoch for _, _, epoch in cells)
    return values_of(experiment.rows, metric, arms, seeds, epochs)


def _measured(experiment: Experiment, arms: Sequence[str], metric: str) -> bool:
    return bool(np.isfinite(_values(experiment, arms, metric)).any())


def _curve(experiment: Experiment, arms: Sequence[str], group: str, metric: str) -> Chart:
    values, names = _values(experiment, arms, metric), [_short(arm, group) for arm in arms]

    def draw(axis: Axes) -> None:
        # The interval of a few seeds may go beyond the values that are possible.
        limits = (0, 1 if "accuracy" in metric else np.inf)
        plots.draw_bands(axis, np.arange(1, values.shape[2] + 1), values, names, limits=limits)
        if "loss" in metric:
            axis.set_ylim(bottom=0)

    return chart(title(metric), draw)


def _final(experiment: Experiment, arms: Sequence[str], group: str) -> tuple[list[str], list[list[str]]]:
    metrics = [m for m in FINAL if m in METRICS and _measured(experiment, arms, m)]
    heads = ["arm", *(title(m) + (", %" if FINAL[m] > 1 else "") for m in metrics)]
    rows = []
    for arm in arms:
        last = {m: FINAL[m] * _values(experiment, [arm], m)[0, :, -1] for m in metrics}
        rows.append([_short(arm, group), *(spread(v, 2 if FINAL[m] > 1 else 4) for m, v in last.items())])
    return heads, rows
