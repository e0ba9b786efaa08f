"""What dropout gains with and without BatchNorm: contrasts of made-up accuracies, and the whole run."""

import json
from pathlib import Path
from typing import Any

import batchnorm_or_dropout as bn
import chex
import jax
import numpy as np
import pytest
from helpers import TINY
from scipy import stats

from cnnjax import experiment
from cnnjax.cli import runner
from cnnjax.experiment import engine
from cnnjax.models import MODELS
from cnnjax.stats.sentences import REHEARSAL


def test_contrasts_are_paired_differences() -> None:
    rng = np.random.default_rng(0)
    accuracy = rng.uniform(0.9, 1.0, (4, 10))
    alone, beside = accuracy[1] - accuracy[0], accuracy[3] - accuracy[2]
    compared = bn.tested(bn.gains(accuracy))
    assert tuple(c.arm for c in compared) == bn.GAINS
    for c, expected in zip(compared, (alone, beside, beside - alone), strict=True):
        low, high = stats.ttest_1samp(expected, 0.0).confidence_interval(1 - 0.05 / 3)
        np.testing.assert_allclose([c.difference, c.low, c.high], [expected.mean(), low, high], atol=1e-11)
        assert c.n == 10 and c.p <= c.p_holm <= 1


def test_the_three_contrasts_of_a_data_set_are_corrected_together() -> None:
    rows = np.stack([np.full(10, 1.0), np.full(10, -1.0), np.tile([1.0, -1.0], 5)])
    compared = bn.tested(rows)
    assert [c.p for c in compared] == [2 / 1024, 2 / 1024, 1.0]
    assert [c.p_holm for c in compared] == [6 / 1024, 6 / 1024, 1.0]


def test_a_diverged_seed_leaves_the_contrasts_that_it_is_in() -> None:
    accuracy = np.full((4, 8), 0.9)
    accuracy[1, 0] = np.nan
    assert [c.n for c in bn.tested(bn.gains(accuracy))] == [7, 8, 7]


@pytest.mark.parametrize(
    ("difference", "high", "p_holm", "answer"),
    [
        (0.003, 0.005, 0.01, "helps still and is not shown to be unnecessary"),
        (0.001, 0.0015, 0.01, "helps still and is unnecessary"),
        (-0.003, -0.001, 0.01, "harms and is unnecessary"),
        (0.0, 0.0019, 0.9, "is not shown to help or harm and is unnecessary"),
        (0.001, 0.0021, 0.06, "is not shown to help or harm and is not shown to be unnecessary"),
    ],
)
def test_the_answer_follows_from_the_interval_and_p(
    difference: float, high: float, p_holm: float, answer: str
) -> None:
    gain = bn.tested(np.random.default_rng(0).normal(size=(3, 10)))[1]
    assert answer in bn.verdict(gain._replace(difference=difference, high=high, p_holm=p_holm))
    assert bn.verdict(gain._replace(p_floor=0.1)) == f"{REHEARSAL}."


def test_the_answer_says_where_the_t_interval_contradicts_the_test() -> None:
    gain = bn.tested(np.random.default_rng(0).normal(size=(3, 10)))[1]
    interval = "The t interval of dropout, with BatchNorm (-0.060 to +8.400)"
    helps = gain._replace(difference=0.04, low=-0.0006, high=0.084, p_holm=0.023)
    assert bn.verdict(helps).endswith(
        f"unnecessary (margin 0.2 points). {interval} would say otherwise, but the test decides."
    )
    assert bn.verdict(helps._replace(low=0.0006)).endswith("unnecessary (margin 0.2 points).")


def test_the_figure_has_the_intervals_of_the_table() -> None:
    accuracy = np.random.default_rng(0).uniform(0.9, 1.0, (4, 9))
    contrasts = bn.tested(bn.gains(accuracy))
    axis = bn.figure(accuracy, contrasts, "").axes[1]
    bars: Any = axis.collections[:2]
    t, test = ([line[:, 0] for line in bar.get_segments()] for bar in bars)
    for c, described, tested in zip(contrasts, t, test, strict=True):
        np.testing.assert_allclose(described, [100 * c.low, 100 * c.high])
        np.testing.assert_allclose(tested, [100 * c.test_low, 100 * c.test_high])
    assert axis.get_xlabel() == "paired difference to no dropout,\npoints"


def test_the_plain_arm_is_the_first_tutorials_network(key: jax.Array) -> None:
    tutorial, plain = MODELS["keras-cnn"], bn.Network(norm=False, classes=10)
    images = jax.random.uniform(key, (3, 28, 28, 1))
    params = jax.jit(tutorial.init)(key, images)["params"]
    # The layer of the logits is made first, and named so.
    ours = {"Conv_0": params["Conv_0"], "Dense_1": params["Dense_0"], "Dense_0": params["Dense_1"]}
    logits = plain.apply({"params": ours}, images, train=False, dropout_rate=0.5)
    chex.assert_trees_all_equal(logits, tutorial.apply({"params": params}, images, train=False))


def test_one_seed_is_a_rehearsal() -> None:
    gain = bn.tested(bn.gains(np.random.default_rng(0).uniform(0.9, 1.0, (4, 1))))[1]
    assert bn.verdict(gain) == f"{REHEARSAL}."


@pytest.mark.slow
def test_both_data_sets_leave_what_every_experiment_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    names = ("fashion_mnist", "kmnist")  # the checksums of mnist are enforced
    monkeypatch.setattr(experiment, "use_every_core", lambda: None)
    monkeypatch.setattr(bn, "DATASETS", names)
    out, data = tmp_path / "out", tmp_path / "data"
    data.mkdir()
    for name in names:
        (data / name).symlink_to(TINY)
    small = ["--seeds", "2", "--epochs", "1", "--batch-size", "8", "--train-size", "64"]
    arguments = [*small, "--data-dir", str(data), "--out", str(out)]
    assert runner.run(bn.BatchNormOrDropout, "", arguments) == 0, capsys.readouterr().err
    record, printed = json.loads((out / "summary.json").read_text()), capsys.readouterr().out
    assert tuple(record) == names
    for name, of in record.items():
        assert [arm["name"] for arm in of["arms"]] == list(bn.ARMS)
        assert tuple(of["contrasts"]) == bn.GAINS and of["answer"] in printed
        directory = out / name
        assert len((directory / "results.csv").read_text().splitlines()) == 1 + 4 * 2
        assert {path.name for path in directory.glob("*.png")} == {"gains.png"}
    monkeypatch.setattr(engine, "_train_block", lambda *_: pytest.fail("trained again"))
    assert runner.run(bn.BatchNormOrDropout, "", arguments) == 0
