"""Tables, paragraphs and provenance in Markdown."""

import re
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

WIDTH = 120
Record = Mapping[str, Any]
"""A summary.json."""


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Return a table in Markdown."""
    lines = [heads, ["---", *["--:"] * (len(heads) - 1)], *rows]
    return [f"| {' | '.join(line)} |" for line in lines]


def interval(low: float | None, high: float | None, digits: str = "+.2f") -> str:
    """Return an interval of fractions in brackets, in percent, or nothing if there is none."""
    return "" if low is None or high is None else f" [{100 * low:{digits}}, {100 * high:{digits}}]"


def around(mean: float, half: float | None, digits: str, unit: str = "") -> str:
    """Return a fraction in percent with an interval of this half width: "99.06 [99.03, 99.08]"."""
    ends = "" if half is None else interval(mean - half, mean + half, digits)
    return f"{100 * mean:{digits}}{unit}{ends}"


def wrapped(text: str) -> list[str]:
    """Return the lines of a paragraph; none begins with a sign that would make it an item of a list."""
    kept = re.sub(r" (?=[-+*] )", "\0", text)
    return [line.replace("\0", " ") for line in textwrap.wrap(kept, WIDTH, break_on_hyphens=False)]


def provenance(record: Record) -> str:
    """Say where numbers come from: protocol, plan, machine, date."""
    made, plan = record["made"], record.get("plan")
    text = f"({record['protocol']}. ± is the standard deviation over seeds. "
    if plan:
        first, last = plan["first_seed"], plan["first_seed"] + plan["seeds"] - 1
        text += f"Seeds {first} to {last}; plan {plan['sha256'][:12]}. "
    return f"{text}{machine(made)}.)"


def machine(made: Record) -> str:
    """Say on what, with which JAX and when results were made."""
    where = f"{made['processor']}, {made['host']['cpus']} cores, {made['device']['kind']}"
    return f"{where}, JAX {made['versions']['jax']}, {made['date']}"
