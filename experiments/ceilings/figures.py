"""The figure of `scaling.py`: a pure function from numbers to a matplotlib Figure."""

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from cnnjax.plots import Axes, Figure
from cnnjax.plots.style import COLOURS, GREY, LINES, MARKERS, frame

Line = tuple[Sequence[float], Sequence[float]]  # x, y


def scaling(
    batches: Sequence[int],
    seconds: npt.ArrayLike,
    lines: Mapping[str, Sequence[float]],
    devices: Mapping[str, Line],
    population: Line,
    alone: float,
    *,
    title: str = "",
    caption: str = "",
) -> Figure:
    """Draw step time over batch size, speed-up over devices, and time per network over population size.

    Args:
        batches: batch sizes.
        seconds: seconds a step, float[batches, rounds].
        lines: named lines beside the medians, in seconds for each batch size.
        devices: for each batch, speed-up over the number of devices.
        population: number of networks, and seconds per step and network.
        alone: seconds a step of one network that has the machine to itself.
        title: text above the figure.
        caption: text below the figure.
    """
    figure, (over_batch, over_devices, over_members) = frame(9, 4.1, title, caption, panels=3)
    table = 1e3 * np.asarray(seconds, float)
    low, median, high = np.percentile(table, (25, 50, 75), axis=-1)
    over_batch.errorbar(
        batches,
        median,
        yerr=(median - low, high - median),
        color=COLOURS[0],
        marker=MARKERS[0],
        markersize=5,
        capsize=3,
        linestyle="none",
        label=f"measured, median and quartiles (n={table.shape[-1]})",
        zorder=3,
    )
    for i, (name, values) in enumerate(lines.items()):
        over_batch.plot(
            batches, 1e3 * np.asarray(values), color=COLOURS[i], linestyle=LINES[i % len(LINES)], label=name
        )
    over_batch.set(xscale="log", yscale="log", xlabel="images in a batch", ylabel="ms per step")
    _ticks(over_batch, batches)
    for i, (name, (x, y)) in enumerate(devices.items()):
        over_devices.plot(x, y, color=COLOURS[i], marker=MARKERS[i], linestyle=LINES[i], label=name)
    most = max((max(x) for x, _ in devices.values()), default=1)
    over_devices.plot((1, most), (1, most), color=GREY, linewidth=1, label="ideal")
    over_devices.set(xlabel="devices", ylabel="speed-up")
    _ticks(over_devices, sorted({count for x, _ in devices.values() for count in x}))
    members, each = population
    over_members.plot(
        members, 1e3 * np.asarray(each), color=COLOURS[0], marker=MARKERS[0], label="in one program"
    )
    over_members.axhline(1e3 * alone, color=GREY, linewidth=1, label="alone")
    over_members.set(xscale="log", xlabel="networks", ylabel="ms per step and network")
    over_members.set_ylim(bottom=0)
    _ticks(over_members, members)
    for axis in figure.axes:
        axis.legend(fontsize=8, frameon=False, loc="upper left", bbox_to_anchor=(0, -0.3))
    return figure


def _ticks(axis: Axes, numbers: Sequence[float]) -> None:
    axis.set_xticks(list(numbers), [f"{number:g}" for number in numbers], rotation=45)
    axis.minorticks_off()
