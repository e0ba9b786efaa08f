"""Tables and paragraphs that fit the terminal."""

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


def say(text: str) -> None:
    """Print a paragraph: on a terminal, its lines break between words."""
    screen = console()
    width = screen.width if screen.is_terminal else sys.maxsize
    print(textwrap.fill(text, width, break_long_words=False, break_on_hyphens=False))


def print_table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print a table with its first column to the left and the others to the right.

    One that is too wide for the terminal is printed in parts, each with the first column.
    """
    screen, rows = console(), list(rows)
    for columns in parts(heads, rows, screen.width):
        table = Table(*(escape(heads[i]) for i in columns))  # rich reads "[a]" in a string as a style
        for column in table.columns[1:]:
            column.justify = "right"
        for row in rows:
            table.add_row(*(Text(row[i]) for i in columns))
        screen.print(table)


def parts(heads: Sequence[str], rows: Sequence[Sequence[str]], width: int) -> list[list[int]]:
    """Return the columns of each part of a table, so that no cell breaks in so many characters; heads may."""
    least = [
        max(len(text) for text in (*head.split(), *(row[i] for row in rows))) + len(" │ ")
        for i, head in enumerate(heads)
    ]
    made = [[0]]
    for i in range(1, len(heads)):
        if len(made[-1]) > 1 and least[0] + sum(least[j] for j in made[-1][1:]) + least[i] + 1 > width:
            made.append([0])
        made[-1].append(i)
    return made
