"""accelerator.py: all parts run with the core's packages alone, and one that fails does not end the rest."""

import json
import os
import subprocess
import sys
from pathlib import Path

import jax.numpy as jnp
import pytest
from accelerated import correctness, speed
from helpers import CORE_ALONE

ROOT = Path(__file__).parents[1]
CODE = """
sys.path.insert(0, "experiments")
import accelerator
import recipe
recipe.STEPS = 2
accelerator.LIMIT = float("inf")
accelerator.speed.within = lambda seconds, items: items
accelerator.speed.MODELS = {"keras-cnn": accelerator.speed.MODELS["keras-cnn"]}
accelerator.QUICK = accelerator.Size(200, (32,), (1, 2), (32,), 1, 2, 2, 1, 2)
"""


def run(code: str, out: Path) -> subprocess.CompletedProcess[str]:
    arguments = ["--data-dir", "tests/data", "--dataset", "fashion_mnist", "--out", str(out), "--quick"]
    command = [sys.executable, "-c", f"{CORE_ALONE}{CODE}{code}\nsys.exit(accelerator.main())", *arguments]
    env = os.environ | {"JAX_NUM_CPU_DEVICES": "1"}
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=env)


@pytest.mark.slow
def test_all_parts_run_with_the_packages_of_the_core(tmp_path: Path) -> None:
    ended = run("", tmp_path / "out")
    assert ended.returncode == 0, ended.stderr
    summary = json.loads((tmp_path / "out/summary.json").read_text())
    assert all(all(summary[part]["must hold"].values()) for part in ("masks", "steps", "repetition"))
    (times,) = [times for name, times in summary["speed"]["seconds per epoch"].items() if "keras" in name]
    assert set(times) >= {"cnnjax", "plain Flax"} and min(times.values()) > 0
    by_chunk = summary["populations"]["milliseconds per step and network, by networks and chunk"]
    assert [list(each) for each in by_chunk.values()] == [["1"], ["2", "1"]]
    assert summary["bfloat16"]["paired seeds"] == 2
    assert 0 <= summary["speedrun"]["cnnjax"]["mean test accuracy"] <= 1
    assert "populations / best chunk / 2: " in ended.stdout


def test_a_part_that_fails_is_recorded_and_the_others_go_on(tmp_path: Path) -> None:
    code = """
def fails():
    raise RuntimeError("out of memory")

accelerator.parts = lambda loaded, size: {"first": fails, "second": lambda: {"right": True}}
"""
    ended = run(code, tmp_path / "out")
    assert ended.returncode == 1, ended.stderr
    summary = json.loads((tmp_path / "out/summary.json").read_text())
    assert summary["first"]["failed"] == "RuntimeError: out of memory"
    assert summary["second"]["right"] is True
    assert "first / failed: RuntimeError: out of memory" in ended.stdout


def test_a_missing_directory_is_one_line(tmp_path: Path) -> None:
    command = [sys.executable, "experiments/accelerator.py", "--data-dir", str(tmp_path / "none")]
    ended = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert ended.returncode == 1, ended.stderr
    assert ended.stderr.startswith("cnnjax: error: ") and ended.stderr.count("\n") == 1


@pytest.mark.slow
def test_a_wrong_mask_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    assert all(correctness.masks()[correctness.HOLDS].values())
    monkeypatch.setattr(correctness, "keep_mask", lambda key, shape, rate: jnp.ones(shape, bool))
    assert list(correctness.masks()[correctness.HOLDS].values()) == [True, False]


def test_no_part_goes_on_when_its_time_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    now = iter([0.0, 1.0, 9.0, 11.0])
    monkeypatch.setattr(speed.time, "monotonic", lambda: next(now))
    assert list(speed.within(10, "abcd")) == ["a", "b"]


def test_chunks_reach_from_one_network_to_all() -> None:
    assert [speed.chunks(members) for members in (1, 2, 10, 1000)] == [
        [1],
        [2, 1],
        [10, 1],
        [1000, 100, 10, 1],
    ]
