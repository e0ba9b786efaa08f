"""Mutation testing of the core: what share of small changes to its code do the tests notice?

    make mutants ARGS="--number 100 --seed 1"

Changes are drawn from all that cosmic-ray can make, from each file in proportion to its lines. Each is made
in a copy of the project, in which the tests of that file then run; unchanged, they must pass. If the module
cannot be imported any more, another one is drawn: no test could miss it. Exits with 1 if fewer than 90% are
noticed.
"""

import argparse
import difflib
import os
import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from cosmic_ray.ast import ast_nodes, get_ast
from cosmic_ray.mutating import mutate_code
from cosmic_ray.plugins import get_operator, operator_names

ROOT = Path(__file__).parents[1]
ENOUGH = 0.9
TESTS = {
    "batches.py": "train",
    "dropout.py": "dropout oracle inverted_dropout",
    "keys.py": "keys oracle dropout",
    "pooling.py": "pooling",
    "models.py": "train oracle own_layers",
    "metrics.py": "train oracle",
    "optimizers/keras.py": "keras optimizers",
    "optimizers/schedules.py": "optimizers",
    "task.py": "modules task train oracle fit experiment",
    "train.py": "train oracle invariance loops",
    "population.py": "population oracle",
    "kernels/convolution.py": "convolution train",
    "kernels/dense.py": "dense",
    "kernels/depthwise.py": "loops",
    "kernels/dropout.py": "dropout oracle",
    "kernels/layers.py": "convolution own_layers train oracle",
    "kernels/convolution_in_loops.py": "loops convolution",
    "kernels/parts.py": "invariance train",
    "kernels/pooling.py": "pooling",
    "kernels/threefry.py": "keys oracle",
    "stats/confusion.py": "confusion",
    "stats/contrasts.py": "stats",
    "stats/crossed.py": "crossed",
    "stats/equivalence.py": "stats",
    "stats/families.py": "stats",
    "stats/intervals.py": "stats",
    "stats/paired.py": "stats",
    "stats/plan.py": "plan stats",
    "stats/power.py": "power stats",
    "stats/sentences.py": "confusion stats plan",
    "stats/signflip.py": "stats",
    "stats/sizes.py": "stats sizing",
    "stats/variance.py": "variance",
}
"""The tests of each file, fastest first."""


def changed(name: str, draw: random.Random) -> Iterator[str]:
    """Yield the source of a file with one change each, in random order."""
    source = (ROOT / "cnnjax" / name).read_text()
    nodes = list(ast_nodes(get_ast(source)))
    kinds = (get_operator(operator) for operator in sorted(operator_names()))
    places = [
        (operator, number)
        for operator in (kind() for kind in kinds if not kind.arguments())
        for number in range(sum(len(list(operator.mutation_positions(node))) for node in nodes))
    ]
    for operator, number in draw.sample(places, len(places)):
        yield mutate_code(source, operator, number)


def noticed(name: str, code: str, copy: Path) -> bool | None:
    """Whether a test of the file fails after a change; None if the module cannot be imported."""
    path = copy / "cnnjax" / name
    before = path.read_text()
    path.write_text(code)
    try:
        module = f"cnnjax.{name.removesuffix('.py').replace('/', '.')}"
        if python(copy, "-c", f"import {module}").returncode:
            return None
        return run_tests(copy, TESTS[name].split()).returncode != 0
    except subprocess.TimeoutExpired:
        return True
    finally:
        path.write_text(before)


def run_tests(copy: Path, names: list[str]) -> subprocess.CompletedProcess[str]:
    """Run the fast tests of these names up to the first that fails."""
    files = [f"tests/test_{name}.py" for name in names]
    return python(copy, "-m", "pytest", "-x", "-q", "-m", "not slow", *files)


def python(copy: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run Python with the project's copy."""
    env = os.environ | {"PYTHONPATH": str(copy), "XLA_FLAGS": "--xla_backend_optimization_level=0"}
    command = [sys.executable, *arguments]
    return subprocess.run(command, cwd=copy, env=env, capture_output=True, text=True, timeout=300)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--number", type=int, default=60, help="changes to make (a minute each)")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    draw = random.Random(given.seed)
    lines = [len((ROOT / "cnnjax" / name).read_text().splitlines()) for name in TESTS]
    changes = {name: changed(name, draw) for name in TESTS}
    found = 0
    with tempfile.TemporaryDirectory() as directory:
        copy = Path(directory)
        for part in ("cnnjax", "tests", "experiments", "docs"):
            shutil.copytree(ROOT / part, copy / part, ignore=shutil.ignore_patterns("__pycache__"))
        for file in ("pyproject.toml", "README.md", "Makefile", "mkdocs.yml"):
            shutil.copy(ROOT / file, copy)
        if (ROOT / ".pytest_cache").exists():  # compiled programs
            shutil.copytree(ROOT / ".pytest_cache", copy / ".pytest_cache")
        drawn = draw.choices(list(TESTS), lines, k=given.number)
        # Without a change; what they compile also serves those with one.
        for each in sorted({each for name in drawn for each in TESTS[name].split()}):
            unchanged = run_tests(copy, [each])
            if unchanged.returncode:
                raise SystemExit(f"{unchanged.stdout}cnnjax: error: test_{each}.py fails without a change")
        for number, name in enumerate(drawn, 1):
            for code in changes[name]:
                result = noticed(name, code, copy)
                if result is not None:
                    break
            else:
                raise SystemExit(f"cnnjax: error: {name} has no more changes; use a smaller --number")
            found += result
            print(f"{number}/{given.number} {name}: {'noticed' if result else 'not noticed'}", flush=True)
            before = (ROOT / "cnnjax" / name).read_text()
            if not result:
                difference = difflib.unified_diff(
                    before.splitlines(), code.splitlines(), name, name, "", "", 0, ""
                )
                print("\n".join(difference), flush=True)
    print(f"{found} of {given.number} changes noticed")
    sys.exit(found < ENOUGH * given.number)


if __name__ == "__main__":
    main()
