"""The page itself: sections in order, in one file that asks the network for nothing."""

import base64
import hashlib
import string
from collections.abc import Sequence
from importlib import resources
from typing import NamedTuple

from cnnjax import __version__
from cnnjax.report.html import experiment_sections, play, run_sections
from cnnjax.report.html.markup import Markup, data_block, join, tag
from cnnjax.report.html.subjects import Experiment, Run
from cnnjax.report.html.words import DATASETS

SCRIPTS = ("network", "strokes", "dropout", "page", "pad", "inside", "masks", "start")


class Section(NamedTuple):
    """A section of the page; `about` names its subject where there are several."""

    id: str
    heading: str
    content: Markup
    about: str = ""


def page(subjects: Sequence[Run | Experiment]) -> str:
    """The HTML of a report on one or more runs and experiments."""
    runs = [subject for subject in subjects if isinstance(subject, Run)]
    title = title_of(subjects[0]) if len(subjects) == 1 else f"{len(subjects)} runs and experiments"
    sections = list(_sections(subjects, runs))
    header = join(
        tag("p", "cnnjax · ", _kinds(subjects), class_="kind"),
        tag("h1", title),
        _lead(subjects[0]) if len(subjects) == 1 else None,
        tag("nav", *_links(sections), aria_label="Sections"),
    )
    script = "\n\n".join(_asset(f"{name}.js") for name in SCRIPTS) if runs else ""
    style = "\n".join(_asset(f"{name}.css") for name in (("style", "play") if runs else ("style",)))
    return string.Template(_asset("template.html")).substitute(
        policy=f"default-src 'none'; img-src data:; style-src {_hash(style)}; script-src {_hash(script)}",
        title=join(title),
        style=style,
        header=header,
        content=join(*map(_section, sections)),
        footer=tag("p", f"Written by cnnjax {__version__}. One file, which asks the network for nothing."),
        data=data_block({"networks": [play.data(run) for run in runs]}, id="report-data") if runs else "",
        script=tag("script", Markup(script)) if runs else "",
    )


def title_of(subject: Run | Experiment) -> str:
    """What a subject is called in a heading."""
    if isinstance(subject, Experiment):
        return subject.name.replace("_", " ")
    return f"{subject.config.model} on {DATASETS[subject.config.dataset]}"


def _sections(subjects: Sequence[Run | Experiment], runs: Sequence[Run]) -> list[Section]:
    sections: list[Section] = []
    several = len(subjects) > 1
    if len(runs) > 1:
        sections.append(Section("runs", "Side by side", run_sections.compared(runs)))
    if runs:
        sections.append(Section("draw", play.heading(runs), play.draw(runs)))
    for i, subject in enumerate(subjects):
        about, prefix = (subject.name, f"s{i}-") if several else ("", "")
        sections += (
            Section(prefix + part.id, part.heading, part.content, about)
            for part in (_run(subject) if isinstance(subject, Run) else _experiment(subject, several))
        )
    if runs:
        sections.append(Section("inside", "Inside the network", play.inside()))
        sections.append(Section("dropout", "Dropout, by hand", play.dropout()))
    for i, subject in enumerate(subjects):
        about, prefix = (subject.name, f"s{i}-") if several else ("", "")
        told = (
            run_sections.record(subject) if isinstance(subject, Run) else experiment_sections.record(subject)
        )
        sections.append(Section(prefix + "record", "The record", told, about))
    return sections


def _run(run: Run) -> list[Section]:
    return [
        Section("learned", "How it learned", run_sections.learned(run)),
        Section("mistakes", "What it mistakes", run_sections.confused(run)),
    ]


def _experiment(experiment: Experiment, several: bool) -> list[Section]:
    shown = join(_lead(experiment) if several else None, experiment_sections.findings(experiment))
    parts = [
        Section("findings", "What it shows", shown),
        Section("curves", "Over the epochs", experiment_sections.curves(experiment) or Markup()),
        Section("mistakes", "What is mistaken", experiment_sections.confused(experiment) or Markup()),
        Section("figures", "Figures", experiment_sections.figures(experiment) or Markup()),
    ]
    return [part for part in parts if part.content]


def _lead(subject: Run | Experiment) -> Markup:
    return run_sections.lead(subject) if isinstance(subject, Run) else experiment_sections.lead(subject)


def _kinds(subjects: Sequence[Run | Experiment]) -> str:
    if len(subjects) > 1:
        return "report"
    subject = subjects[0]
    if isinstance(subject, Experiment):
        return "experiment"
    return f"run {subject.name}, dropout rate {subject.config.dropout_rate:g}, seed {subject.config.seed}"


def _links(sections: Sequence[Section]) -> list[Markup]:
    """A list of links for what is common, and one for each subject."""
    lists = []
    for about in dict.fromkeys(part.about for part in sections):
        parts = [part for part in sections if part.about == about]
        links = (tag("li", tag("a", part.heading, href=f"#{part.id}")) for part in parts)
        lists.append(tag("ul", tag("li", about, class_="about") if about else None, *links))
    return lists


def _section(part: Section) -> Markup:
    heading = tag("h2", part.heading, *([" ", tag("small", part.about)] if part.about else []))
    return tag("section", heading, part.content, id=part.id)


def _asset(name: str) -> str:
    return (resources.files("cnnjax.report.html") / name).read_text(encoding="utf-8").strip()


def _hash(content: str) -> str:
    """How a content security policy names the one script or style that it allows."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()}'"
