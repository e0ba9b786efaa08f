"""The figures show all they are given, and are written whole or not at all."""

import os
import re
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from reports import LONG

from cnnjax import plots, report
from cnnjax.data.published import published_history
from cnnjax.plots import style
from cnnjax.plots.arms import final_by_arm, generalisation_gap, metric_bands
from cnnjax.stats import summarise
from cnnjax.stats.intervals import t_interval

HERE = Path(__file__).parents[1]
EPOCHS = np.arange(1, 8)
RATES = (0.0, 0.25, 0.5, 0.75)
NAMES = ["no dropout", "dropout 0.25", "dropout 0.5", "dropout 0.75"]


def members(arms: int = 4, seeds: int = 3, epochs: int = 7) -> np.ndarray:
    draw = np.random.default_rng(0)
    level = np.linspace(0.3, 0.1, epochs) + draw.normal(0, 0.01, (arms, 1, epochs))
    return level + draw.normal(0, 0.01, (arms, seeds, epochs))


def legend(figure: Figure) -> list[str]:
    """Its labels, with the spaces where their lines break."""
    (found,) = figure.subfigs[0].legends
    return [" ".join(text.get_text().split()) for text in found.get_texts()]


def assert_shows(axis: Axes, x: np.ndarray, y: np.ndarray) -> None:
    (left, right), (bottom, top) = axis.get_xlim(), axis.get_ylim()
    assert left <= np.min(x) and np.max(x) <= right
    assert bottom <= np.min(y) and np.max(y) <= top


def history(epochs: int) -> list[dict[str, float]]:
    return [
        {"epoch": e, "loss": 1 / e, "accuracy": 1 - 0.1 / e, "val_loss": 2 / e, "val_accuracy": 0.9}
        for e in range(1, epochs + 1)
    ]


@pytest.mark.parametrize("epochs", [1, 5, 30])
@pytest.mark.parametrize("rate", [0.5, None])
def test_training_curves_show_our_run_and_the_published_one(epochs, rate):
    published = published_history("keras-cnn", "mnist", rate) if rate else None
    rows = history(epochs)
    figure = plots.training_curves(rows, published, "title", "caption")
    for axis, metric in zip(figure.axes, ("loss", "accuracy"), strict=True):
        drawn = {str(line.get_label()): np.asarray(line.get_ydata()) for line in axis.lines}
        np.testing.assert_array_equal(drawn["training"], [row[metric] for row in rows])
        np.testing.assert_array_equal(drawn["validation"], [row["val_" + metric] for row in rows])
        if published:
            np.testing.assert_array_equal(
                drawn["published, one run: validation"], [row["val_" + metric] for row in published]
            )
        for row in [*rows, *(published or [])]:
            shown = np.array([row[metric], row["val_" + metric]])
            assert_shows(axis, np.array([row["epoch"]]), shown)
    assert len(legend(figure)) == (4 if published else 2)


def test_published_runs_are_those_the_tutorial_printed():
    for rate, accuracy, loss in ((0.0, 0.9837, 0.0898), (0.5, 0.9885, 0.0417)):
        rows = published_history("keras-cnn", "mnist", rate)
        assert rows is not None
        assert [row["epoch"] for row in rows] == list(range(1, 21))
        assert (rows[-1]["val_accuracy"], rows[-1]["val_loss"]) == (accuracy, loss)
    for other in (("keras-cnn", "mnist", 0.25), ("lenet-swish", "mnist", 0.5)):
        assert published_history(*other) is None
    assert published_history("keras-cnn", "kmnist", 0.5) is None


def test_confusion_matrix_prints_every_count_and_colours_errors_only():
    counts = np.diag([5000, 3, 7]) + np.array([[0, 2, 0], [0, 0, 9], [1, 0, 0]])
    figure = plots.confusion_matrix(counts, ["a", "b", "c"], "test images")
    axis = figure.axes[0]
    printed = {t.get_position(): t.get_text() for t in axis.texts}
    # A position is (column, row): row is the true class, as in the labels of the axes.
    assert printed == {(c, r): str(counts[r, c]) for r, c in zip(*counts.nonzero(), strict=True)}
    assert (axis.get_xlabel(), axis.get_ylabel()) == ("predicted class", "true class")
    (image,) = axis.images
    assert image.get_clim() == (0, 9)
    assert np.ma.getmaskarray(np.ma.asarray(image.get_array())).tolist() == np.eye(3, dtype=bool).tolist()
    assert "12 of 5,022" in figure.get_suptitle()


@pytest.mark.parametrize("right", [0, 1])
def test_confusion_matrix_of_a_perfect_or_an_empty_test(right):
    figure = plots.confusion_matrix(right * np.eye(10, dtype=int), list("0123456789"))
    assert f"0 of {10 * right}" in figure.get_suptitle()
    assert [t.get_text() for t in figure.axes[0].texts] == [str(right)] * 10
    assert plots.png(figure).startswith(b"\x89PNG")


@settings(deadline=None, max_examples=10)
@given(arms=st.integers(1, 14), seeds=st.integers(1, 4), epochs=st.integers(1, 30))
def test_every_arm_is_in_the_legend_and_in_sight_and_looks_different(arms, seeds, epochs):
    values, names = members(arms, seeds, epochs), [f"arm {i}" for i in range(arms)]
    figure = metric_bands(np.arange(epochs), values, names, "loss", mark_lowest=True)
    (axis,) = figure.axes
    assert [label.split(" (")[0] for label in legend(figure)] == names
    assert all(f"(n={seeds})" in label for label in legend(figure))
    assert_shows(axis, np.arange(epochs), values.mean(axis=1))
    lines = [line for line in axis.lines if str(line.get_label()).startswith("arm")]
    looks = {(line.get_color(), line.get_linestyle(), line.get_marker()) for line in lines}
    assert len(looks) == arms


def test_band_is_the_t_interval_of_the_mean():
    from scipy.stats import t

    values = members(1, seeds=4)
    mean, half, n = t_interval(values[0], axis=0)
    low, high = t.interval(0.95, 3, mean, values[0].std(axis=0, ddof=1) / 2)
    np.testing.assert_allclose([mean - half, mean + half], [low, high])
    assert (n == 4).all()
    band = metric_bands(EPOCHS, values, ["a"], "loss").axes[0].collections[0]
    edge = np.asarray(band.get_paths()[0].vertices)[:, 1]
    assert (edge.min(), edge.max()) == pytest.approx((low.min(), high.max()))


def test_the_interval_of_a_single_epoch_can_be_seen():
    values = np.random.default_rng(0).normal(size=(2, 5, 1))
    axis = plots.Figure().subplots()
    plots.draw_bands(axis, np.array([1]), values, ["a", "b"])
    bars: Any = axis.collections
    for bar, arm in zip(bars, values[:, :, 0], strict=True):
        (ends,) = bar.get_segments()
        mean, half, _ = t_interval(arm)
        np.testing.assert_allclose(ends, [[1, mean - half], [1, mean + half]])


def test_no_interval_is_drawn_of_fewer_than_four_seeds():
    few, enough = (final_by_arm(members(2, n)[:, :, -1], NAMES[:2], "accuracy") for n in (3, 4))
    bands = metric_bands(EPOCHS, members(2, 3), NAMES[:2], "accuracy")
    assert "too few seeds" in legend(few)[-1] and "95% t interval" in legend(enough)[-1]
    assert "too few seeds" in bands.subfigs[0].legends[0].get_title().get_text()
    low, high = bands.axes[0].get_ylim()
    spread = np.ptp(members(2, 3))
    assert high - low < 1.2 * spread, "no interval stretches the axis"


@pytest.mark.parametrize(("metric", "points"), [("loss", False), ("accuracy", True)])
def test_the_differences_beside_the_arms_have_both_intervals(metric, points):
    values = members(4, 10)[:, :, -1]
    contrasts = summarise(values, NAMES).contrasts
    for rates in ((), RATES):
        figure = final_by_arm(values, NAMES, metric, contrasts, rates=rates)
        arms, axis = figure.axes
        if rates:
            assert [text.get_text() for text in axis.get_yticklabels()] == NAMES[1:]
        else:  # the rows are those of the arms
            figure.draw_without_rendering()
            heights = [[a.transData.transform((0, row))[1] for a in (arms, axis)] for row in range(4)]
            np.testing.assert_allclose([of_arm for of_arm, _ in heights[1:]], [of for _, of in heights[:3]])
        bars: Any = axis.collections[:2]
        thick, thin = ([line[:, 0] for line in c.get_segments()] for c in bars)
        scale = 100 if points else 1
        for i, c in enumerate(contrasts):
            np.testing.assert_allclose(thick[i], scale * np.array([c.low, c.high]))
            np.testing.assert_allclose(thin[i], scale * np.array([c.test_low, c.test_high]))
        assert ("points" in axis.get_xlabel()) == points and NAMES[0] in axis.get_xlabel()
        assert "t interval" in legend(figure) and "interval of the test" in " ".join(legend(figure))


def test_ring_is_where_the_validation_loss_is_lowest():
    validation = members()
    validation[1, :, 3] = 0.01
    for figure in (
        metric_bands(EPOCHS, validation, NAMES, "validation loss", mark_lowest=True),
        generalisation_gap(EPOCHS, 2 * validation, validation, NAMES),
    ):
        assert "ring at epoch 4" in legend(figure)[1]
        rings = [line for line in figure.axes[0].lines if line.get_markerfacecolor() == "none"]
        assert len(rings) == 4 and rings[1].get_xdata() == [4]


def test_generalisation_gap_is_validation_minus_training():
    train, validation = members(), members() + 0.25
    (axis,) = generalisation_gap(EPOCHS, train, validation, NAMES).axes
    lines = [line for line in axis.lines if "dropout" in str(line.get_label())]
    gaps = np.array([line.get_ydata() for line in lines], float)
    np.testing.assert_allclose(gaps, np.full((4, 7), 0.25))


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_diverged_members_break_nothing_and_are_not_counted(bad, tmp_path):
    values = members()
    values[0, 1, 4:] = bad
    values[2] = bad
    whole = np.delete(values[0], 1, axis=0).mean(axis=0)
    bands = metric_bands(EPOCHS, values, NAMES, "loss", mark_lowest=True)
    gap = generalisation_gap(EPOCHS, members(), values, NAMES)
    for figure in (bands, gap):
        counts = [re.search(r"n=\d", label) for label in legend(figure)]
        assert [count and count[0] for count in counts] == ["n=2", "n=3", "n=0", "n=3"]
    line = next(x for x in bands.axes[0].lines if str(x.get_label()).startswith("no dropout"))
    np.testing.assert_allclose(np.asarray(line.get_ydata(), float), whole)
    final = final_by_arm(values[:, :, -1], NAMES, "accuracy", rates=RATES)
    assert "n=0 to 3" in "".join(legend(final))
    rows = [{key: bad for key in history(1)[0]} | {"epoch": 1.0}]
    for figure in (bands, gap, final, plots.training_curves(rows)):
        plots.png(figure)


@pytest.mark.parametrize("seeds", [1, 6])
def test_arms_with_rates_are_sorted_by_rate_and_show_every_seed(seeds):
    rates, values = (0.5, 0.0, 0.75), members(3, seeds)[:, :, -1]
    figure = final_by_arm(values, ["half", "none", "most"], "validation accuracy", rates=rates)
    (axis,) = figure.axes
    thin, mean = axis.lines[:seeds], next(x for x in axis.lines if x.get_color() != style.GREY)
    for line, seed in zip(thin, values.T, strict=True):
        np.testing.assert_array_equal(line.get_xdata(), [0, 0.5, 0.75])
        np.testing.assert_array_equal(line.get_ydata(), seed[[1, 0, 2]])
    np.testing.assert_allclose(np.asarray(mean.get_ydata(), float), values.mean(axis=1)[[1, 0, 2]])
    assert_shows(axis, np.array(rates), values)
    assert f"n={seeds}" in "".join(legend(figure))


@pytest.mark.parametrize("names", [NAMES, [f"{name} {LONG}" for name in NAMES]])
def test_title_and_caption_are_shown_and_nothing_overlaps_the_legend(names):
    figure = metric_bands(
        EPOCHS, members(), names, "loss", title="A title", caption="word " * 60, mark_lowest=True
    )
    figure.draw_without_rendering()
    assert figure.get_suptitle() == "A title" and figure.get_supxlabel().startswith("word")
    axes, box = figure.axes[0].get_tightbbox(), figure.subfigs[0].legends[0].get_window_extent()
    captions = [figure._supxlabel.get_window_extent(), figure._suptitle.get_window_extent()]  # pyright: ignore
    assert axes is not None and not box.overlaps(axes)
    assert not any(text.overlaps(other) for text in captions for other in (axes, box))
    for shown in (axes, box, *captions):
        assert shown.x0 >= 0 and shown.x1 <= figure.bbox.x1 and shown.y0 >= 0 and shown.y1 <= figure.bbox.y1


def test_the_same_figure_gives_the_same_bytes():
    first, second = (plots.png(plots.training_curves(history(3), None, "title")) for _ in range(2))
    assert first == second
    assert first.startswith(b"\x89PNG")


@pytest.mark.parametrize("backend", ["module://matplotlib_inline.backend_inline", "svg"])
def test_the_backend_of_the_environment_does_not_matter(backend: str) -> None:
    """A notebook's is inherited by what it starts; a backend that exists stays pyplot's."""
    lines = (
        "import os",
        "from cnnjax.plots import style",
        "import matplotlib",
        "png = style.png(style.frame(4, 3, 'title', 'caption')[0])",
        "print(png[1:4].decode(), os.environ['MPLBACKEND'], matplotlib.get_backend(auto_select=False))",
    )
    env = os.environ | {"MPLBACKEND": backend, "PYTHONPATH": str(HERE)}
    command = [sys.executable, "-c", "\n".join(lines)]
    done = subprocess.run(command, capture_output=True, text=True, env=env)
    known = backend if backend in ("QtAgg", "svg") else None
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["PNG", backend, str(known)]


def test_a_figure_that_fails_is_told_and_has_no_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "bad.png").write_bytes(b"of an earlier run")
    good = partial(plots.training_curves, history(2), None, "title", "caption")

    def bad() -> Figure:
        with rc_context({"text.usetex": True, "text.latex.preamble": r"\nonsense"}):
            figure = good()
            figure.axes[0].set_title("$\\undefined$", usetex=True)
        return figure

    def worse() -> Figure:
        raise ValueError("no\nfigure")

    report.draw(tmp_path, {"bad.png": bad, "worse.png": worse, "good.png": good})
    assert {path.name for path in tmp_path.iterdir()} == {"good.png"}
    assert (tmp_path / "good.png").read_bytes() == plots.png(good())
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(" ", 1)[0] for line in lines] == ["bad.png", "worse.png"]
    assert all("cannot be drawn, but the numbers are complete" in line for line in lines)
