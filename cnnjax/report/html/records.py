"""What a report shows of an experiment's summary.json.

Functions that take a path raise `UserError` if the records have not the fields that the report shows.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from cnnjax.errors import UserError

Record = tuple[tuple[str, ...], dict[str, Any]]
"""A dictionary inside summary.json, and the keys that lead to it."""
SENTENCES = ("protocol", "conclusion", "answer", "3 and 5", "answers")
"""Entries that are written for readers."""
ORIGIN = ("date", "processor", "device", "host", "python", "versions", "mask_scheme", "sha256")
"""Entries about how results were made."""


def walk(record: dict[str, Any], keys: tuple[str, ...] = ()) -> Iterator[Record]:
    """Iterate over a summary and every dictionary inside it."""
    yield keys, record
    for name, value in record.items():
        if isinstance(value, dict):
            yield from walk(value, (*keys, name))


def comparisons(path: Path, records: Sequence[Record]) -> Iterator[Record]:
    """Iterate over the comparisons: of arms with the first, or, in a dictionary, contrasts of other kinds."""
    for keys, record in records:
        arms, contrasts = record.get("arms"), record.get("contrasts")
        if isinstance(contrasts, dict) and contrasts:
            arms, contrasts = arms or [], list(contrasts.values())
        if isinstance(arms, list) and isinstance(contrasts, list):
            _check(path, arms, {"name": str, "n": int}, ("mean", "sd"))
            _check(path, contrasts, {"arm": str}, ("difference", "low", "high", "p", "p_holm"))
            yield keys, record | {"arms": arms, "contrasts": contrasts}


def crossed(path: Path, records: Sequence[Record]) -> Iterator[Record]:
    """Iterate over the intervals over seeds and images."""
    for keys, record in records:
        if keys[-1:] == ("crossed",):
            _check(path, list(record.values()), {}, ("difference", "low", "high", "seeds", "images"))
            yield keys, record


def hypotheses(records: Sequence[Record]) -> Iterator[str]:
    """Iterate over the hypotheses of plans; the remarks say of a plan that it was stated or changed late."""
    for _, record in records:
        plan, remarks = record.get("plan"), record.get("remarks") or ()
        if isinstance(plan, dict) and plan.get("hypothesis"):
            late = any(str(remark).startswith("The plan was") for remark in remarks)
            yield f"{'Hypothesis' if late else 'Stated before the first epoch'}: {plan['hypothesis']}"


def origin(records: Sequence[Record]) -> dict[str, Any]:
    """Return what a summary says of its making: under "made", or beside its other entries."""
    (_, summary), *_ = records
    made = next((record for keys, record in records if keys[-1:] == ("made",)), summary)
    return {name: made[name] for name in ORIGIN if name in made}


def reproductions(path: Path, records: Sequence[Record]) -> Iterator[Record]:
    """Iterate over the published values beside ours."""
    for keys, record in records:
        if {"published", "mean", "within"} <= record.keys():
            _check(path, [record], {"n": int}, ("published", "mean", "sd", "low", "high"))
            yield keys, record


def _check(path: Path, records: Sequence[Any], kinds: dict[str, type], numbers: Sequence[str]) -> None:
    for record in records:
        whole = isinstance(record, dict) and all(isinstance(record.get(k), t) for k, t in kinds.items())
        if not whole or not all(isinstance(record.get(k), int | float | None) for k in numbers):
            raise UserError(f"{path} is damaged: some fields are missing or wrong; run the experiment again")


def sentences(records: Sequence[Record]) -> Iterator[tuple[tuple[str, ...], str]]:
    """Iterate over the texts of a summary that are written for readers."""
    for keys, record in records:
        for name, value in record.items():
            if isinstance(value, str) and (name in SENTENCES or keys[-1:] == ("answers",)):
                yield (*keys, name), value
