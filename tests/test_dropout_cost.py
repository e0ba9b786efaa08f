"""dropout_cost.py: the unit of its statistics is a launch, not a round."""

import json
import os
from pathlib import Path

import dropout_cost
import numpy as np
import pytest
from timing import launched

from cnnjax.stats.intervals import t_interval
from cnnjax.stats.sentences import REHEARSAL

SLOWER = np.array([1.0, 1.1, 1.2, 1.3, 1.4])


def timings(launches: int, rounds: int) -> np.ndarray:
    """Launches differ by 3%, rounds of one launch hardly: a process is fast or slow for good."""
    rng, arms = np.random.default_rng(0), len(dropout_cost.ARMS)
    of_launch = np.exp(rng.normal(0, 0.03, (launches, arms, 1, 1)))
    return 1e-3 * SLOWER[:, None, None] * of_launch * np.exp(rng.normal(0, 1e-3, (launches, arms, rounds, 2)))


@pytest.mark.parametrize("launches", [3, 8])
def test_intervals_are_over_launches(
    launches: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    seconds = timings(launches, 40)
    dropout_cost.report(tmp_path, seconds, f"{REHEARSAL}. x" if launches < 4 else "x", 2)
    summary, printed = json.loads((tmp_path / "summary.json").read_text()), capsys.readouterr().out
    ratios = np.median(seconds[:, 1, :, 0] / seconds[:, 0, :, 0], axis=1)
    mean, half, _ = t_interval(np.log(ratios))
    found = summary["ratio"]["wall"][list(dropout_cost.ARMS)[1]]
    assert found["mean"] == pytest.approx(np.exp(mean)) and f"{np.exp(mean):.3f}" in printed
    contrasts = summary["logarithm of wall seconds"]["contrasts"]
    assert {c["n"] for c in contrasts} == {launches}
    if launches < 4:
        assert found["low"] is None and summary["rehearsal"] and REHEARSAL in printed
    else:
        assert (found["low"], found["high"]) == pytest.approx((np.exp(mean - half), np.exp(mean + half)))
        assert found["high"] - found["low"] > 0.03, "rounds alone would have said 0.001"
    lines = (tmp_path / "results.csv").read_text().splitlines()
    assert len(lines) == 1 + launches * 5 * 40
    assert (tmp_path / "cost.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_every_launch_is_a_process_of_its_own(tmp_path: Path) -> None:
    assert len({*launched(os.getpid, [()] * 2), os.getpid()}) == 3


@pytest.mark.slow
def test_a_launch_times_every_arm_by_every_clock() -> None:
    seconds = dropout_cost.measure_all(1, 1)
    assert seconds.shape == (len(dropout_cost.ARMS), 1, len(dropout_cost.CLOCKS)) and (seconds > 0).all()
