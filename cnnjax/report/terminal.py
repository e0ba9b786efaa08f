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
            numbers = any(re.match(r"[-+]?\d(?! arm)", row[i]) for row in rows)
            column.justify = "right" if numbers else "left"
        for column, width in zip(table.columns, _widths(heads, rows, columns, screen.width), strict=False):
            column.width = width
        for row in rows:
            table.add_row(*(Text(row[i]) for i in columns))
        screen.print(table)


def fits(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> bool:
    """Whether `print_table` prints a table in one part."""
    return len(parts(heads, rows, console().width)) == 1


def parts(heads: Sequence[str], rows: Sequence[Sequence[str]], width: int) -> list[list[int]]:
    """Return the columns of each part of a table, so that no cell breaks in so many characters; heads may."""
    least, made = _least(heads, rows, width), [[0]]
    for i in range(1, len(heads)):
        if len(made[-1]) > 1 and least[0] + sum(least[j] for j in made[-1][1:]) + least[i] + 1 > width:
            made.append([0])
        made[-1].append(i)
    return made


def _least(heads: Sequence[str], rows: Sequence[Sequence[str]], width: int) -> list[int]:
    """Return the columns' least widths with their lines: no cell breaks, and heads break between words."""
    texts = [(*head.split(), *(row[i] for row in rows)) for i, head in enumerate(heads)]
    least = [max(map(len, of)) + len(" │ ") for of in texts]
    least[0] = min(least[0], width // 2 + len(" │ "))
    return least


def _widths(
    heads: Sequence[str], rows: Sequence[Sequence[str]], columns: Sequence[int], width: int
) -> list[int]:
    """Return the widths of columns that fit only with heads in several lines; rich would cut words there."""
    least = _least(heads, rows, width)
    spare = width - 1 - sum(least[i] for i in columns)
    wanted = [max(0, len(heads[i]) + len(" │ ") - least[i]) for i in columns]
    if spare < 0 or sum(wanted) <= spare:
        return []  # rich does it well
    widths = []
    for i, more in zip(columns, wanted, strict=True):
        given = min(more, spare)
        spare -= given
        widths.append(least[i] + given - len(" │ "))
    return widths
