"""The lesson runs, and the notebook has the same cells with their outputs."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import ROOT, TINY

DOCS = ROOT / "docs"


def cells(source: str) -> list[tuple[str, str]]:
    """Return the kind and text of each cell of a script in percent format."""
    _, *parts = source.split("\n# %%")
    result = []
    for part in parts:
        head, _, text = part.partition("\n")
        if "[markdown]" in head:
            lines = (line.removeprefix("#").removeprefix(" ") for line in text.strip().split("\n"))
            result.append(("markdown", "\n".join(lines)))
        else:
            result.append(("code", text.strip()))
    return result


def test_the_notebook_is_the_lesson_with_its_results() -> None:
    notebook = json.loads((DOCS / "lesson.ipynb").read_text())
    kept = [(cell["cell_type"], "".join(cell["source"])) for cell in notebook["cells"]]
    assert kept == cells((DOCS / "lesson.py").read_text()), "run make lesson to regenerate the notebook"
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert all(cell["execution_count"] for cell in code)
    outputs = [output for cell in code for output in cell["outputs"]]
    assert {output["output_type"] for output in outputs} <= {"stream", "display_data"}
    assert all(output.get("name") != "stderr" for output in outputs)
    assert sum("image/png" in output.get("data", {}) for output in outputs) >= 4


@pytest.mark.slow
def test_the_lesson_runs_from_top_to_bottom(tmp_path: Path) -> None:
    settings = {
        "DATASET": "fashion_mnist",
        "DATA_DIR": str(TINY),
        "IMAGES": "400",
        "EPOCHS": "2",
        "SEEDS": "2",
    }
    environment = {
        **os.environ,
        **{f"CNNJAX_LESSON_{name}": value for name, value in settings.items()},
        "PYTHONPATH": str(DOCS.parent),
        "MPLBACKEND": "agg",
    }
    command = [sys.executable, str(DOCS / "lesson.py")]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=900, env=environment, cwd=tmp_path, check=False
    )
    assert done.returncode == 0, done.stderr
    hand = re.search(r"by hand ([\d.]+), by the layer ([\d.]+)", done.stdout)
    assert hand and float(hand[1]) == pytest.approx(float(hand[2]), abs=2e-6)
    slope = re.search(r"grad (-?[\d.]+), finite difference (-?[\d.]+)", done.stdout)
    assert slope and float(slope[1]) == pytest.approx(float(slope[2]), abs=2e-3)
    assert done.stdout.count("Against ") == 2
    assert not list(tmp_path.iterdir())
