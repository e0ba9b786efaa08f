"""Printed tables fit the terminal, and the pages' tables are those of the summaries."""

import json
from pathlib import Path

import evidence
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from sections.markdown import WIDTH, around, wrapped
from snippets import ROOT

from cnnjax.report import terminal
from cnnjax.stats.sentences import REHEARSAL

CELL = st.text("ab 0.±", max_size=20)
COLUMNS = st.integers(1, 6)


@given(COLUMNS.flatmap(lambda n: st.lists(st.lists(CELL, min_size=n, max_size=n), min_size=1, max_size=3)))
def test_parts_have_every_column_once_and_fit(rows: list[list[str]]) -> None:
    heads = [f"column {i}" for i in range(len(rows[0]))]
    made = terminal.parts(heads, rows, 40)
    assert [i for columns in made for i in columns if i] == list(range(1, len(heads)))
    for columns in made:
        assert columns[0] == 0
        widest = [max(len(row[i]) for row in [*rows, ["column"] * len(heads)]) + 3 for i in columns]
        assert len(columns) <= 2 or sum(widest) + 1 <= 40


def test_no_cell_is_broken_at_80_columns(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(terminal, "console", lambda: Console(width=80))
    cells = [
        "rate 0.25",
        "10",
        "98.49 ± 0.19",
        "0.0835 ± 0.0098",
        "-0.22 [-0.12, +0.43]",
        "0.031 (0.062) [+0.1, 1]",
    ]
    terminal.print_table(
        ["arm", "n", "val accuracy %", "val loss", "difference to the reference", "p"], [cells]
    )
    printed = capsys.readouterr().out
    assert max(map(len, printed.splitlines())) <= 80
    assert all(cell in printed for cell in cells) and printed.count("rate 0.25") == 2


@pytest.mark.parametrize("name", evidence.stored())
def test_the_pages_have_the_numbers_of_the_summaries(name: str) -> None:
    (page,) = [text for page in evidence.PAGES if f"<!-- {name} -->" in (text := page.read_text())]
    assert evidence.rewritten(page, {name: evidence.stored()[name]}) == page, "run make evidence"


def test_the_readme_has_the_primary_contrast_of_the_dropout_ablation() -> None:
    contrasts = evidence.stored()["dropout_ablation"]["val_accuracy"]["contrasts"]
    primary = next(contrast for contrast in contrasts if contrast["arm"] == "rate 0.5")
    found = (f"{100 * primary[name]:.2f}" for name in ("difference", "low", "high"))
    claim = "rate 0.5 adds {} points [{}, {}]".format(*found)
    assert f"{claim} (n = {primary['n']})" in (ROOT / "README.md").read_text()


def test_the_readme_has_the_answer_of_the_pooling_ablation() -> None:
    stored = evidence.stored()["pooling_ablation"].values()
    averages = [of["val_accuracy"]["contrasts"][0] for of in stored]
    assert all(contrast["arm"] == "average" and contrast["p_holm"] > 0.05 for contrast in averages)
    claim = f"The average does not differ significantly from it (n = {averages[0]['n']})"
    assert claim in (ROOT / "README.md").read_text()


def test_the_readme_has_the_count_of_the_reproduction() -> None:
    entries = [of for network in evidence.stored()["reproduce_tutorials"].values() for of in network.values()]
    compared = [of for of in entries if isinstance(of, dict) and of.get("within") is not None]
    inside, n = sum(of["within"] for of in compared), compared[0]["n"]
    where = "of two published runs, lie within our prediction intervals"
    claim = f"{inside} of {len(compared)} published values, {where} (n = {n})"
    assert claim in (ROOT / "README.md").read_text()


def test_a_changed_number_changes_the_page(tmp_path: Path) -> None:
    arm = {"name": "a", "n": 6, "diverged": 0, "mean": 0.5, "sd": 0.01}
    made = {
        "processor": "P",
        "host": {"cpus": 2},
        "device": {"kind": "cpu"},
        "versions": {"jax": "1"},
        "date": "d",
    }
    contrast = {
        **{
            "arm": "b",
            "difference": 0.01,
            "low": 0.002,
            "high": 0.018,
            "p": 0.03,
            "p_holm": 0.03,
            "family": 1,
            "alpha": 0.05,
        },
        **{"can_claim": True, "test_low": 0.001, "test_high": None},
    }
    record = {
        "protocol": "mnist",
        "conclusion": "It does.",
        "made": made,
        "val_accuracy": {"arms": [arm, arm | {"name": "b"}], "contrasts": [contrast]},
        "val_loss": {"arms": [arm, arm]},
    }
    (tmp_path / "evidence").mkdir()
    (tmp_path / "evidence/dropout_ablation.json").write_text(json.dumps(record))
    summaries = evidence.stored(tmp_path)
    page = evidence.rewritten("A\n<!-- dropout_ablation -->\nold\n<!-- /dropout_ablation -->\nB\n", summaries)
    assert "old" not in page and page.startswith("A\n") and page.endswith("B\n")
    assert "| b | 6 | 50.00 ± 1.00 | 0.5000 ± 0.0100 | +1.00 [+0.20, +1.80] | 0.030 (0.030) |" in page
    assert "(mnist. ± is" in page and "P, 2 cores, cpu, JAX 1, d.)" in page
    record["val_accuracy"]["contrasts"][0]["difference"] = 0.02
    assert evidence.rewritten(page, {"dropout_ablation": record}) != page


def test_no_line_of_a_paragraph_is_an_item_of_a_list() -> None:
    for length in range(WIDTH + 1):
        text = f"{'x' * length} dropout + max-norm, 3 - 2"
        lines = wrapped(text)
        assert " ".join(lines) == text and not any(line.startswith(("+", "-")) for line in lines)


def test_an_interval_is_written_as_its_ends() -> None:
    """The sign ± is for standard deviations, which every other table has after it."""
    assert around(0.99056, 0.00023, ".3f") == "99.056 [99.033, 99.079]"
    assert around(-0.0001, 0.0003, "+.2f", " points") == "-0.01 points [-0.04, +0.02]"
    assert around(0.99, None, ".1f", "%") == "99.0%"
    for name in ("accelerator", "speedrun"):
        lines = "\n".join(evidence.SECTIONS[name](evidence.stored()[name]))
        assert "±" not in lines and "[99.0" in lines and "95% t" in lines


def test_the_primary_contrast_of_the_dropout_ablation_has_an_interval_by_itself() -> None:
    head, *_ = evidence.SECTIONS["dropout_ablation"](evidence.stored()["dropout_ablation"])
    assert "difference to rate 0, points [95% t, jointly except rate 0.5]" in head


def test_the_answers_of_the_dropout_paper_speak_of_equality_only_where_it_is_possible() -> None:
    for name, of in evidence.stored()["dropout_paper"].items():
        answer, contrasts = of["answer"], of["contrasts"].values()
        margins = [c["equivalence"]["margin"] for c in contrasts]
        possible = [
            c["arm"] for c, m in zip(contrasts, margins, strict=True) if c["low"] <= m and c["high"] >= -m
        ]
        claimed = [sentence for sentence in answer.split(". ") if "to equal" in sentence]
        assert not (claimed and answer.startswith(REHEARSAL)), name
        for sentence in claimed:
            assert sentence.count("corrected p") == sum(f"{arm} (" in sentence for arm in possible), name


def test_the_readme_has_the_speed_on_a_cpu() -> None:
    settings = evidence.stored()["benchmark_peers"]["settings"]
    ratios = [min(line["ratio"] for line in of["peers"] if line["peer"] != "cnnjax") for of in settings]
    claim = f"On two cores {min(ratios):.1f} to {max(ratios):.1f} times as fast as the fastest"
    assert claim in (ROOT / "README.md").read_text()


def test_the_readme_has_the_answer_about_batchnorm() -> None:
    stored = evidence.stored()["batchnorm_or_dropout"]
    more = [of["contrasts"]["difference"] for of in stored.values()]
    assert list(stored) == ["mnist", "fashion_mnist"]
    assert all(contrast["significant"] and contrast["difference"] > 0 for contrast in more)
    claim = f"No: on MNIST and Fashion-MNIST, dropout gains more beside it (n = {more[0]['n']})"
    assert claim in (ROOT / "README.md").read_text()


def test_the_readme_has_the_speed_on_a_gpu() -> None:
    seconds = evidence.stored()["accelerator"]["speed"]["seconds per epoch"].values()
    assert all(min(of.values()) == of["cnnjax"] for of in seconds)
    ratios = [of["plain Flax"] / of["cnnjax"] for of in seconds]
    claim = f"on an H200, in one launch, {min(ratios):.1f} to {max(ratios):.1f} times as fast as plain Flax"
    assert claim in (ROOT / "README.md").read_text()


def test_the_readme_has_the_answer_of_the_dropout_paper() -> None:
    contrast = evidence.stored()["dropout_paper"]["table10"]["contrasts"]["Gaussian"]
    assert contrast["p_holm"] > 0.05 and contrast["equivalence"]["p"] < 0.05
    claim = f"equal to within {100 * contrast['equivalence']['margin']:g} points of test error"
    updates = evidence.stored()["dropout_paper"]["table10"]["updates"]["updates"][-1]
    assert f"Not after {updates:,} updates: {claim} (n = {contrast['n']})" in (ROOT / "README.md").read_text()
