"""What a report says of an experiment."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any

import numpy as np

from cnnjax.experiment.results import METRICS, Predictions, values_of
from cnnjax.report import spread
from cnnjax.report.html import mistakes
from cnnjax.report.html.charts import Estimate, Line, chart, forest, key
from cnnjax.report.html.markup import Markup, facts, join, picture, table, tag
from cnnjax.report.html.subjects import CLASSES, Experiment, Finding, Reproduced
from cnnjax.report.html.words import digits_for, interval, number, title
from cnnjax.stats import summarise
from cnnjax.stats.intervals import t_interval

FINAL = {"val_accuracy": 100.0, "val_loss": 1.0, "test_accuracy": 100.0, "test_loss": 1.0}
CURVES = {"val_loss": "Validation loss", "val_accuracy": "Validation accuracy"}


def lead(experiment: Experiment) -> Markup:
    """What it was and what may be concluded."""
    if not experiment.finished:
        told = (
            "Not finished: it has left no summary.json. What is below comes from the seeds that are complete."
        )
        return tag("p", told, class_="lead")
    protocols = [told for place, told in experiment.sentences.items() if place[-1] == "protocol"]
    return join(_told(experiment, (), "lead"), *(tag("p", told, class_="note") for told in protocols))


def findings(experiment: Experiment) -> Markup:
    """Tables with intervals: every comparison of the summary, or of what there is so far."""
    known = experiment.findings if experiment.finished else list(_so_far(experiment))
    parts: list[Markup] = []
    for place, group in groupby(known, key=lambda finding: finding.place[:-1]):
        parts += [tag("h3", " · ".join(place)), _told(experiment, place)] if place else []
        for finding in group:
            parts += [_finding(finding), _told(experiment, finding.place)]
    for place, group in groupby(experiment.reproduced, key=lambda one: one.place[:-1]):
        parts.append(_reproduced(" · ".join(place), list(group)))
    questions = [(place, told) for place, told in experiment.sentences.items() if "answers" in place]
    for where, group in groupby(questions, key=lambda question: question[0][:-2]):
        asked = [tag("div", tag("dt", place[-1]), tag("dd", told)) for place, told in group]
        heading = " · ".join(("What readers asked", *where))
        parts += [tag("h3", heading), tag("dl", *asked, class_="answers")]
    return join(*parts)


def curves(experiment: Experiment) -> Markup | None:
    """Means over seeds with their 95% t intervals, and the last epoch as a table; None without rows."""
    if not experiment.rows:
        return None
    parts: list[Markup] = []
    for group, arms in _groups(experiment).items():
        metrics = {name: told for name, told in CURVES.items() if _measured(experiment, arms, name)}
        if not metrics:
            continue
        lines = {metric: _lines(experiment, arms, group, metric) for metric in metrics}
        charts = (chart(lines[m], told, from_zero="loss" in m) for m, told in metrics.items())
        parts += [
            *([tag("h3", group)] if group else []),
            key(next(iter(lines.values()))),
            tag("div", *charts, class_="pair-of-charts"),
            _final(experiment, arms, group),
        ]
    if not parts:
        return None
    note = (
        "Lines are means over seeds, bands their 95% t intervals; a seed that has not finished is left out."
    )
    return join(tag("p", note), *parts)


def confused(experiment: Experiment) -> Markup | None:
    """The pairs that the networks of the first arm confuse most; None without predictions."""
    if experiment.test is None:
        return None
    classes = CLASSES[str(experiment.protocol.get("dataset", "mnist"))]
    parts: list[Markup] = []
    for group, arms in _groups(experiment).items():
        said: dict[str, Predictions] = {
            _short(arm, group): experiment.predictions[arm] for arm in arms if arm in experiment.predictions
        }
        if said:
            first = next(iter(said))
            told = f"The images are those that the networks of “{first}” mistake."
            parts += [tag("h3", group)] if group else []
            parts += [
                tag("p", told),
                mistakes.pairs(said[first], experiment.test, classes),
                mistakes.by_arm(said, experiment.test, classes),
            ]
    return join(*parts)


def figures(experiment: Experiment) -> Markup | None:
    """The figures that it drew itself, but those that are above already; None without any."""
    drawn = {f"{metric}.png" for metric in CURVES} if experiment.rows else set()
    left = {
        name: content
        for name, content in experiment.figures.items()
        if name not in drawn and not (experiment.predictions and name.endswith("confused.png"))
    }
    shown = [
        tag("figure", picture(content, title(name.removesuffix(".png"))), tag("figcaption", name))
        for name, content in left.items()
    ]
    return tag("div", *shown, class_="figures") if shown else None


def record(experiment: Experiment) -> Markup:
    """protocol.json, a line an entry."""

    def flat(value: Any) -> str:
        if isinstance(value, dict):
            return ", ".join(f"{name} {flat(inner)}" for name, inner in value.items())
        # A module's repr has a line for each field, after a comment.
        lines = [line.strip() for line in str(value).splitlines() if not line.strip().startswith("#")]
        return ", ".join(lines).replace("(, ", "(").replace(", )", ")")

    return facts({name.replace("_", " "): flat(value) for name, value in experiment.protocol.items()})


def _told(experiment: Experiment, place: tuple[str, ...], class_: str | None = None) -> Markup:
    """What the summary concludes at this place, if anything."""
    told = experiment.sentences.get((*place, "conclusion"))
    return Markup() if told is None else tag("p", told, class_=class_)


def _finding(finding: Finding) -> Markup:
    name = finding.place[-1] if finding.place else ""
    points = "accuracy" in name or name.startswith("lost_at")
    scale, unit = (100.0, "points") if points else (1.0, "")
    contrasts = {c["arm"]: c for c in finding.contrasts}
    ends = [c[bound] for c in finding.contrasts for bound in ("difference", "low", "high")]
    digits = 2 if points else max(digits_for(ends), digits_for(arm["sd"] for arm in finding.arms))
    reference = finding.arms[0]["name"] if finding.arms else ""

    def scaled(value: float | None) -> float | None:
        return None if value is None else scale * value

    def told(c: Mapping[str, Any]) -> str:
        span = interval(scaled(c["low"]), scaled(c["high"]), digits, sign=True)
        return f"{number(scaled(c['difference']), digits, sign=True)} [{span}]"

    heads = ["arm", "seeds", "mean ± sd", f"difference to {reference} [95% interval]", "p", "p, corrected"]
    rows: list[list[object]] = []
    for arm in finding.arms:
        mean = f"{number(scaled(arm['mean']), digits)} ± {number(scaled(arm['sd']), digits)}"
        gone = f" ({arm['diverged']} diverged)" if arm.get("diverged") else ""
        contrast = contrasts.get(arm["name"])
        rows.append(
            [
                arm["name"],
                f"{arm['n']}{gone}",
                mean + ("%" if points else ""),
                *(
                    ["reference", "", ""]
                    if contrast is None
                    else [told(contrast), number(contrast["p"], 3), number(contrast["p_holm"], 3)]
                ),
            ]
        )
    estimates = [
        Estimate(c["arm"], scaled(c["difference"]), scaled(c["low"]), scaled(c["high"]), told(c))
        for c in finding.contrasts
    ]
    what = title(name)
    drawn = forest(estimates, f"{what}: difference to {reference}{', ' + unit if unit else ''}")
    return tag("div", table(heads, rows, what, "cards"), drawn if estimates else None, class_="finding")


def _reproduced(group: str, records: Sequence[Reproduced]) -> Markup:
    heads = ["measure", "published", "ours, mean ± sd", "runs", "95% interval of one more run", "within"]
    rows: list[list[object]] = []
    for place, r in records:
        digits = digits_for([r["sd"]])
        within = {True: "yes", False: "no"}.get(r["within"], "")
        span = interval(r["low"], r["high"], digits)
        mean = f"{number(r['mean'], digits)} ± {number(r['sd'], digits)}"
        rows.append([place[-1], number(r["published"], 4), mean, r["n"], span, within])
    return table(heads, rows, group, "cards")


def _so_far(experiment: Experiment) -> Iterator[Finding]:
    """Comparisons of the seeds that every arm of a group has finished."""
    for group, arms in _groups(experiment).items():
        for metric in CURVES:
            values = _values(experiment, arms, metric)[:, :, -1]
            values = values[:, np.isfinite(values).all(axis=0)]
            if values.shape[1]:
                names = [_short(arm, group) for arm in arms]
                found = summarise(values, names, higher_is_better="loss" not in metric).as_dict()
                place = (group, metric) if group else (metric,)
                yield Finding(place, found["arms"], found["contrasts"])


def _groups(experiment: Experiment) -> dict[str, list[str]]:
    """Arms by what their names say before a comma, where all have one: networks, of which each has arms."""
    arms = list(dict.fromkeys(arm for arm, _, _ in experiment.rows))
    if not all(", " in arm for arm in arms):
        return {"": arms}
    groups: dict[str, list[str]] = {}
    for arm in arms:
        groups.setdefault(arm.split(", ")[0], []).append(arm)
    order = {finding["name"]: i for one in experiment.findings for i, finding in enumerate(one.arms)}
    return {
        name: sorted(of, key=lambda arm: order.get(_short(arm, name), len(order)))
        for name, of in groups.items()
    }


def _short(arm: str, group: str) -> str:
    return arm.removeprefix(f"{group}, ") if group else arm


def _values(experiment: Experiment, arms: Sequence[str], metric: str) -> np.ndarray:
    """float[arms, seeds, epochs]."""
    cells = [cell for cell in experiment.rows if cell[0] in arms]
    seeds, epochs = sorted({seed for _, seed, _ in cells}), max(epoch for _, _, epoch in cells)
    return values_of(experiment.rows, metric, arms, seeds, epochs)


def _measured(experiment: Experiment, arms: Sequence[str], metric: str) -> bool:
    return bool(np.isfinite(_values(experiment, arms, metric)).any())


def _lines(experiment: Experiment, arms: Sequence[str], group: str, metric: str) -> list[Line]:
    lines = []
    for i, (arm, every) in enumerate(zip(arms, _values(experiment, arms, metric), strict=True)):
        epochs = np.flatnonzero(np.isfinite(every).any(axis=0))
        values = every[:, : epochs[-1] + 1] if len(epochs) else every[:, :0]
        values = values[np.isfinite(values).all(axis=1)]
        if not len(values):
            continue
        mean, half, _ = t_interval(values, axis=0)
        name = f"{_short(arm, group)} (n = {len(values)})"
        x = np.arange(1, values.shape[1] + 1)
        # Of few seeds an interval may reach beyond what there is.
        most = 1.0 if "accuracy" in metric else np.inf
        band = np.clip((mean - half, mean + half), 0.0, most) if len(values) > 1 else ((), ())
        lines.append(Line(name, x, mean, i, False, *band))
    return lines


def _final(experiment: Experiment, arms: Sequence[str], group: str) -> Markup:
    shown = {m: s for m, s in FINAL.items() if m in METRICS and _measured(experiment, arms, m)}
    heads = ["arm", *(title(m) + (", %" if scale > 1 else "") for m, scale in shown.items())]
    rows: list[list[object]] = []
    for arm in arms:
        last = [scale * _values(experiment, [arm], m)[0, :, -1] for m, scale in shown.items()]
        told = [spread(v, 2 if s > 1 else 4) for v, s in zip(last, shown.values(), strict=True)]
        rows.append([_short(arm, group), *told])
    return table(heads, rows, "At the last epoch: mean ± sd over seeds", "cards")
