"""A report of runs and experiments as one HTML file.

subjects.py     reads what directories hold
*_sections.py, mistakes.py, charts.py, play.py   turn it into sections
page.py         puts them into template.html, with the style sheets and scripts

In the page, network.js, strokes.js and dropout.js compute, and page.js, pad.js, inside.js, masks.js and
start.js show it.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

from cnnjax import files
from cnnjax.errors import UserError


def write(
    directories: Sequence[Path],
    out: Path,
    data_dir: Path | None = None,
    announce: Callable[[str], None] = print,
) -> None:
    """Write the report on what the directories hold; `out` appears complete or not at all.

    Args:
        directories: run directories and directories of experiments, one at least.
        out: the file.
        data_dir: the four IDX files; those of the run, or the data set by name, unless given.
        announce: told what takes time.

    Raises:
        ArgumentError: a directory holds neither, or the data are others.
        UserError: files are damaged, the data cannot be had, or `out` cannot be written.
    """
    from cnnjax.report.html.page import page
    from cnnjax.report.html.subjects import read

    if out.is_dir():
        raise UserError(f"cannot write {out}: it is a directory; choose a file with --out")
    html = page([read(path, data_dir, announce) for path in directories])
    files.write_bytes(out, html.encode())
