"""The run directory: the files that a run writes.

RUN/config.json            the configuration
RUN/history.csv            epoch,loss,accuracy,val_loss,val_accuracy,seconds
RUN/result.json            final metrics and their provenance
RUN/curves.png, RUN/confusion_matrix.png   drawn last; result.json names those that cannot be drawn
RUN/model_card.md          the network, its data and its metrics, for readers
RUN/checkpoints/epoch-N/   the state after epoch N (cnnjax.runs.checkpoints)
RUN/tensorboard/           with --tensorboard (cnnjax.runs.event_files)
RUN/made.json              digests of what report, export and predict wrote there
"""

import csv
import io
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from cnnjax.errors import ArgumentError, UserError
from cnnjax.files import read_json, write_bytes, write_json
from cnnjax.files.temporary import OWN
from cnnjax.runs import checkpoints
from cnnjax.runs.manifest import sha256

COLUMNS = ("epoch", "loss", "accuracy", "val_loss", "val_accuracy", "seconds")
CHECKPOINTS = "checkpoints"
TENSORBOARD = "tensorboard"
EVENTS = re.compile(r"(train|validation)/events\.out\.tfevents\.\d+\.cnnjax")
"""The files in `TENSORBOARD`."""
FIGURES = ("curves.png", "confusion_matrix.png")
FILES = ("config.json", "history.csv", "result.json", "model_card.md", *FIGURES)
UNDRAWN = "figures that could not be drawn"
"""Key of result.json: names of `FIGURES` that are missing because drawing them failed."""
MADE = "made.json"
OF_OTHER_COMMANDS = ("confused.png", "model.stablehlo", "model.onnx", "report.html")

Row = Mapping[str, float]


def holds_run(run: Path) -> bool:
    """Whether the directory holds any file of a run."""
    return any(os.path.lexists(run / name) for name in (*FILES, CHECKPOINTS))


def require_own(run: Path) -> None:
    """Raise `ArgumentError` unless all that the directory holds is of a run; see `own_files`."""
    own_files(run)


def list_made(path: Path) -> None:
    """List a file that a command wrote in a run directory, if it is in one: it goes when the run is replaced.

    Raises:
        UserError: the list cannot be written.
    """
    if path.name in OF_OTHER_COMMANDS and holds_run(path.parent) and path.exists():
        write_json(path.with_name(MADE), _made(path.parent) | {path.name: sha256(path)})


def require_no_links(run: Path) -> None:
    """Raise `ArgumentError` if a directory to be written in is a link to another place."""
    for name in (CHECKPOINTS, TENSORBOARD, f"{TENSORBOARD}/train", f"{TENSORBOARD}/validation"):
        if (run / name).is_symlink():
            raise ArgumentError(
                f"{run / name} is a link, and nothing is written through it; let --out name a directory on "
                "the other disk"
            )


def own_files(run: Path) -> list[Path]:
    """Return every path in a run directory, those inside a directory before it.

    Raises:
        ArgumentError: one is not of a run; the message names the first.
    """
    found: list[Path] = []
    for path in _sorted(run):
        if path.name in (CHECKPOINTS, TENSORBOARD) and path.is_dir() and not path.is_symlink():
            for inside in _sorted(path):
                if path.name == CHECKPOINTS:
                    found += _of_checkpoint(inside, run)
                else:
                    found += [_require(each, _is_events(each, path), run) for each in _tree(inside)]
            found.append(path)
        else:
            found += [_require(each, _is_own(path), run) for each in _tree(path)]
    return found


def remove(run: Path) -> None:
    """Delete a run directory: every file of a run by its name, and then the directories that are empty.

    Raises:
        ArgumentError: something in it is not of a run. Nothing is deleted then.
        OSError: a file cannot be deleted.
    """
    for path in own_files(run):
        path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()
    run.rmdir()


def history_text(rows: Iterable[Row]) -> bytes:
    """Return the content of history.csv: metrics with all digits, seconds to the millisecond."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for row in rows:
        writer.writerow([int(row["epoch"]), *(row[name] for name in COLUMNS[1:-1]), f"{row['seconds']:.3f}"])
    return text.getvalue().encode()


def write_history(run: Path, rows: Sequence[Row]) -> None:
    """Write history.csv."""
    write_bytes(run / "history.csv", history_text(rows))


def _of_checkpoint(path: Path, run: Path) -> list[Path]:
    if OWN.fullmatch(path.name):
        return [_require(each, not path.is_symlink(), run) for each in _tree(path)]
    epoch = re.fullmatch(r"epoch-[1-9]\d*", path.name)
    strange = checkpoints.foreign(path) if epoch else path
    return [_require(each, each != strange, run) for each in _tree(path)]


def _is_own(path: Path) -> bool:
    plain = not path.is_symlink() and (path.is_file() or bool(OWN.fullmatch(path.name)))
    named = path.name in (*FILES, MADE, ".lock") or bool(OWN.fullmatch(path.name))
    return plain and (named or (path.name in OF_OTHER_COMMANDS and _is_made(path)))


def _is_made(path: Path) -> bool:
    return _made(path.parent).get(path.name) == sha256(path)


def _made(run: Path) -> dict[str, str]:
    """Return the digests in made.json; a damaged one lists nothing."""
    with suppress(UserError):
        return read_json(run / MADE) or {}
    return {}


def _is_events(path: Path, directory: Path) -> bool:
    name = path.relative_to(directory).as_posix()
    directories = name in ("train", "validation") and path.is_dir()
    return not path.is_symlink() and (directories or bool(EVENTS.fullmatch(name)))


def _require(path: Path, own: bool, run: Path) -> Path:
    if own:
        return path
    raise ArgumentError(
        f"{run} holds {path.relative_to(run)}, which is not of a run; move it away, or choose another --out"
    )


def _tree(path: Path) -> list[Path]:
    """Return a path and all paths inside it, each directory after its contents; links are not followed."""
    if path.is_symlink() or not path.is_dir():
        return [path]
    return [*(each for inside in _sorted(path) for each in _tree(inside)), path]


def _sorted(directory: Path) -> list[Path]:
    try:
        return sorted(directory.iterdir())
    except OSError as error:
        raise UserError(f"cannot read {directory}: {error.strerror or error}") from error
