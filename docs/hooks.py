"""Pages made when the site is built: the lesson from its notebook, the commands from their --help."""

import base64
import contextlib
import io
import json
import os
import runpy
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

from cnnjax import cli

ROOT = Path(__file__).parents[1]
COMMANDS = """# Commands

Every command with its `--help`, as at 80 columns. `cnnjax` is also `python -m cnnjax`, and
`make train ARGS="..."` hands ARGS to `cnnjax train`. A wrong argument ends with exit code 2, any other error
with 1; one line says what to do, and `--debug` adds the traceback."""
EXPERIMENTS = """## Experiments

Each is a script, `python experiments/NAME.py`. `make bench ARGS="..."` and `make reproduce ARGS="..."` run
`benchmark_peers.py` and `reproduce_tutorials.py`; `make bench` first installs what it compares with."""


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the generated pages."""
    text, images = lesson(json.loads((ROOT / "docs/lesson.ipynb").read_text()))
    generated: dict[str, str | bytes] = {"keras-to-jax.md": text, **images}
    for name, content in generated.items():
        files.append(File.generated(config, f"tutorials/{name}", content=content))
    files.append(File.generated(config, "reference/commands.md", content=commands()))
    return files


def lesson(notebook: dict[str, Any]) -> tuple[str, dict[str, bytes]]:
    """Convert a notebook to Markdown; return it with the PNG figures that it names."""
    parts: list[str] = []
    images: dict[str, bytes] = {}
    for cell in notebook["cells"]:
        source = "".join(cell["source"])
        parts.append(source if cell["cell_type"] == "markdown" else fenced("python", source))
        outputs = cell.get("outputs", [])
        printed = "".join(line for output in outputs for line in output.get("text", ()))
        parts += [fenced("text", printed)] if printed else []
        for output in outputs:
            if "image/png" in output.get("data", ()):
                name = f"lesson-{len(images) + 1}.png"
                images[name] = base64.b64decode(output["data"]["image/png"])
                parts.append(f"![what the cell above draws]({name})")
    return "\n\n".join(parts), images


def commands() -> str:
    """Return a page with the help of every command and experiment."""
    parts = [COMMANDS, "## cnnjax", helped(partial(cli.main, ["--help"]))]
    for name in cli.COMMANDS:
        parts += [f"## cnnjax {name}", helped(partial(cli.main, [name, "--help"]))]
    parts.append(EXPERIMENTS)
    directory = ROOT / "experiments"
    with mock.patch.object(sys, "path", [str(directory), *sys.path]):
        for script in sorted(directory.glob("*.py")):
            if "__main__" in script.read_text() and script.name != "evidence.py":  # which has no options
                with mock.patch.object(sys, "argv", [str(script), "--help"]):
                    text = helped(partial(runpy.run_path, str(script), run_name="__main__"))
                parts += [f"### {script.name}", text]
    return "\n\n".join(parts)


def helped(call: Callable[[], object]) -> str:
    """Return as a block what a call prints, without colours, at 80 columns."""
    plain = {"COLUMNS": "80", "NO_COLOR": "1", "TERM": "dumb"}
    out = io.StringIO()
    with mock.patch.dict(os.environ, plain), contextlib.redirect_stdout(out), contextlib.suppress(SystemExit):
        call()
    assert out.getvalue(), "no help was printed"
    return fenced("text", "\n".join(line.rstrip() for line in out.getvalue().splitlines()))


def fenced(language: str, text: str) -> str:
    """Return a block of Markdown."""
    return f"```{language}\n{text.rstrip()}\n```"
