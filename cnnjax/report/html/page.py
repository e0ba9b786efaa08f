"""The page: its sections in order, rendered by the templates into one self-contained file."""

import base64
import hashlib
from collections.abc import Sequence
from importlib import resources
from typing import Any, NamedTuple

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from cnnjax import __version__
from cnnjax.data.loading import MEMORY, is_identity
from cnnjax.report.html import experiment_sections, run_sections, words
from cnnjax.report.html.encoding import picture
from cnnjax.report.html.network import obstacle, playable
from cnnjax.report.html.run_sections import MANY
from cnnjax.report.html.subjects import Experiment, Run

SCRIPTS = ("network", "strokes", "dropout", "page", "pad", "inside", "masks", "start")
ICON = (
    "data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 7 7' fill='%230067a8'%3E"
    "%3Cpath d='M1 1h5v1H5v1H4v3H3V3h1V2H1z'/%3E%3C/svg%3E"
)
"""A seven of few pixels."""
TEMPLATES = Environment(
    loader=PackageLoader("cnnjax.report.html"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
TEMPLATES.policies["json.dumps_kwargs"] = {"allow_nan": False, "separators": (",", ":")}
TEMPLATES.filters |= {
    f.__name__: f
    for f in (words.number, words.percent, words.several, words.flat, words.dataset, words.size, picture)
}
TEMPLATES.globals["DATASETS"] = words.DATASETS


class Section(NamedTuple):
    """A section of the page: a template and its data; `about` names the subject if there are several."""

    id: str
    heading: str
    template: str
    data: Any = None
    about: str = ""
    interactive: bool = False  # of no use on paper


def page(subjects: Sequence[Run | Experiment]) -> str:
    """Return the HTML of a report on one or more runs and experiments."""
    runs = [subject for subject in subjects if isinstance(subject, Run)]
    playing = [run for run in runs if not obstacle(run)]
    alone = subjects[0] if len(subjects) == 1 else None
    sections = _sections(subjects, runs, playing)
    script = "\n\n".join(_asset(f"{name}.js") for name in SCRIPTS) if playing else ""
    style = "\n".join(_asset(f"{name}.css") for name in ["style", *["play"] * bool(playing)])
    return TEMPLATES.get_template("page.html").render(
        policy=f"default-src 'none'; img-src data:; style-src {_hash(style)}; script-src {_hash(script)}",
        icon=Markup(ICON),  # it has nothing to escape
        title=_title(alone) if alone else f"{len(subjects)} {_kinds(len(runs), len(subjects))}",
        kind=_kind(alone) if alone else "report",
        lead=_lead(alone) if alone else None,
        sections=sections,
        links={about: [s for s in sections if s.about == about] for about in (s.about for s in sections)},
        version=__version__,
        data={"networks": [playable(run) for run in playing]} if playing else None,
        style=Markup(style),
        script=Markup(script),
    )


def _sections(
    subjects: Sequence[Run | Experiment], runs: Sequence[Run], playing: Sequence[Run]
) -> list[Section]:
    several = len(subjects) > 1

    def of(i: int, parts: list[Section]) -> list[Section]:
        if not several:
            return parts
        return [part._replace(id=f"s{i}-{part.id}", about=subjects[i].name) for part in parts]

    sections: list[Section] = []
    if len(runs) > 1:
        sections.append(Section("runs", "Side by side", "compared.html", run_sections.compared(runs)))
    if playing:
        sections += _interactive(playing)
    for i, subject in enumerate(subjects):
        sections += of(i, _run(subject) if isinstance(subject, Run) else _experiment(subject, several))
    return sections


def _interactive(playing: Sequence[Run]) -> list[Section]:
    nouns = {words.NOUNS.get(run.config.dataset, "") for run in playing}
    heading = f"Draw a {noun}" if len(nouns) == 1 and (noun := nouns.pop()) else "Draw something"
    many = any(len(run.class_names) > MANY for run in playing)
    data = {"names": [run.name for run in playing], "many": many}
    return [
        Section("draw", heading, "draw.html", data, interactive=True),
        Section("inside", "Inside the network", "inside.html", interactive=True),
        Section("dropout", "Dropout by hand", "dropout.html", interactive=True),
    ]


def _run(run: Run) -> list[Section]:
    return [
        Section("training", "Training", "training.html", run_sections.training(run)),
        Section("mistakes", "What it gets wrong", "run_mistakes.html", run_sections.confusions(run)),
        Section("record", "Settings and provenance", "record.html", run_sections.record(run)),
    ]


def _experiment(experiment: Experiment, several: bool) -> list[Section]:
    results = experiment_sections.results(experiment) | {"lead": _lead(experiment) if several else None}
    data = results | {"sentences": experiment.sentences} if any(results.values()) else None
    curves, figures = experiment_sections.curves(experiment), experiment_sections.figures(experiment)
    mistakes = experiment_sections.confusions(experiment)
    parts = [
        Section("results", "Results", "results.html", data),
        Section("curves", "Learning curves", "curves.html", curves),
        Section("mistakes", "What the networks get wrong", "experiment_mistakes.html", mistakes),
        Section("mistakes", "What the networks get wrong", "in_memory.html", _in_memory(experiment)),
        Section("figures", "Figures", "figures.html", figures),
        Section("record", "Settings and provenance", "record.html", experiment_sections.record(experiment)),
    ]
    return [part for part in parts if part.data]


def _in_memory(experiment: Experiment) -> dict[str, Any] | None:
    """Return the name of a data set whose images are missing, and whether a figure shows some; else None."""
    if not experiment.predictions or experiment.test is not None:
        return None
    drawn = any(name.endswith("confused.png") for name in experiment.figures)
    named = is_identity(experiment.dataset) and not experiment.dataset.startswith(MEMORY)
    return {"name": experiment.dataset.removeprefix(MEMORY), "named": named, "drawn": drawn}


def _kinds(runs: int, subjects: int) -> str:
    """Name what several subjects are."""
    return {0: "experiments", subjects: "runs"}.get(runs, "runs and experiments")


def _title(subject: Run | Experiment) -> str:
    if isinstance(subject, Experiment):
        return subject.name.replace("_", " ")
    return f"{subject.config.model} on {words.dataset(subject.config.dataset)}"


def _kind(subject: Run | Experiment) -> str:
    if isinstance(subject, Experiment):
        return "experiment"
    rate = subject.config.network.removeprefix(subject.config.model)
    return f"run {subject.name}{rate}, seed {subject.config.seed}"


def _lead(subject: Run | Experiment) -> tuple[str, dict[str, Any]]:
    """Return the template of a subject's first paragraph, and its data."""
    if isinstance(subject, Run):
        return "run_lead.html", run_sections.lead(subject)
    return "experiment_lead.html", experiment_sections.lead(subject)


def _asset(name: str) -> str:
    return (resources.files("cnnjax.report.html") / name).read_text(encoding="utf-8").strip()


def _hash(content: str) -> str:
    """Return the source expression by which a content security policy allows this script or style."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()}'"
