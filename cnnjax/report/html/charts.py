"""Charts of the page: matplotlib figures as plain SVG, in colours that follow the light or dark style."""

import io
import re
from collections.abc import Callable, Sequence
from typing import NamedTuple
from xml.etree import ElementTree

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.transforms import Transform

from cnnjax.plots import style
from cnnjax.report.html.words import percent

PALETTE = {colour.lower(): f"var(--c{i})" for i, colour in enumerate(style.COLOURS[:6])} | {
    "#000000": "var(--ink)",
    "#dddddd": "var(--line)",
    style.GREY: "var(--soft)",
}
DASHES = {"-": None, "--": "5 2", "-.": "6 2 1 2", ":": "1 2"}


Tip = tuple[float, float, str]
"""A point of a chart, and the text that is shown when the mouse is on it."""


class Chart(NamedTuple):
    """One set of axes, ready for the chart macro."""

    title: str
    description: str
    size: tuple[float, float]
    shapes: list[tuple[str, dict[str, str], str]]  # tag, attributes, text
    tips: list[Tip]
    legend: list[tuple[str, dict[str, str | None]]]  # name, attributes of its line


def chart(
    title: str,
    draw: Callable[[Axes], None],
    *,
    share: bool = False,
    height: float = 3.1,
    description: str = "",
    tips: Sequence[Tip] = (),
) -> Chart:
    """Draw a chart as wide as a phone's screen; its title replaces the label of the y axis.

    Args:
        title: what is on the y axis.
        draw: draws into the axes.
        share: the values are fractions, shown in percent.
        height: in inches of 72 CSS pixels.
        description: for screen readers; by default the last value of each line.
        tips: in the coordinates of the axes; by default one for each point of each line.
    """
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "cnnjax", "font.size": 12}):
        figure, (axis,) = style.frame(5, height, "", "")
        draw(axis)
        axis.tick_params(length=0)
        if share:
            axis.yaxis.set_major_formatter(style.percent_formatter(""))
        buffer = io.BytesIO()
        figure.savefig(buffer, format="svg", transparent=True)
        to_figure = axis.transData - figure.transFigure
    root = ElementTree.fromstring(buffer.getvalue())
    lines, ends, points = [], [], []
    for line in axis.get_lines():
        name = str(line.get_label())
        if name.startswith("_"):  # matplotlib's mark of a line that the legend omits
            continue
        colour, dash = PALETTE[str(line.get_color()).lower()], DASHES[str(line.get_linestyle())]
        lines.append((name, {"stroke": colour, "stroke-dasharray": dash}))
        drawn = np.asarray(line.get_xydata(), float)
        texts = [percent(y) if share else f"{y:.4g}" for _, y in drawn]
        points += [(x, y, f"{name}, epoch {x:g}: {text}") for (x, y), text in zip(drawn, texts, strict=True)]
        known = [text for (_, y), text in zip(drawn, texts, strict=True) if np.isfinite(y)]
        ends += [f"{name}, at the end {known[-1]}"] if known else []
    size = 72 * 5, 72 * height
    described = f"{title}: {description or '; '.join(ends)}"
    return Chart(title, described, size, _shapes(root), _placed(to_figure, tips or points, size), lines)


def _placed(to_figure: Transform, tips: Sequence[Tip], size: tuple[float, float]) -> list[Tip]:
    """Convert the coordinates of tips to those of the SVG; drop what is not finite."""
    placed = []
    for x, y, text in tips:
        left, bottom = to_figure.transform((x, y))
        if np.isfinite([left, bottom]).all():
            placed.append((round(size[0] * left, 1), round(size[1] * (1 - bottom), 1), text))
    return placed


def _shapes(root: ElementTree.Element) -> list[tuple[str, dict[str, str], str]]:
    """Return what an SVG of matplotlib draws, without groups, clip paths and identifiers.

    Nothing is lost: its groups transform nothing, and our charts clip nothing.
    """
    svg, link = "{http://www.w3.org/2000/svg}", "{http://www.w3.org/1999/xlink}href"
    symbols = {node.get("id"): node.get("d", "") for node in root.iter(f"{svg}path") if node.get("id")}
    shapes = []
    for node in root.iter():
        tag = node.tag.removeprefix(svg)
        drawn = tag in ("use", "text") or (tag == "path" and node.get("d"))
        if not drawn or node.get("id"):
            continue
        pairs = (pair.split(": ", 1) for pair in node.get("style", "").split("; ") if pair)
        attributes = {name: PALETTE.get(value, value) for name, value in pairs if "font" not in name}
        if attributes == {"fill": "none"}:
            continue
        if tag == "use":
            attributes["d"] = symbols[node.get(link, "")[1:]]
            attributes["transform"] = f"translate({node.get('x')} {node.get('y')})"
        else:
            attributes |= {name: value for name in ("d", "x", "y") if (value := node.get(name))}
            if tag == "text" and "rotate(-0" not in (transform := node.get("transform", "")):
                attributes["transform"] = transform
        for name in attributes.keys() & {"d", "x", "y", "transform"}:
            short = re.sub(r"\d+\.\d+", lambda match: f"{float(match[0]):.1f}", attributes[name])
            attributes[name] = " ".join(short.split())
        shapes.append(("text" if tag == "text" else "path", attributes, (node.text or "").strip()))
    return shapes
