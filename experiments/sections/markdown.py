"""Tables, paragraphs and provenance in Markdown."""

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


def interval(low: float | None, high: float | None, scale: float = 100) -> str:
    """Return the interval in brackets, or nothing if there is none."""
    return "" if low is None or high is None else f" [{scale * low:+.2f}, {scale * high:+.2f}]"


def wrapped(text: str) -> list[str]:
    """Return the lines of a paragraph."""
    return textwrap.wrap(text, WIDTH, break_on_hyphens=False)


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
