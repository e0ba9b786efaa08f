"""The versions and devices under which the rows of a directory were computed: environments.json.

They may change while an experiment grows. That changes last digits only, so every conclusion says it.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cnnjax.devices.processes import from_leader, leads
from cnnjax.errors import UserError
from cnnjax.files import circumstances, read_json, write_json

FILE = "environments.json"

Environment = dict[str, Any]  # see `cnnjax.files.circumstances`


def read(out: Path) -> list[Environment]:
    """Return the environments of a directory, oldest first; none if the file is missing or damaged."""
    try:
        stored = (read_json(out / FILE) or {}).get("environments")
    except UserError:
        stored = None
    return [each for each in stored if isinstance(each, dict)] if isinstance(stored, list) else []


def write(out: Path, environments: Sequence[Environment]) -> None:
    """Write each environment once."""
    different = [each for i, each in enumerate(environments) if each not in environments[:i]]
    write_json(out / FILE, {"environments": different})


def add(out: Path) -> None:
    """Record the environment of this process, before its first row."""
    before, now = read(out), circumstances()
    if now not in before:
        write(out, [*before, now])


def remarks(out: Path) -> tuple[str, ...]:
    """Return what every conclusion from the rows must say: a sentence, or nothing."""
    environments = read(out) if leads() else []
    values = {name: {str(each.get(name)) for each in environments} for each in environments for name in each}
    differ = [f"{name} {' and '.join(sorted(of))}" for name, of in values.items() if len(of) > 1]
    said = f"Rows were computed under {', '.join(differ)}, which may change their last digits."
    return from_leader((said,) if differ else ())
