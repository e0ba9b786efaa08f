"""Results of the benchmark: rows on disk, ratios, the table and the chart."""

import csv
import math
import textwrap
from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import product
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from rich.table import Table

from cnnjax import files
from cnnjax.errors import UserError
from cnnjax.plots import Axes, Figure, style
from cnnjax.report import console

from .protocol import Settings
from .worker import ACCURACY_EPOCH, Row

BASE = "cnnjax"
HATCHES = ("", "//", "..", "xx")

# results.csv ------------------------------------------------------------------------------------------------


def write_rows(path: Path, rows: Iterable[Row]) -> None:
    """Write results.csv with all digits."""
    cells = (["" if cell != cell else cell for cell in row] for row in rows)
    files.write_csv(path, Row._fields, cells)


def read_rows(path: Path) -> list[Row]:
    """Read results.csv; a missing file has no rows.

    Raises:
        UserError: the file is damaged.
    """
    try:
        with path.open(newline="") as file:
            return [
                Row(*(_READERS[kind](cells[name]) for name, kind in Row.__annotations__.items()))
                for cells in csv.DictReader(file)
            ]
    except FileNotFoundError:
        return []
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path} is damaged ({error!r}); delete it, or choose another --out") from None


_READERS: dict[type, Any] = {
    str: str,
    int: int,
    float: lambda cell: float(cell or math.nan),
    bool: {"True": True, "False": False}.__getitem__,
}


def grouped(rows: Iterable[Row]) -> dict[Settings, list[Row]]:
    """Group rows by setting."""
    groups: dict[Settings, list[Row]] = {}
    for row in rows:
        groups.setdefault(row.setting, []).append(row)
    return groups


def finished(rows: Iterable[Row], entries: Collection[str], rounds: int) -> bool:
    """Return whether the rows of a setting have all entries, with round 0 and at least `rounds` more."""
    return {(row.entry, row.round) for row in rows} >= set(product(entries, range(rounds + 1)))


# Statistics -------------------------------------------------------------------------------------------------


class Line(NamedTuple):
    """The fastest entry of a peer in a setting; ratios are to cnnjax in the same round."""

    peer: str
    entry: str
    rounds: int
    seconds: float  # median over rounds
    ratio: float  # median
    least: float
    greatest: float
    peak_rss_mb: float
    startup_seconds: float
    val_accuracy: float  # after ACCURACY_EPOCH epochs


def peer_of(entry: str) -> str:
    """Return the peer of an entry; PyTorch has one entry per number of threads."""
    return "torch" if entry.startswith("torch-") else entry


def compare(rows: Iterable[Row]) -> list[Line]:
    """Compare the peers in one setting, each by its fastest entry; the fastest peer comes first."""
    entries: dict[str, dict[int, Row]] = {}
    for row in rows:
        entries.setdefault(row.entry, {})[row.round] = row
    lines: dict[str, Line] = {}
    for name, epochs in entries.items():
        counted = [number for number in epochs if number > 0]
        ratios = [epochs[number].seconds / entries[BASE][number].seconds for number in counted]
        line = Line(
            peer=peer_of(name),
            entry=name,
            rounds=len(counted),
            seconds=median(epochs[number].seconds for number in counted),
            ratio=median(ratios),
            least=min(ratios),
            greatest=max(ratios),
            peak_rss_mb=max(row.peak_rss_mb for row in epochs.values()),
            startup_seconds=epochs[0].startup_seconds,
            val_accuracy=epochs[ACCURACY_EPOCH - 1].val_accuracy,
        )
        if line.peer not in lines or line.seconds < lines[line.peer].seconds:
            lines[line.peer] = line
    return sorted(lines.values(), key=lambda line: line.seconds)


# Table and chart --------------------------------------------------------------------------------------------


def describe(setting: Settings) -> str:
    """Describe a setting in words."""
    mode = "training + validation" if setting.validate else "training"
    return f"{setting.model}, batch {setting.batch_size}, rate {setting.rate:g}, {mode}"


def print_table(comparisons: Mapping[Settings, Sequence[Line]]) -> None:
    """Print the peers of every setting, the fastest first."""
    heads = ("s per epoch", "ratio to cnnjax", "min to max", "peak MB", "start + epoch 1, s")
    table = Table("setting", "peer", *heads, f"val accuracy % after {ACCURACY_EPOCH}")
    for column in table.columns[2:]:
        column.justify = "right"
    for setting, lines in comparisons.items():
        # In two rows, because one would make the table too wide.
        words = describe(setting).rsplit(", ", 1) if len(lines) > 1 else [describe(setting)]
        for i, line in enumerate(lines):
            table.add_row(
                words[i] if i < len(words) else "",
                line.entry.replace("torch-", "torch, threads: "),
                f"{line.seconds:.2f}",
                f"{line.ratio:.2f}",
                f"{line.least:.2f} to {line.greatest:.2f}",
                f"{line.peak_rss_mb:,.0f}",
                f"{line.startup_seconds:.1f}",
                f"{100 * line.val_accuracy:.2f}",
                end_section=i == len(lines) - 1,
            )
    console().print(table)


def chart(comparisons: Mapping[Settings, Sequence[Line]], caption: str) -> Figure:
    """Draw each peer's median ratio to cnnjax as a bar, with whiskers from minimum to maximum."""
    panels = sorted({(setting.model, setting.validate) for setting in comparisons})
    peers = sorted({line.peer for lines in comparisons.values() for line in lines} - {BASE})
    columns = min(2, len(panels))
    rows = -(-len(panels) // columns)
    inches = 7.0 if columns == 1 else 12.5
    figure = Figure(figsize=(inches, 1 + 3.3 * rows), dpi=style.DPI, layout="constrained")
    axes: list[Axes] = list(figure.subplots(rows, columns, squeeze=False, sharey=True).flat)
    for axis, (model, validate) in zip(axes, panels, strict=False):
        settings = sorted(s for s in comparisons if (s.model, s.validate) == (model, validate))
        _bars(axis, [comparisons[setting] for setting in settings], peers)
        ticks = [f"batch {setting.batch_size}\nrate {setting.rate:g}" for setting in settings]
        axis.set_xticks(range(len(settings)), ticks, fontsize=8)
        axis.set_title(describe(settings[0]).replace(ticks[0].replace("\n", ", ") + ", ", ""), fontsize=10)
    for axis in axes[len(panels) :]:
        axis.set_visible(False)
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=len(labels), fontsize=9, frameon=False)
    figure.supylabel("seconds per epoch, relative to cnnjax", fontsize=10)
    figure.supxlabel(textwrap.fill(caption, int(15 * inches)), fontsize=8.5, color="#444444")
    return figure


def _bars(axis: Axes, groups: Sequence[Sequence[Line]], peers: Sequence[str]) -> None:
    """Draw a group of bars for each setting; the line at 1 is cnnjax."""
    width = 0.8 / max(len(peers), 1)
    for i, peer in enumerate(peers):
        bars = [(x, line) for x, lines in enumerate(groups) for line in lines if line.peer == peer]
        centres = [x + (i - (len(peers) - 1) / 2) * width for x, _ in bars]
        axis.bar(
            centres,
            [line.ratio for _, line in bars],
            width,
            yerr=[
                [line.ratio - line.least for _, line in bars],
                [line.greatest - line.ratio for _, line in bars],
            ],
            error_kw={"elinewidth": 1, "capsize": 2},
            color=style.COLOURS[i],
            edgecolor="white",
            hatch=HATCHES[i],
            label=peer,
        )
        for x, (_, line) in zip(centres, bars, strict=True):
            above = {"textcoords": "offset points", "ha": "center", "fontsize": 7}
            axis.annotate(f"{line.ratio:.1f}", (x, line.greatest), (0, 2), **above)
    axis.axhline(1, color="black", linewidth=1.2, label=BASE)
    axis.set_xlim(-0.6, len(groups) - 0.4)
    axis.grid(axis="y", color="#DDDDDD", linewidth=0.6)
    axis.set_axisbelow(True)
    axis.spines[["top", "right"]].set_visible(False)
