"""The speedrun: the recipe is a function of its seed, and times are compared within a seed."""

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
import recipe
import speedrun
from hypothesis import given
from hypothesis import strategies as st

from cnnjax.data import load
from cnnjax.files import read_json
from cnnjax.stats.intervals import t_interval
from cnnjax.train import to_device

TINY = load("fashion_mnist", Path(__file__).parent / "data")
STEPS = 3


@pytest.fixture(scope="module")
def program() -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(recipe, "STEPS", STEPS)
        return recipe.compile_run(to_device(TINY.train), to_device(TINY.test))


def test_a_run_is_a_function_of_its_seed(program: Any) -> None:
    one, again, other = (program.train(seed) for seed in (1, 1, 2))
    assert int(one.step) == STEPS
    jax.tree.map(np.testing.assert_array_equal, one.params, again.params)
    assert not np.array_equal(*(state.params["Dense_0"]["kernel"] for state in (one, other)))


def test_all_test_images_are_counted(program: Any) -> None:
    assert program.evaluate(program.train(0)).examples == len(TINY.test.labels)


def test_the_learning_rate_ends_near_zero() -> None:
    """A schedule that were cut before its end would leave the network in the middle of large steps."""
    gradient, settings = {"w": np.ones(1, np.float32)}, jax.tree.map(np.float32, recipe.HPARAMS)
    optimizer = recipe.adam_in_one_cycle(settings)
    state, steps = optimizer.init(gradient), []
    update = jax.jit(optimizer.update)
    for _ in range(recipe.STEPS):
        updates, state = update(gradient, state)
        steps.append(-float(updates["w"][0]))
    assert max(steps) == pytest.approx(settings.learning_rate, rel=1e-2)
    assert 0 < steps[-1] < 1e-2 * max(steps)


TIMES = st.lists(st.floats(0.1, 10), min_size=4, max_size=4)


@given(TIMES, TIMES, st.floats(1, 5))
def test_ratios_are_taken_within_a_seed(ours: list[float], load: list[float], factor: float) -> None:
    """A load that slows a whole seed slows both sides, and leaves the ratio as it is."""
    rows = [
        speedrun.Row(seed // 2, entry, seed, times * load[seed] * scale, times * scale, 0.99, 0.0)
        for entry, scale in ((speedrun.OURS, 1.0), (speedrun.PEER, factor))
        for seed, times in enumerate(ours)
    ]
    summary = speedrun.summarise(rows)
    for name in ("times as fast", "times as fast, processor time"):
        np.testing.assert_allclose(list(summary[name].values()), factor)


def test_the_command_writes_what_it_measures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def side(name: str, seconds: float) -> Any:
        return lambda *_: lambda launch, seed: speedrun.Row(launch, name, seed, seconds, seconds, 0.99, 0.5)

    monkeypatch.setattr(speedrun, "load", lambda *_, **__: TINY)
    monkeypatch.setattr(speedrun, "compiled", side(speedrun.OURS, 1.0))
    monkeypatch.setattr(speedrun, "peer", side(speedrun.PEER, 3.0))
    monkeypatch.setattr(speedrun, "launched", lambda race, launches: [race(*each) for each in launches])
    speedrun.Speedrun(seeds=2, launches=2, first_seed=5, out=tmp_path / "out")()
    summary = read_json(tmp_path / "out/summary.json")
    assert summary is not None and summary["times as fast"]["median"] == 3
    lines = (tmp_path / "out/results.csv").read_text().splitlines()[1:]
    assert [line.split(",")[1:3] for line in lines] == [
        [name, seed]
        for seed, names in (("5", ("cnnjax", speedrun.PEER)), ("6", (speedrun.PEER, "cnnjax")))
        for name in names
    ]
    assert "times as fast: 3.00" in (printed := capsys.readouterr().out) and "±" not in printed


def test_no_two_launches_of_the_peer_train_the_same_networks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seeds = []

    class Idle(nullcontext[Any]):
        def __init__(self, _: str, __: Any, setting: Any, *___: Any) -> None:
            super().__init__(self)
            seeds.append(setting.seed)

        def answer(self) -> None: ...

        def epoch(self) -> dict[str, float]:
            return {"seconds": 1.0, "processor_seconds": 1.0, "elsewhere": 0.0}

        def ask(self, _: str) -> dict[str, float]:
            return {"val_accuracy": 0.99}

    def ours(_: Any) -> speedrun.Runner:
        return lambda launch, seed: speedrun.Row(launch, speedrun.OURS, seed, 1.0, 1.0, 0.99, 0.5)

    monkeypatch.setattr(speedrun, "load", lambda *_, **__: TINY)
    monkeypatch.setattr(speedrun, "compiled", ours)
    monkeypatch.setattr(speedrun, "interpreter", lambda *_: Path("python"))
    monkeypatch.setattr(speedrun, "Worker", Idle)
    monkeypatch.setattr(speedrun, "launched", lambda race, launches: [race(*each) for each in launches])
    speedrun.Speedrun(seeds=4, launches=2, first_seed=5, out=tmp_path / "out")()
    assert sorted(set(seeds)) == [5, 7]


def test_the_printed_accuracy_has_its_t_interval(capsys: pytest.CaptureFixture[str]) -> None:
    rows = [
        speedrun.Row(0, entry, seed, 1.0, 1.0, accuracy, 0.0)
        for entry in (speedrun.OURS, speedrun.PEER)
        for seed, accuracy in enumerate((0.98, 0.99, 0.98, 0.99))
    ]
    speedrun.show(speedrun.summarise(rows))
    mean, half, _ = t_interval(np.array([98.0, 99.0, 98.0, 99.0]))
    assert f"{mean:.3f} [{mean - half:.3f}, {mean + half:.3f}]" in capsys.readouterr().out
