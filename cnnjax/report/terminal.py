"""Tables and paragraphs that fit the terminal."""

import re
import sys
import textwrap
from collections.abc import Iterable, Sequence

from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text


def console() -> Console:
    """Return the terminal, or without one a console wide enough for any table."""
    plain = Console()
    return plain if plain.is_terminal else Console(width=160)


def say(text: str, indent: int = 0) -> None:
    """Print a paragraph: on a terminal, its lines break between words."""
    screen, margin = console(), " " * indent
    width = screen.width if screen.is_terminal else sys.maxsize
    lines = textwrap.wrap(text, width - indent, break_long_words=False, break_on_hyphens=False) or [""]
    print(*(margin + line for line in lines), sep="\n", flush=True)


def print_table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print a table: columns with numbers are aligned to the right, except for the first.

    One that is too wide for the terminal is printed in parts, each with the first column, which is at most
    half as wide as the terminal.
    """
    screen, rows = console(), list(rows)
    for columns in parts(heads, rows, screen.width):
        table = Table(*(escape(heads[i]) for i in columns))  # rich reads "[a]" in a string as a style
        table.columns[0].max_width, table.columns[0].overflow = screen.width // 2, "fold"
        for i, column in zip(columns[1:], table.columns[1:], strict=True):
            numbers = any(re.match(r"[-+]?\d", row[i]) for row in rows)
            column.justify = "right" if numbers else "left"
        for row in rows:
            table.add_row(*(Text(row[i]) for i in columns))
        screen.print(table)


def fits(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> bool:
    """Whether `print_table` prints a table in one part."""
    return len(parts(heads, rows, console().width)) == 1


def parts(heads: Sequence[str], rows: Sequence[Sequence[str]], width: int) -> list[list[int]]:
    """Return the columns of each part of a table, so that no cell breaks in so many characters; heads may."""
    least = [
        max(len(text) for text in (*head.split(), *(row[i] for row in rows))) + len(" │ ")
        for i, head in enumerate(heads)
    ]
    least[0] = min(least[0], width // 2 + len(" │ "))
    made = [[0]]
    for i in range(1, len(heads)):
        if len(made[-1]) > 1 and least[0] + sum(least[j] for j in made[-1][1:]) + least[i] + 1 > width:
            made.append([0])
        made[-1].append(i)
    return made
