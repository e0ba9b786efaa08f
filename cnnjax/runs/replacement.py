"""Replace a run: it is moved aside in one step, and deleted when the new one has finished."""

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import Any

from cnnjax import files
from cnnjax.errors import ArgumentError, UserError
from cnnjax.files.exchange import exchange
from cnnjax.runs import run_directory


@contextmanager
def replaced(run: Path, config: Mapping[str, Any], announce: Callable[[str], None]) -> Iterator[None]:
    """Put a new run directory, which holds config.json alone, in the place of a locked one.

    The directory is the old run or the new one at any moment, and the new one is locked within this context.

    Raises:
        ArgumentError: the directory holds something that is not of a run, or is the working directory.
        UserError: it cannot be replaced.
    """
    run_directory.require_own(run)
    if Path(os.path.realpath(run)) in (here := Path.cwd(), *here.parents):
        raise ArgumentError(
            f"--overwrite replaces the directory {run}, in which this command runs; run it elsewhere"
        )
    aside = next(path for path in _asides(run) if not os.path.lexists(path))
    with files.claimed(aside):
        try:
            files.write_json(aside / "config.json", config)
            with files.explained(run):
                exchange(Path(os.path.realpath(run)), aside)
        except BaseException:
            with suppress(OSError):
                (aside / "config.json").unlink()
            raise
        announce(f"the run that this one replaces is in {aside} until this one has finished")
        yield


def pending(run: Path) -> bool:
    """Whether there are runs that this one replaced."""
    return os.path.lexists(next(_asides(run)))


def finish(run: Path, announce: Callable[[str], None]) -> None:
    """Delete the runs that a finished one replaced."""
    replaced_runs = []
    for aside in _asides(run):
        if not os.path.lexists(aside):
            break
        replaced_runs.append(aside)
    # The last one first, so that none is left behind a gap if this process is killed.
    for aside in reversed(replaced_runs):
        try:
            run_directory.remove(aside)
        except (UserError, OSError) as error:
            announce(f"the run that this one replaced stays in {aside}: {error}")
            return


def _asides(run: Path) -> Iterator[Path]:
    """Iterate over the places of replaced runs, beside the run itself."""
    real = Path(os.path.realpath(run))
    return (real.with_name(f".{real.name}.cnnjax-replaced-{number}") for number in count(1))
