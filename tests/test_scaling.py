"""scaling.py: its conclusions follow from its measurements."""

from pathlib import Path

import numpy as np
import pytest
import scaling
from ceilings import conclusions, figures
from ceilings.measurements import Ceilings, fit, least_seconds
from costs import StepCost, cost, products, step_cost
from hypothesis import given
from hypothesis import strategies as st

from cnnjax import plots
from cnnjax.models import MODELS

BATCHES = (32, 256, 2048)
MODEL = MODELS["keras-cnn"]


@given(fixed=st.floats(0, 1), image=st.floats(1e-6, 1))
def test_a_fit_recovers_its_parts(fixed: float, image: float) -> None:
    fitted = fit(BATCHES, [fixed + image * batch for batch in BATCHES])
    np.testing.assert_allclose(fitted, (fixed, image), rtol=1e-6, atol=1e-9 + 1e-6 * fixed)


def test_no_part_of_a_fit_is_negative() -> None:
    assert fit(BATCHES, [1e-3, 1e-1, 10.0]).fixed == 0
    assert fit(BATCHES, [3e-3, 2e-3, 1e-3]).image == 0


def test_the_cost_of_a_step_by_hand() -> None:
    """The first tutorial's network: 9 taps of which the edge lacks some, 1,960 x 100 and 100 x 10."""
    taps = (3 * 28 - 2) ** 2
    assert products(MODEL) == [2 * 10 * taps, 2 * 1960 * 100, 2 * 100 * 10]
    assert step_cost(MODEL, 7).flops == 7 * (2 * 2 * 10 * taps + 3 * 2 * (1960 * 100 + 100 * 10))
    assert step_cost(MODEL, 0).bytes == 40 * 197_210
    each = step_cost(MODEL, 1).bytes - step_cost(MODEL, 0).bytes
    assert each == 784 + 5 * cost(MODEL).activation_bytes


def test_the_ceiling_is_the_slower_of_the_two() -> None:
    ceilings = Ceilings(flops=1e9, bandwidth=1e6)
    assert least_seconds(StepCost(2_000_000_000, 1), ceilings) == 2
    assert least_seconds(StepCost(1, 3_000_000), ceilings) == 3


def timings(image: float = 1e-5, bend: float = 1.0) -> conclusions.Timings:
    """Times as if a step took 1 ms and 10 µs an image, and `bend` times that in the largest batch."""
    rounds = np.array([1.0, 1.0, 5.0])
    seconds = {f"batch {batch}": rounds * (1e-3 + image * batch) for batch in BATCHES}
    seconds["batch 2048"] = seconds["batch 2048"] * bend
    for batch in (32, 256):
        whole = float(np.median(seconds[f"batch {batch}"]))
        for part, share in zip(conclusions.PARTS, (0.25, 0.5, 0.75), strict=False):
            seconds[f"batch {batch}, {part}"] = rounds * whole * share
    for batch in (256, 2048):
        seconds[f"batch {batch}, 2 devices"] = seconds[f"batch {batch}"] / 1.6
    seconds["2 networks"] = 2 * 0.5 * seconds["batch 32"]
    return conclusions.Timings(MODEL, BATCHES, [2], [2], seconds, Ceilings(1e11, 1e10))


def launch(of: conclusions.Timings) -> scaling.Launched:
    return scaling.Launched(of.batches, of.devices, of.members, of.seconds, of.ceilings)


def test_the_report_has_the_measured_numbers(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def twice(model: object, batch: int, hparams: object) -> StepCost:
        ours = step_cost(MODEL, batch)
        return StepCost(2 * ours.flops, 3 * ours.bytes)

    monkeypatch.setattr(conclusions, "counted_by_xla", twice)
    record = conclusions.describe(timings(), "caption")
    printed = capsys.readouterr().out
    np.testing.assert_allclose(list(record["fit"].values()), [1e-3, 1e-5])
    assert "1.000 ms plus 10.00 µs per image; the two are equal at batch 100" in printed
    assert "Shares of a step at batch 32: forward 25%, backward 25%, Adam 25%, dropout 25%." in printed
    assert "batch 256 on 2 devices: 1.60 times as fast as on one." in printed
    assert (
        "2 networks in one program: 0.660 ms per step and network, 0.50 times that of one alone." in printed
    )
    assert "2.00 times our operations and 3.00 times our bytes" in printed
    assert "An image is cheapest at the largest batch, 2,048." in printed
    for batch, share in record["achieved"].items():
        seconds = 1e-3 + 1e-5 * int(batch)
        assert share == pytest.approx(
            least_seconds(step_cost(MODEL, int(batch)), timings().ceilings) / seconds
        )
    scaling._write(tmp_path, [launch(timings())] * 2, timings(), record, "caption", 3)
    assert {path.name for path in tmp_path.iterdir()} == {"results.csv", "summary.json", "scaling.png"}
    lines = (tmp_path / "results.csv").read_text().splitlines()
    assert len(lines) == 1 + 2 * 3 * len(timings().seconds)


def test_the_value_of_a_launch_is_the_median_of_its_rounds() -> None:
    slow = launch(timings(image=2e-5))._replace(ceilings=Ceilings(2e11, 1e9))
    joined = scaling.over_launches(MODEL, [launch(timings()), slow])
    np.testing.assert_allclose(joined.seconds["batch 256"], [1e-3 + 256e-5, 1e-3 + 512e-5])
    assert joined.ceilings == (2e11, 1e10), "the best of all launches"


def test_a_bend_is_reported() -> None:
    bent = timings(bend=1.5)
    *sentences, last = conclusions.conclusions(bent, fit(BATCHES, bent.over_batches), [0.1, 1.2, 0.3])
    assert any("An image is cheapest at batch 256" in sentence for sentence in sentences)
    assert any("it takes 13% longer" in sentence for sentence in sentences)
    assert "Above 100%" in last
    others = "batch 32 reaches 10%, batch 2,048 reaches 30%"
    assert f"Batch 256 comes closest to the ceiling with 120%; {others}." in sentences
    sentences = conclusions.conclusions(bent, fit(BATCHES, bent.over_batches), [0.9, 0.2, 0.3])
    assert "Batch 32 comes closest to the ceiling with 90%; batch 2,048 reaches 30%." in sentences


def test_one_device_can_be_drawn() -> None:
    figure = figures.scaling(
        BATCHES, np.ones((3, 2)), {"line": [1, 2, 3]}, {"batch 32": ([1], [1.0])}, ([1], [0.1]), 0.1
    )
    assert plots.png(figure).startswith(b"\x89PNG")


@pytest.mark.slow
def test_it_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scaling.Scaling(
        batches=(64,),
        devices=(2,),
        populations=(1,),
        model="lenet-swish",
        compute_dtype="bfloat16",
        seeds=1,
        rounds=1,
        epochs=1,
        out=tmp_path / "out",
    )()
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "results.csv",
        "summary.json",
        "scaling.png",
    }
    assert "batch 64 on 2 devices" in capsys.readouterr().out
