"""A report on runs and experiments as one HTML file.

subjects.py        reads directories
*_sections.py, charts.py, network.py
                   prepare the data of the sections
templates/         say how a section looks
page.py            puts them together with the style sheets and scripts

In the page, network.js, strokes.js and dropout.js compute; page.js, pad.js, inside.js, masks.js and
start.js show the results.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

from cnnjax import files
from cnnjax.errors import UserError
from cnnjax.runs.run_directory import list_made


def write(
    directories: Sequence[Path],
    out: Path,
    data_dir: Path | None = None,
    announce: Callable[[str], None] = print,
) -> None:
    """Write the report, atomically.

    Args:
        directories: run directories and directories of experiments, at least one.
        out: the HTML file; missing directories are created.
        data_dir: directory of the four IDX files, for MNIST and its like; by default that of the run, or the
            data set by name.
        announce: called with a line before anything that takes time.

    Raises:
        ArgumentError: a directory is neither a run nor an experiment, or the data set is not its own.
        UserError: files are damaged, the data set is not available, or `out` cannot be written.
    """
    from cnnjax.report.html.page import page
    from cnnjax.report.html.subjects import read

    if out.is_dir():
        raise UserError(f"cannot write {out}: it is a directory; choose a file with --out")
    html = page([read(path, data_dir, announce) for path in directories])
    files.make_directory(out.parent)
    files.write_bytes(out, html.encode(errors="replace"))  # a directory's name may be no text
    list_made(out)
