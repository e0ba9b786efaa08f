"""The benchmark: protocol, turns and statistics, with fake peers that train nothing."""

import importlib
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import benchmark_peers as benchmark
import numpy as np
import pytest
from ceilings.measurements import Ceilings
from costs import step_cost
from hypothesis import given
from hypothesis import strategies as st
from peers import calibration, comparison, entries, protocol, results, worker
from peers.protocol import Settings
from peers.worker import Row

from cnnjax.data import Dataset
from cnnjax.errors import ArgumentError, UserError
from cnnjax.models import MODELS
from cnnjax.runs import programs
from cnnjax.runs.train_config import TrainConfig

pytestmark = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="the benchmark reads /proc")

PEERS = Path(__file__).parent.parent / "experiments/peers"
FAKE = """
import json, os, sys, time
import numpy as np
from protocol import PARAMETERS, EpochResult, Peer, serve

def build(settings, arrays):
    diary = open(os.environ["DIARY"], "a", buffering=1)
    epochs = 0
    print("a library talks")

    def note(what):
        print(os.environ["NAME"], what, file=diary)

    def train_epoch():
        nonlocal epochs
        epochs += 1
        if f"{os.environ['NAME']} {epochs}" == os.environ.get("FAILS"):
            raise RuntimeError("out of chalk")
        note("begins")
        time.sleep(0.02)
        note("ends")
        return EpochResult(arrays.train_images.mean(), epochs / 100, 0.5 if settings.validate else None)

    def evaluate():
        note("evaluates")
        return epochs / 1000

    parameters = PARAMETERS[settings.model] + int(os.environ.get("EXTRA", 0))
    return Peer({"fake": os.environ["VERSION"]}, parameters, train_epoch, evaluate)

serve(build)
"""
NAMES = ("cnnjax", "b", "c")
BEST = Ceilings(1e9, 1e8)


TRAINING = Settings("keras-cnn", 32, 0.5, False, 0)
VALIDATING = TRAINING._replace(validate=True)


def arrays(train: int, val: int) -> Any:
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, (n, 28, 28, 1), dtype=np.uint8) for n in (train, val)]
    labels = [np.arange(n, dtype=np.int32) % 10 for n in (train, val)]
    return protocol.Arrays(images[0], labels[0], images[1], labels[1])


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("arrays") / "arrays.npz"
    np.savez(path, allow_pickle=False, **arrays(6, 4)._asdict())
    return path


def fakes(directory: Path, names: tuple[str, ...] = NAMES, **variables: str) -> dict[str, Any]:
    script = directory / "fake_peer.py"
    script.write_text(FAKE)
    common = {"PYTHONPATH": str(PEERS), "DIARY": str(directory / "diary"), "VERSION": "1"}
    return {
        name: worker.Launch([sys.executable, str(script)], common | {"NAME": name} | variables)
        for name in names
    }


def rows_of(
    setting: Any, seconds: dict[str, list[float]], slowness: Mapping[int, float] = MappingProxyType({})
) -> list[Any]:
    """Rows whose round 0 is slower and larger than all others, and whose accuracy is that of the epoch."""
    return [
        Row(
            *setting[:4],
            entry=entry,
            round=number,
            seconds=value,
            loss=0.1,
            accuracy=0.9,
            val_accuracy=number / 10 if number == worker.ACCURACY_EPOCH - 1 else np.nan,
            peak_rss_mb=100.0 + number,
            startup_seconds=9.0 if number == 0 else np.nan,
            elsewhere=0.0,
            flops=slowness.get(number, 1.0) * BEST.flops,
            bandwidth=BEST.bandwidth,
            version="1",
        )
        for entry, each in seconds.items()
        for number, value in enumerate([1000.0, *each])
    ]


# Protocol ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("setting", [TRAINING, VALIDATING])
def test_rounds_alternate_and_one_trains_at_a_time(tmp_path: Path, stored: Path, setting: Any) -> None:
    rounds = list(worker.measure(setting, fakes(tmp_path), stored, 3, tmp_path, lambda: BEST))
    assert [[(row.entry, row.round) for row in rows] for rows in rounds] == [
        [(name, number) for name in NAMES] for number in range(4)
    ]
    turn = [[f"{name} begins", f"{name} ends"] for name in NAMES]
    judged = [pair if setting.validate else [*pair, f"{pair[0].split()[0]} evaluates"] for pair in turn]
    expected = [turn, turn, judged, turn]
    diary = (tmp_path / "diary").read_text().splitlines()
    assert diary == [line for number in expected for pair in number for line in pair]


@pytest.mark.parametrize("setting", [TRAINING, VALIDATING])
def test_what_a_peer_says_is_in_its_row(tmp_path: Path, stored: Path, setting: Any) -> None:
    rounds = list(worker.measure(setting, fakes(tmp_path, ("cnnjax",)), stored, 2, tmp_path, lambda: BEST))
    for number, (row,) in enumerate(rounds):
        assert row.setting == setting
        assert row.accuracy == (number + 1) / 100
        assert row.loss == arrays(6, 4).train_images.mean()
        assert row.peak_rss_mb > 0 and row.seconds >= 0.02 and row.elsewhere >= 0
        assert row.version.startswith("fake 1, code ")
        assert np.isnan(row.startup_seconds) == (number > 0)
        accuracy = 0.5 if setting.validate else {2: 0.003}.get(number, np.nan)
        np.testing.assert_equal(row.val_accuracy, accuracy)
    assert rounds[0][0].startup_seconds > rounds[0][0].seconds


def test_a_peer_with_another_network_is_refused(tmp_path: Path, stored: Path) -> None:
    launches = fakes(tmp_path, ("cnnjax",), EXTRA="1")
    with pytest.raises(UserError, match=r"cnnjax failed.*197211 parameters"):
        list(worker.measure(TRAINING, launches, stored, 2, tmp_path, lambda: BEST))


def test_a_peer_that_fails_ends_all_of_them(tmp_path: Path, stored: Path) -> None:
    rounds = worker.measure(TRAINING, fakes(tmp_path, FAILS="b 2"), stored, 2, tmp_path, lambda: BEST)
    assert len(next(rounds)) == 3
    with pytest.raises(UserError, match="the peer b failed: RuntimeError: out of chalk"):
        next(rounds)
    assert (tmp_path / "diary").read_text().splitlines()[-1] == "cnnjax ends"


def test_peers_inherit_no_setting_of_a_library(
    tmp_path: Path, stored: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    script = tmp_path / "nosy.py"
    script.write_text(
        "import json, os\nprint(json.dumps({'version': {k: v for k, v in os.environ.items() if '_' in k}}))"
    )
    launch = worker.Launch([sys.executable, str(script)], {"KERAS_BACKEND": "jax"})
    with worker.Worker("nosy", launch, TRAINING, stored, tmp_path / "log") as nosy:
        variables = nosy.answer()["version"]
    assert "OMP_NUM_THREADS" not in variables
    assert variables["KERAS_BACKEND"] == "jax" and variables["JAX_PLATFORMS"] == "cpu"


# Results ----------------------------------------------------------------------------------------------------


def test_rows_survive_the_file(tmp_path: Path, stored: Path) -> None:
    rows = [
        row
        for each in worker.measure(TRAINING, fakes(tmp_path), stored, 2, tmp_path, lambda: BEST)
        for row in each
    ]
    rows += rows_of(VALIDATING, {"cnnjax": [1 / 3, 2.0]})
    results.write_rows(tmp_path / "results.csv", rows)
    again = results.read_rows(tmp_path / "results.csv")
    assert list(map(repr, again)) == list(map(repr, rows))  # NaN equals nothing, its text does
    assert list(results.grouped(again)) == [TRAINING, VALIDATING]


def test_a_damaged_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "results.csv").write_text("model,batch_size\nkeras-cnn,many\n")
    with pytest.raises(UserError, match="damaged"):
        results.read_rows(tmp_path / "results.csv")
    assert results.read_rows(tmp_path / "none.csv") == []


def test_a_setting_is_kept_whole_or_not_at_all(tmp_path: Path) -> None:
    path, whole = tmp_path / "results.csv", rows_of(TRAINING, {"cnnjax": [1, 1, 1], "flax": [2, 2, 2]})
    other = rows_of(VALIDATING, {"cnnjax": [1, 1], "flax": [2, 2]})
    results.write_rows(path, [*whole, *other])
    both = {"cnnjax", "flax"}

    def kept(wanted: list[Any], names: set[str], rounds: int) -> list[Any]:
        return list(results.grouped(results.kept_rows(path, wanted, names, rounds)))

    assert kept([TRAINING], both, 3) == kept([TRAINING], {"cnnjax"}, 2) == [TRAINING, VALIDATING]
    assert kept([TRAINING], both, 4) == kept([TRAINING], both | {"torch-1"}, 3) == [VALIDATING]
    assert kept([TRAINING, VALIDATING], both, 3) == [TRAINING]
    results.write_rows(path, [*whole[:-1], *other])  # interrupted within its last round
    assert kept([], both, 2) == [VALIDATING]
    results.write_rows(path, [row for row in whole if row.entry == "flax"])
    assert kept([], both, 2) == []


def test_other_versions_are_refused(tmp_path: Path) -> None:
    rows = rows_of(TRAINING, {"cnnjax": [1.0, 1.0]})
    results.refuse_other_versions(rows, rows, tmp_path)
    with pytest.raises(ArgumentError, match="another cnnjax"):
        results.refuse_other_versions(rows, [rows[0]._replace(version="2")], tmp_path)


SECONDS = st.lists(st.floats(0.01, 100), min_size=5, max_size=5)


@given(SECONDS, SECONDS, st.floats(0.5, 20))
def test_ratios_are_taken_within_a_round(ours: list[float], load: list[float], factor: float) -> None:
    """A load that slows a whole round slows both, and leaves the ratio as it is."""
    loaded = [a * b for a, b in zip(ours, load, strict=True)]
    rows = rows_of(TRAINING, {"cnnjax": loaded, "flax": [factor * value for value in loaded]})
    lines = {line.peer: line for line in comparison.compare(rows, BEST)}
    flax, ours_again = lines["flax"], lines["cnnjax"]
    np.testing.assert_allclose([flax.ratio, flax.least, flax.greatest], factor, rtol=1e-12)
    assert (ours_again.ratio, ours_again.least, ours_again.greatest) == (1, 1, 1)
    assert lines["cnnjax"].seconds == np.median(loaded)  # without round 0, of 1000 seconds
    for line in lines.values():
        assert (line.rounds, line.peak_rss_mb, line.startup_seconds) == (5, 105, 9)
        assert line.val_accuracy == (worker.ACCURACY_EPOCH - 1) / 10


@given(SECONDS, st.sets(st.integers(1, 5)), st.floats(1.2, 5))
def test_quiet_rounds_count_and_slow_ones_stand_beside(
    quiet: list[float], slow: set[int], factor: float
) -> None:
    measured = [value * factor ** (number in slow) for number, value in enumerate(quiet, 1)]
    rows = rows_of(TRAINING, {"cnnjax": measured}, {number: 1 / factor for number in slow})
    (line,) = comparison.compare(rows, BEST, least_seconds=0.01)
    counted = set(range(1, 6)) - slow or slow
    assert (line.rounds, line.quiet) == (len(counted), len(slow) < 5)
    assert line.seconds == np.median([measured[number - 1] for number in counted])
    assert line.of_ceiling == 0.01 / line.seconds
    others = [measured[number - 1] for number in slow - counted]
    assert line.slow_seconds == (np.median(others) if others else None)


def test_the_machine_is_measured_before_every_round(tmp_path: Path, stored: Path) -> None:
    rates = iter([Ceilings(number, 2 * number) for number in (1.0, 2.0, 3.0)])
    rounds = list(worker.measure(TRAINING, fakes(tmp_path), stored, 2, tmp_path, lambda: next(rates)))
    assert [{(row.flops, row.bandwidth) for row in rows} for rows in rounds] == [{(1, 2)}, {(2, 4)}, {(3, 6)}]
    assert calibration.best_rates([row for rows in rounds for row in rows]) == (3, 6)


def test_the_least_time_of_an_epoch_needs_counted_operations() -> None:
    least = calibration.least_seconds_of_epoch(TRAINING, 48_000, BEST)
    assert least == pytest.approx(1500 * max(step_cost(MODELS["keras-cnn"], 32)[i] / BEST[i] for i in (0, 1)))
    assert calibration.least_seconds_of_epoch(VALIDATING, 48_000, BEST) is None


@given(SECONDS, SECONDS)
def test_the_faster_torch_counts(one: list[float], two: list[float]) -> None:
    rows = rows_of(TRAINING, {"cnnjax": [1.0] * 5, "torch-1": one, "torch-2": two})
    lines = comparison.compare(rows, BEST)
    (torch,) = (line for line in lines if line.peer == "torch")
    assert torch.seconds == min(np.median(one), np.median(two))
    assert [line.seconds for line in lines] == sorted(line.seconds for line in lines)


@given(st.lists(SECONDS, min_size=2, max_size=4))
def test_the_unit_is_the_launch(times: list[list[float]]) -> None:
    rows = [
        row._replace(launch=launch)
        for launch, flax in enumerate(times)
        for row in rows_of(TRAINING, {"cnnjax": [1.0] * 5, "flax": flax})
    ]
    line = {line.peer: line for line in comparison.compare(rows, BEST)}["flax"]
    medians = np.median(times, axis=1)
    assert (line.launches, line.rounds) == (len(times), 5 * len(times))
    assert line.seconds == line.ratio == np.median(medians)
    assert (line.least, line.greatest) == (medians.min(), medians.max())


# The command and the real peer ------------------------------------------------------------------------------


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The command with fake peers, on the tiny set: call it with flags, get the epochs that were trained."""
    diary = tmp_path / "diary"

    def run(variables: dict[str, str] | None = None, **flags: Any) -> int:
        chosen = fakes(tmp_path, ("cnnjax", "flax"), **(variables or {}))
        monkeypatch.setattr(benchmark, "launches", lambda entries, environments: chosen)
        monkeypatch.setattr(benchmark, "calibrator", lambda: lambda: BEST)
        diary.write_text("")
        values = {"models": ("keras-cnn",), "modes": ("train",), "launches": 1, "out": tmp_path / "out"}
        data = {"dataset": "fashion_mnist", "data_dir": Path(__file__).parent / "data"}
        benchmark.BenchmarkPeers(**{**values, **data, **flags})()
        return diary.read_text().count("ends")

    return run


@pytest.mark.slow
def test_an_interrupted_benchmark_goes_on(command: Any, tmp_path: Path) -> None:
    out = tmp_path / "out"
    sizes: dict[str, Any] = {"batch_sizes": (32, 128), "rates": (0.0,)}
    with pytest.raises(UserError, match="out of chalk"):
        command({"FAILS": "flax 3"}, batch_sizes=(128,), rates=(0.0,))
    assert len(results.read_rows(out / "results.csv")) == 2 * 2, "a row for each peer and finished round"
    assert command(batch_sizes=(32,), rates=(0.0,)) == 2 * 3
    assert command(**sizes) == 2 * 3, "batch 32 is there"
    assert command(**sizes) == 0
    assert command(batch_sizes=(32,), rates=(0.0,), launches=2) == 2 * 3, "the second launch"
    assert len(results.read_rows(out / "results.csv")) == 3 * 2 * 3
    summary = json.loads((out / "summary.json").read_text())
    assert [setting["batch_size"] for setting in summary["settings"]] == [32, 128]
    assert {line["peer"] for line in summary["settings"][0]["peers"]} == {"cnnjax", "flax"}
    assert (out / "ratios.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(ArgumentError, match="another cnnjax"):
        command({"VERSION": "2"}, batch_sizes=(512,), rates=(0.0,))


def test_a_missing_environment_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="flax is missing"):
        entries.launches(entries.entries({"flax"}), tmp_path)
    assert list(entries.launches(entries.entries(()), tmp_path)) == ["cnnjax"]


@pytest.mark.parametrize(
    "flags", [{"models": ("none",)}, {"rates": (1.0,)}, {"batch_sizes": (0,)}, {"rounds": 1}, {"modes": ()}]
)
def test_values_that_cannot_be_used(flags: dict[str, Any]) -> None:
    with pytest.raises(ArgumentError, match="--"):
        benchmark.BenchmarkPeers(**flags)()


@pytest.fixture
def cnnjax_peer(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The peer's script, which imports its neighbours as when it is run."""
    monkeypatch.syspath_prepend(str(PEERS))
    return importlib.import_module("cnnjax_peer")


@pytest.mark.slow
def test_the_cnnjax_peer_is_what_train_runs(cnnjax_peer: Any) -> None:
    data = arrays(75, 20)
    train, val = Dataset(*data[:2]), Dataset(*data[2:])
    peer = cnnjax_peer.build(Settings("keras-cnn", 32, 0.5, True, 3), data)
    program = programs.build(TrainConfig(batch_size=32, seed=3), train, val)
    for end in programs.epochs(program, program.start, range(2)):
        result = peer.train_epoch()
        np.testing.assert_allclose(result.loss, end.row["loss"], rtol=1e-5)
        np.testing.assert_allclose(result.accuracy, end.row["accuracy"], rtol=1e-6)
        assert result.val_accuracy == peer.evaluate() == end.row["val_accuracy"]
    assert peer.parameters == protocol.PARAMETERS["keras-cnn"]


@pytest.mark.slow
def test_the_cnnjax_peer_trains_lenet_swish(cnnjax_peer: Any) -> None:
    peer = cnnjax_peer.build(Settings("lenet-swish", 32, 0.0, False, 0), arrays(64, 10))
    assert peer.parameters == protocol.PARAMETERS["lenet-swish"]
    losses = [peer.train_epoch() for _ in range(8)]
    assert losses[-1].loss < losses[0].loss and losses[0].val_accuracy is None
