"""Comparisons of the benchmark: ratios within rounds, the table and the chart."""

import textwrap
from collections.abc import Iterable, Mapping, Sequence
from statistics import median
from typing import NamedTuple

from ceilings.measurements import Ceilings
from rich.table import Table

from cnnjax.plots import Axes, Figure, style
from cnnjax.report import console

from .calibration import is_quiet
from .entries import peer_of
from .protocol import Settings
from .results import BASE
from .worker import ACCURACY_EPOCH, Row

HATCHES = ("", "//", "..", "xx")


class Line(NamedTuple):
    """The fastest entry of a peer in a setting; ratios are to cnnjax in the same round.

    The unit is the launch: a value of a launch is the median of its rounds.
    """

    peer: str
    entry: str
    launches: int  # with rounds that count
    rounds: int  # that count: the quiet ones, or all if none was quiet
    quiet: bool
    seconds: float  # median over launches
    ratio: float  # median over launches, as are the least and the greatest
    least: float
    greatest: float
    slow_seconds: float | None  # median of the other rounds, if not all count
    of_ceiling: float | None  # least seconds of an epoch / seconds, if its operations are counted
    peak_rss_mb: float
    startup_seconds: float
    val_accuracy: float  # after ACCURACY_EPOCH epochs


def compare(rows: Iterable[Row], best: Ceilings, least_seconds: float | None = None) -> list[Line]:
    """Compare the peers in one setting, each by its fastest entry; the fastest peer comes first.

    Args:
        rows: of the setting.
        best: the machine's best rates, which tell quiet rounds from slow ones.
        least_seconds: of an epoch, at these rates.
    """
    entries: dict[str, dict[tuple[int, int], Row]] = {}
    for row in rows:
        entries.setdefault(row.entry, {})[row.launch, row.round] = row
    timed = {turn: row for turn, row in entries[BASE].items() if turn[1] > 0}
    quiet = {turn for turn, row in timed.items() if is_quiet(row, best)}
    counted = quiet or set(timed)
    launches = {launch for launch, _ in counted}

    def medians(values: Mapping[tuple[int, int], float]) -> list[float]:
        """Return the median of each launch."""
        return [median(value for turn, value in values.items() if turn[0] == launch) for launch in launches]

    lines: dict[str, Line] = {}
    for name, epochs in entries.items():
        ratios = medians({turn: epochs[turn].seconds / timed[turn].seconds for turn in counted})
        seconds = median(medians({turn: epochs[turn].seconds for turn in counted}))
        slow = [epochs[turn].seconds for turn in set(timed) - counted]
        line = Line(
            peer=peer_of(name),
            entry=name,
            launches=len(launches),
            rounds=len(counted),
            quiet=bool(quiet),
            seconds=seconds,
            ratio=median(ratios),
            least=min(ratios),
            greatest=max(ratios),
            slow_seconds=median(slow) if slow else None,
            of_ceiling=None if least_seconds is None else least_seconds / seconds,
            peak_rss_mb=max(row.peak_rss_mb for row in epochs.values()),
            startup_seconds=median(row.startup_seconds for turn, row in epochs.items() if turn[1] == 0),
            val_accuracy=median(
                row.val_accuracy for turn, row in epochs.items() if turn[1] == ACCURACY_EPOCH - 1
            ),
        )
        if line.peer not in lines or line.seconds < lines[line.peer].seconds:
            lines[line.peer] = line
    return sorted(lines.values(), key=lambda line: line.seconds)


def _mode(validate: bool) -> str:
    return "training + validation" if validate else "training"


def _tick(setting: Settings) -> str:
    each = f"\n{setting.members} networks" if setting.members > 1 else ""
    return f"batch {setting.batch_size}\nrate {setting.rate:g}{each}"


def describe(setting: Settings) -> str:
    """Describe a setting in words."""
    each = f", each of {setting.members} networks" if setting.members > 1 else ""
    return (
        f"{setting.model}, batch {setting.batch_size}, rate {setting.rate:g}, {_mode(setting.validate)}{each}"
    )


def print_table(comparisons: Mapping[Settings, Sequence[Line]]) -> None:
    """Print the peers of every setting, the fastest first; an asterisk marks times of no quiet round."""
    heads = ("s per epoch", "slow rounds", "ratio to cnnjax", "min to max", "of the ceiling")
    heads += ("peak MB", "start + epoch 1, s")
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
                f"{line.seconds:.2f}" + "*" * (not line.quiet),
                "" if line.slow_seconds is None else f"{line.slow_seconds:.2f}",
                f"{line.ratio:.2f}",
                f"{line.least:.2f} to {line.greatest:.2f}",
                "" if line.of_ceiling is None else f"{line.of_ceiling:.0%}",
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
        ticks = [_tick(setting) for setting in settings]
        axis.set_xticks(range(len(settings)), ticks, fontsize=8)
        axis.set_title(f"{model}, {_mode(validate)}", fontsize=10)
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
