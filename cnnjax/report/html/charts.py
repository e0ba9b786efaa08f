"""Charts as inline SVG, drawn with classes of the page's style sheet, so that they follow light and dark."""

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from cnnjax.report.html.markup import Markup, tag

WIDTH, HEIGHT = 360, 230
LEFT, RIGHT, TOP, BOTTOM = 46, 8, 10, 34
COLOURS = 6


class Line(NamedTuple):
    """A line, with a band where `low` and `high` are given; values that are not finite are left out."""

    name: str
    x: Sequence[float] | np.ndarray
    y: Sequence[float] | np.ndarray
    colour: int = 0  # a class of the style sheet; -1 is faint
    dashed: bool = False
    low: Sequence[float] | np.ndarray = ()
    high: Sequence[float] | np.ndarray = ()

    @property
    def style(self) -> str:
        """Its class names."""
        colour = "faint" if self.colour < 0 else f"c{self.colour % COLOURS}"
        return f"line {colour}{' dashed' if self.dashed or self.colour >= COLOURS else ''}"


class Estimate(NamedTuple):
    """A difference with its interval, for `forest`."""

    name: str
    value: float | None  # None is not defined
    low: float | None
    high: float | None
    told: str


def chart(lines: Sequence[Line], title: str, *, xlabel: str = "epoch", from_zero: bool = False) -> Markup:
    """Lines over a shared x, titled by what is on the y axis. Nothing finite gives an empty frame."""
    xs = _finite(v for line in lines for v in line.x)
    ys = _finite(v for line in lines for v in (*line.y, *line.low, *line.high))
    across = _Scale(xs or [0, 1], LEFT + 6, WIDTH - RIGHT - 6, tight=True)
    up = _Scale([*ys, *([0.0] if from_zero else [])] or [0, 1], HEIGHT - BOTTOM, TOP)
    parts: list[Markup] = []
    for tick in up.ticks:
        y = up(tick)
        parts.append(tag("path", d=f"M{LEFT} {y:.1f}H{WIDTH - RIGHT}", class_="grid"))
        parts.append(_text(up.told(tick), LEFT - 7, y + 4, "end"))
    for tick in across.ticks:
        if tick == int(tick):
            parts.append(_text(f"{tick:g}", across(tick), HEIGHT - BOTTOM + 17))
    parts.append(_text(xlabel, WIDTH - RIGHT, HEIGHT - 3, "end"))
    parts.append(tag("path", d=f"M{LEFT} {HEIGHT - BOTTOM}H{WIDTH - RIGHT}", class_="axis"))
    for line in lines:
        if len(line.low):
            there = np.isfinite(line.low) & np.isfinite(line.high)
            x, low, high = (np.asarray(values, float)[there] for values in (line.x, line.low, line.high))
            edge = [*zip(x, high, strict=True), *zip(x[::-1], low[::-1], strict=True)]
            d = "L".join(f"{across(a):.1f} {up(b):.1f}" for a, b in edge)
            if edge:
                parts.append(tag("path", d=f"M{d}Z", class_=f"band {line.style}"))
    for line in reversed(lines):
        points = [(across(a), up(b)) for a, b in zip(line.x, line.y, strict=True) if np.isfinite(b)]
        if len(points) == 1:
            parts.append(
                tag("circle", cx=f"{points[0][0]:.1f}", cy=f"{points[0][1]:.1f}", r=3, class_=line.style)
            )
        elif points:
            d = "L".join(f"{x:.1f} {y:.1f}" for x, y in points)
            parts.append(tag("path", d=f"M{d}", class_=line.style))
    return tag(
        "figure",
        tag("figcaption", title),
        tag("svg", *parts, viewBox=f"0 0 {WIDTH} {HEIGHT}", role="img", aria_label=_spoken(title, lines)),
        class_="chart",
    )


def key(lines: Sequence[Line]) -> Markup:
    """The legend of one or more charts."""
    swatch = [
        tag(
            "li",
            tag(
                "svg",
                tag("path", d="M1 6H25", class_=line.style),
                viewBox="0 0 26 12",
                width=26,
                height=12,
                aria_hidden="true",
            ),
            line.name,
        )
        for line in lines
    ]
    return tag("ul", *swatch, class_="key")


def forest(estimates: Sequence[Estimate], title: str) -> Markup:
    """Differences with their intervals around a line at zero; one row each, its name above it."""
    row, left, right = 38, 18, WIDTH - 18
    ends = _finite(v for e in estimates for v in (e.value, e.low, e.high) if v is not None)
    across = _Scale([0.0, *ends], left, right)
    bottom = row * len(estimates) + 8
    parts = []
    for tick in across.ticks:
        x = across(tick)
        parts.append(tag("path", d=f"M{x:.1f} 4V{bottom}", class_="axis" if tick == 0 else "grid"))
        parts.append(_text(across.told(tick), x, bottom + 16))
    for i, e in enumerate(estimates):
        y = row * i + 30
        parts.append(_text(e.name, 0, y - 12, "start", "name"))
        if e.low is not None and e.high is not None:
            parts.append(
                tag("path", d=f"M{across(e.low):.1f} {y}H{across(e.high):.1f}", class_="line c0 bar")
            )
        if e.value is not None:
            parts.append(tag("circle", cx=f"{across(e.value):.1f}", cy=y, r=4.5, class_="line c0 dot"))
    spoken = "; ".join(f"{e.name}: {e.told}" for e in estimates)
    return tag(
        "figure",
        tag("figcaption", title),
        tag("svg", *parts, viewBox=f"0 0 {WIDTH} {bottom + 22}", role="img", aria_label=f"{title}. {spoken}"),
        class_="chart forest",
    )


class _Scale:
    """From values to places, with round ticks; unless `tight`, its ends are ticks."""

    def __init__(self, values: Sequence[float], start: float, end: float, tight: bool = False) -> None:
        low, high = min(values), max(values)
        if high - low <= 1e-12 * max(abs(high), abs(low), 1e-300):
            pad = 0.5 if tight else max(abs(low) * 0.1, 1e-6)
            low, high = low - pad, high + pad
        self.step = _round_step((high - low) / 5)
        first, last = math.floor(low / self.step + 1e-9), math.ceil(high / self.step - 1e-9)
        if tight:
            first, last = math.ceil(low / self.step - 1e-9), math.floor(high / self.step + 1e-9)
        self.ticks = [i * self.step for i in range(first, last + 1)]
        self.low, self.high = (low, high) if tight else (self.ticks[0], self.ticks[-1])
        self.start, self.end = start, end

    def __call__(self, value: float) -> float:
        share = (value - self.low) / (self.high - self.low)
        return self.start + share * (self.end - self.start)

    def told(self, tick: float) -> str:
        digits = max(0, -math.floor(math.log10(self.step) + 1e-9))
        return f"{tick:.{digits}f}".replace("-", "\N{MINUS SIGN}") if digits < 7 else f"{tick:.1e}"


def _round_step(least: float) -> float:
    power = 10.0 ** math.floor(math.log10(least))
    return next(step * power for step in (1, 2, 5, 10) if step * power >= least * (1 - 1e-9))


def _finite(values: Iterable[float]) -> list[float]:
    return [float(v) for v in values if np.isfinite(v)]


def _text(told: str, x: float, y: float, anchor: str = "middle", class_: str | None = None) -> Markup:
    return tag("text", told, x=f"{x:.1f}", y=f"{y:.1f}", text_anchor=anchor, class_=class_)


def _spoken(title: str, lines: Sequence[Line]) -> str:
    """What a line chart says to those who do not see it: where each line ends."""
    ends = [(line.name, [y for y in line.y if np.isfinite(y)]) for line in lines]
    return f"{title}: " + "; ".join(f"{name}, at the end {y[-1]:.4g}" for name, y in ends if y)
