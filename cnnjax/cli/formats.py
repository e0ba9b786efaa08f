"""The flags --json and --csv of every command that prints a table."""

import csv
import json
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
import tyro

from cnnjax.errors import ArgumentError

Record = Mapping[str, Any]
"""A row of a table by the names of its columns: text, numbers, lists of them, or None."""
Columns = Mapping[str, Callable[[Any], str]]
"""The columns of a printed table: a head, and the text of its cell for a record."""


@dataclass(frozen=True)
class Format:
    """How a command prints its table."""

    json: bool = False
    """Print the table alone, as a JSON list with an object for each row."""
    csv: bool = False
    """Print the table alone, as CSV."""

    def __post_init__(self) -> None:
        """Refuse both at once."""
        if self.json and self.csv:
            raise ArgumentError("--json and --csv are two formats; use one of them")

    @property
    def alone(self) -> bool:
        """Whether standard output is for a program, and holds the table and nothing else."""
        return self.json or self.csv

    def announce(self, line: str) -> None:
        """Print a line that is not of the table; on standard error if that stands alone."""
        from cnnjax.report import say

        if self.alone:
            print(line, file=sys.stderr)
        else:
            say(line)

    def table(self, records: Sequence[Record], columns: Columns) -> None:
        """Print a table; `columns` are those for readers, programs get the records."""
        from cnnjax.report import print_table

        if self.alone:
            self.write(records)
        else:
            print_table(*cells(records, columns))

    def lines(self, records: Sequence[Record], line: Callable[[Any], str]) -> None:
        """Print a line for each record; programs get the records."""
        from cnnjax.report import say

        if self.alone:
            return self.write(records)
        for record in records:
            say(line(record))
        return None

    def write(self, records: Sequence[Record]) -> None:
        """Print records of the same columns as JSON or CSV."""
        rows = [{name: _plain(value) for name, value in record.items()} for record in records]
        if self.json:
            print(json.dumps(rows, indent=1, allow_nan=False))
        elif rows:
            table = csv.DictWriter(sys.stdout, list(rows[0]), lineterminator="\n")
            table.writeheader()
            table.writerows({name: _cell(value) for name, value in row.items()} for row in rows)


Formatted = Annotated[Format, tyro.conf.arg(name="")]
TEXT = Format()


def cells(records: Sequence[Record], columns: Columns) -> tuple[list[str], list[list[str]]]:
    """Return the heads and rows of a printed table."""
    return list(columns), [[cell(record) for cell in columns.values()] for record in records]


def _plain(value: Any) -> Any:
    """Return a value as strict JSON has it: what is not finite is None."""
    if isinstance(value, np.generic | np.ndarray):
        value = value.tolist()
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _cell(value: Any) -> Any:
    return " ".join(map(str, value)) if isinstance(value, list) else value
