"""The figure of dropout masks and their keys: a pure function from arrays to a matplotlib Figure."""

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from cnnjax.plots import Axes, Figure
from cnnjax.plots.style import DPI, write_around
from cnnjax.shapes import Floats

Bools = npt.NDArray[np.bool_]
COLUMNS = 64
"""Elements of each example that are drawn."""
KEPT, DROPPED, PATH, SIBLING = "#0072B2", "#F2F2F2", "#D55E00", "#5A5A5A"


class Level(NamedTuple):
    """One level of a key tree: the children of the level above's chosen node, each a name and its words.

    `chosen` is the index of the node whose children come next; None at the leaves, all of which are used.
    """

    derivation: str
    nodes: Sequence[tuple[str, str]]
    chosen: int | None


def masks_and_keys(
    masks: Mapping[str, Bools],
    devices: Mapping[str, int],
    tree: Sequence[Level],
    *,
    title: str = "",
    caption: str = "",
) -> Figure:
    """Draw masks bool[batch, elements] of one batch side by side, and the tree of their keys below.

    Horizontal lines separate the parts that different devices drew.
    """
    figure = Figure(figsize=(8, 8.6), dpi=DPI, layout="constrained")
    grid = figure.add_gridspec(2, len(masks), height_ratios=(4.4, 5.8))
    for i, (name, mask) in enumerate(masks.items()):
        axis = figure.add_subplot(grid[0, i])
        rows = len(mask)
        shades = np.where(mask[:, :COLUMNS, None], _rgb(KEPT), _rgb(DROPPED))
        axis.imshow(shades, aspect="auto", interpolation="nearest", extent=(0, COLUMNS, rows, 0))
        part = rows // devices[name]
        for device in range(devices[name]):
            if device:
                axis.axhline(device * part, color=PATH, linewidth=1.4)
            axis.text(
                COLUMNS + 1, (device + 0.5) * part, f"dev. {device}", va="center", fontsize=7, color=PATH
            )
        axis.set_title(textwrap.fill(name, 26), fontsize=9)
        axis.set(xlabel=f"element (first {COLUMNS} of {mask.shape[1]:,})")
        if not i:
            axis.set(ylabel="example")
    _tree(figure.add_subplot(grid[1, :]), tree)
    write_around(figure, title, caption)
    return figure


def _tree(axis: Axes, tree: Sequence[Level]) -> None:
    """Draw the levels below each other, with lines from each chosen node to its children."""
    axis.axis("off")
    axis.set(xlim=(0, 1), ylim=(len(tree) - 0.4, -0.5))
    parent: float | None = None
    for depth, level in enumerate(tree):
        xs = 0.24 + 0.76 * (np.arange(len(level.nodes)) + 0.5) / len(level.nodes)
        axis.text(0, depth, level.derivation, va="center", fontsize=8)
        for i, (x, (name, words)) in enumerate(zip(xs, level.nodes, strict=True)):
            on = level.chosen in (i, None)
            colour = "black" if on else SIBLING
            if parent is not None:
                axis.plot(
                    (parent, x),
                    (depth - 0.74, depth - 0.27),
                    color=PATH if on else SIBLING,
                    linewidth=2 if on else 0.9,
                    linestyle="-" if on else ":",
                )
            box: dict[str, Any] = {
                "boxstyle": "round,pad=0.35",
                "facecolor": "white",
                "edgecolor": PATH if on else SIBLING,
                "linewidth": 1.8 if on else 0.8,
            }
            axis.text(
                x,
                depth,
                f"{name}\n{words}",
                ha="center",
                va="center",
                family="monospace",
                fontsize=7,
                color=colour,
                bbox=box,
            )
        parent = float(xs[level.chosen or 0])


def _rgb(colour: str) -> Floats:
    return np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
