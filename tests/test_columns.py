"""Every command fits a terminal of 80 columns: no line is wider, and no word is broken.

The words are compared with what is printed where there is no terminal.
"""

import itertools
import shutil
from pathlib import Path

import pytest
from helpers import TINY, main, succeeds, terminal, train, words

from cnnjax import cli

LONG = "some-directory-with-a-long-name"
"""Paths of more than half of the line are broken in a table, where nothing else can be done."""
DATA = ("--dataset", "fashion_mnist", "--data-dir", str(TINY))
COMMANDS = [
    f"evaluate {LONG}/run --split train",
    "predict run --first 3 --mc 2",
    f"predict run {LONG}/7.png",
    "predict run --mistakes",
    "export run",
    "summary",
    "data " + " ".join(DATA),
    "runs",
    f"compare run {LONG}/run other",
    f"verify run {LONG}/run other",
    f"verify {LONG}/broken",
    "power --effect 0.2 --sd 0.3 --margin 0.2",
    "report run other",
    "train --resume --out run",
    "trian",
    "train --model resnet",
    f"evaluate {LONG}/rnu",
]
COLOURS = {"colours": {}, "no colours": {"NO_COLOR": "1"}, "dumb": {"TERM": "dumb"}}


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with runs, one of them broken, and an image."""
    at = tmp_path_factory.mktemp("terminal")
    flags = ("--model", "lenet-swish", "--epochs", "1")
    succeeds(*train(at / "run", *flags))
    succeeds(*train(at / "other", *flags, "--learning-rate", "0.0123", "--seed", "1"))
    for name in ("run", "broken"):
        shutil.copytree(at / "run", at / LONG / name)
    (at / LONG / "broken/curves.png").unlink()
    shutil.copy(Path(__file__).parents[1] / "docs/seven.png", at / LONG / "7.png")
    return at


@pytest.mark.slow
@pytest.mark.parametrize(("command", "colours"), list(zip(COMMANDS, itertools.cycle(COLOURS), strict=False)))
def test_a_command_fits_80_columns(
    command: str, colours: str, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each in one of the kinds of terminal; what prints is shared by all commands."""
    monkeypatch.chdir(directory)
    plain = main(*command.split())
    assert "\x1b" not in plain.out + plain.err
    with terminal(monkeypatch, **COLOURS[colours]) as lines:
        assert cli.main(command.split()) == plain.code
    assert not [line for line in lines if len(line) > 80]
    whole = words(plain.out + plain.err) | {"then"}  # what predict has instead of a column per class
    assert not words(" ".join(lines)) - whole
    assert "cnnjax" in " ".join(lines) or len(words(" ".join(lines))) > 2


@pytest.mark.parametrize("command", ["", *cli.COMMANDS])
def test_the_help_fits_80_columns(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with terminal(monkeypatch) as lines, pytest.raises(SystemExit):
        cli.main([*command.split(), "--help"])
    assert len(lines) > 5 and not [line for line in lines if len(line) > 80]
