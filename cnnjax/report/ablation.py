"""The outcome of an ablation: its table in every format, its figures, and the files it leaves."""

import html
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np

from cnnjax.data import Dataset
from cnnjax.errors import ArgumentError, UserError
from cnnjax.experiment.results import Results
from cnnjax.files import write_json
from cnnjax.files.misspelt import choose
from cnnjax.plots import Figure
from cnnjax.plots.arms import final_by_arm, generalisation_gap, metric_bands
from cnnjax.report import tables
from cnnjax.report.crossed import crossed_record
from cnnjax.report.terminal import print_table, say
from cnnjax.stats import Summary, summarise
from cnnjax.stats.families import ALPHA

IMAGES = {"val_": "validation ", "train_": "training ", "test_": "test "}
LATEX = {character: f"\\{character}" for character in "&%$#_{}"} | {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "±": r"$\pm$",
}


@dataclass(frozen=True, repr=False, eq=False)
class Ablation:
    """The results of an ablation, and what they say."""

    results: Results
    test: Dataset  # the images of `results.predictions`
    protocol: str  # one line, for captions
    primary: str | None = None  # this, `margin` and `alpha`: see `cnnjax.stats.summarise`
    margin: float | None = None  # a fraction
    alpha: float = ALPHA
    rehearsal: bool = False  # the protocol is too short to answer the question

    @cached_property
    def compared(self) -> Summary:
        """The statistics of the validation accuracy."""
        options = {"primary": self.primary, "margin": self.margin, "alpha": self.alpha}
        return summarise(self.results.final("val_accuracy"), self.results.arms, **options)

    @cached_property
    def summary(self) -> dict[str, Any]:
        """The content of summary.json: statistics, conclusion and confused classes."""
        record = tables.ablation_record(self.results, self.protocol, self.compared, rehearsal=self.rehearsal)
        confused = tables.confusion_record(self.results.predictions, self.test)
        over_images = crossed_record(self.results, self.test, rehearsal=record["rehearsal"])
        return record | over_images | confused

    @property
    def caption(self) -> str:
        """The protocol, after a warning where it cannot answer the question."""
        return tables.caption(self.protocol, self.compared, self.rehearsal)

    @property
    def conclusion(self) -> str:
        """A sentence about the differences in validation accuracy."""
        return self.summary["conclusion"]

    @cached_property
    def _cells(self) -> tuple[Sequence[str], list[list[str]]]:
        return tables.summary_table(self.results, self.compared, rehearsal=self.rehearsal)

    def table(self) -> None:
        """Print each arm's metrics after the last epoch, and its paired difference to the first arm."""
        print_table(*self._cells)

    def to_dataframe(self) -> Any:
        """Return a pandas DataFrame with a row for each arm, seed and epoch.

        Columns: arm, seed, epoch and the metrics of results.csv; NaN where one was not measured, or diverged.
        """
        try:
            import pandas as pd  # pyright: ignore[reportMissingImports, reportMissingModuleSource]
        except ImportError:
            raise UserError("to_dataframe needs pandas: pip install pandas") from None
        arms, seeds, epochs = self.results.arms, self.results.seeds, range(1, self.results.epochs + 1)
        columns = zip(("arm", "seed", "epoch"), np.meshgrid(arms, seeds, epochs, indexing="ij"), strict=True)
        table = {name: values.ravel() for name, values in [*columns, *self.results.values.items()]}
        return pd.DataFrame(table)

    def to_markdown(self) -> str:
        """Return the table in Markdown."""
        heads, rows = self._cells
        cells = [[re.sub(r"([\\`*_|<])", r"\\\1", cell) for cell in row] for row in (heads, *rows)]
        rule = ["---", *["--:"] * (len(heads) - 1)]
        return "\n".join(f"| {' | '.join(row)} |" for row in (cells[0], rule, *cells[1:]))

    def to_latex(self) -> str:
        r"""Return the table as a tabular in LaTeX, for \usepackage{booktabs}."""
        heads, rows = self._cells
        head, *body = [f"{' & '.join(map(_latex, row))} \\\\" for row in (heads, *rows)]
        lines = [f"\\begin{{tabular}}{{l{'r' * (len(heads) - 1)}}}", r"\toprule", head, r"\midrule"]
        return "\n".join([*lines, *body, r"\bottomrule", r"\end{tabular}"])

    def plot(self, metric: str = "val_accuracy") -> Figure:
        """Draw a column of results.csv: mean and 95% t interval of each arm over epochs.

        What was measured after the last epoch alone, such as test_accuracy, is drawn by arm.

        Raises:
            ArgumentError: there is no such metric.
        """
        values = self.results.values.get(metric)
        if values is None:
            raise ArgumentError(f"unknown metric {metric!r}{choose(metric, self.results.values)}")
        if self.results.epochs > 1 and np.isnan(values[:, :, :-1]).all():
            return self.plot_final(metric)
        epochs, label, lowest = np.arange(1, self.results.epochs + 1), _label(metric), "loss" in metric
        title = label.capitalize()
        draw = partial(metric_bands, title=title, caption=self.caption, mark_lowest=lowest)
        return draw(epochs, values, self.results.arms, label)

    def plot_final(self, metric: str = "val_accuracy") -> Figure:
        """Draw a column of results.csv after the last epoch: every seed, and the paired differences."""
        label, values = _label(metric), self.results.final(metric)
        summary = self.compared
        if metric != "val_accuracy":
            summary = summarise(values, self.results.arms, primary=self.primary, alpha=self.alpha)
        title = f"{label.capitalize()} at the last epoch"
        draw = partial(final_by_arm, title=title, caption=self.caption)
        return draw(values, self.results.arms, label, summary.contrasts)

    def write(self, out: Path, figures: Mapping[str, Callable[[], Figure]] | None = None) -> None:
        """Print the report; write summary.json, then the learning curves and `figures`, by file name."""
        results = self.results
        say(self.caption)
        self.table()
        say(self.conclusion)
        for name in ("pairing", "over_seeds_and_images"):
            if self.summary.get(name):
                say(self.summary[name])
        tables.print_confusions(results.predictions, self.test)
        write_json(out / "summary.json", self.summary)
        gap = partial(
            generalisation_gap,
            np.arange(1, results.epochs + 1),
            results.values["train_loss"],
            results.values["val_loss"],
            results.arms,
            title="Generalisation gap (losses measured without dropout)",
            caption=self.caption,
        )
        curves = {f"{metric}.png": partial(self.plot, metric) for metric in ("val_loss", "val_accuracy")}
        confused = tables.confusion_figure(results.predictions, self.test, self.caption)
        drawn = {**curves, "generalisation_gap.png": gap, **(figures or {}), **confused}
        tables.draw(out, drawn)
        say(f"table, summary and figures in {out}")

    def __repr__(self) -> str:
        return f"<Ablation of {', '.join(self.results.arms)}. {self.conclusion}>"

    def _repr_html_(self) -> str:
        heads, rows = self._cells
        head, *body = ["".join(f"<td>{html.escape(c)}</td>" for c in row) for row in (heads, *rows)]
        lines = "".join(f"<tr>{row}</tr>" for row in (head.replace("td>", "th>"), *body))
        return f"<table>{lines}</table><p>{html.escape(self.conclusion)}</p>"


def _label(metric: str) -> str:
    """Word a column of results.csv: "validation loss"."""
    prefix = next((prefix for prefix in IMAGES if metric.startswith(prefix)), None)
    if prefix is None:
        return metric.replace("_", " ") if "_" in metric else f"{metric} in training"
    return IMAGES[prefix] + metric.removeprefix(prefix)


def _latex(text: str) -> str:
    """Escape a cell; one that began with a bracket would give the row before it a distance."""
    signed = re.split(r"((?<![\w.])[+-](?=\d))", text)  # the signs of numbers, at odd places
    escaped = ("".join(LATEX.get(c, c) for c in part) for part in signed[::2])
    signs = (*(f"${sign}$" for sign in signed[1::2]), "")
    return "{}" * text.startswith("[") + "".join(map("".join, zip(escaped, signs, strict=True)))
