"""TAB completion in real shells, and --help."""

import shutil
import subprocess
from pathlib import Path

import pytest
from helpers import fails, succeeds

from cnnjax import cli
from cnnjax.cli import COMMANDS
from cnnjax.cli.completion import SHELLS
from cnnjax.config import OPTIMIZER_NAMES
from cnnjax.data import NAMES
from cnnjax.models import MODELS

PROGRAMS = {
    "bash": """
        source "$1"; shift; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1))
        $(complete -p cnnjax | sed 's/.*-F \\([^ ]*\\).*/\\1/'); printf '%s\\n' "${COMPREPLY[@]}"
        """,
    # In place of zsh's completion system, which needs a terminal.
    "zsh": """
        compdef() { }
        _files() { print -rl -- $words[CURRENT]*(N) }
        compadd() { print -rl -- "${@[3,-1]}" }
        _describe() { print -rl -- "${(@)${(P@)2}%%:*}" }
        source "$1"; shift; words=("$@"); CURRENT=$#; _cnnjax
        """,
}
"""They print the completions of the last argument."""


class Shell:
    """A shell with the completion script, in a directory with runs."""

    def __init__(self, name: str, directory: Path) -> None:
        options = {"bash": ["--norc", "-c"], "zsh": ["-f", "-c"]}[name]
        self._command = [str(shutil.which(name)), *options, PROGRAMS[name], name, "./script", "cnnjax"]
        self._directory = directory
        (directory / "script").write_text(succeeds("--completion", name))
        for run in ("my run", "runs/a", "runs/b"):
            (directory / run / "checkpoints").mkdir(parents=True)
        (directory / "results" / "pooling").mkdir(parents=True)
        (directory / "results" / "pooling" / "protocol.json").touch()

    def offers(self, *words: str) -> list[str]:
        command = [*self._command, *words]
        done = subprocess.run(command, capture_output=True, text=True, cwd=self._directory, check=True)
        return [line for line in done.stdout.split("\n")[:-1] if line]


@pytest.fixture(params=PROGRAMS)
def shell(request: pytest.FixtureRequest, tmp_path: Path) -> Shell:
    if shutil.which(request.param) is None:
        pytest.skip(f"{request.param} is not installed")
    return Shell(request.param, tmp_path)


def test_tab_completes_commands_flags_names_and_files(shell: Shell) -> None:
    assert set(shell.offers("")) == set(COMMANDS)
    assert shell.offers("eva") == ["evaluate"]
    assert shell.offers("train", "--drop") == ["--dropout-rate"]
    flags = shell.offers("train", "")
    assert {"--model", "--resume"} <= set(flags) and all(flag.startswith("--") for flag in flags)
    assert shell.offers("train", "--model", "") == list(MODELS)
    assert shell.offers("summary", "--model", "ker") == ["keras-cnn"]
    assert set(shell.offers("data", "--dataset", "")) == set(NAMES)
    assert shell.offers("data", "--dataset", "sc") == ["script"]
    assert set(shell.offers("train", "--optimizer", "")) == set(OPTIMIZER_NAMES)
    assert set(shell.offers("predict", "run", "--split", "")) == {"train", "test"}
    assert shell.offers("train", "--resume", "") == ["auto"]
    assert shell.offers("train", "--resume", "--ep") == ["--epochs"]
    assert shell.offers("train", "--out", "my") == ["my run"]
    assert shell.offers("nonsense", "sc") == ["script"]


@pytest.mark.parametrize("command", ["evaluate", "predict", "report", "export", "verify", "compare"])
@pytest.mark.slow
def test_tab_completes_run_directories(command: str, shell: Shell) -> None:
    assert shell.offers(command, "") == ["my run", "results/pooling", "runs/a", "runs/b"]
    assert shell.offers(command, "ru") == ["runs/a", "runs/b"]
    assert shell.offers(command, "my run", "sc") == ["script"]
    if command in ("report", "verify", "compare"):
        assert shell.offers(command, "my run", "--debug", "ru") == ["runs/a", "runs/b"]
    else:  # one run, and then files
        assert shell.offers(command, "my run", "ru") == ["runs"]


@pytest.mark.parametrize("shell", SHELLS)
def test_every_shell_has_a_script(shell: str) -> None:
    text = succeeds("--completion", shell)
    assert all(name in text for name in (*COMMANDS, "--dropout-rate"))


@pytest.mark.parametrize("words", [["--completion"], ["--completion", "sh"], ["--completion", "bash", "x"]])
def test_an_unknown_shell_is_one_line(words: list[str]) -> None:
    assert "bash, zsh" in fails(2, *words)


@pytest.mark.parametrize("name", COMMANDS)
def test_the_help_of_a_command_has_an_example_and_80_columns(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit):
        cli.main([name, "--help"])
    printed = capsys.readouterr().out
    assert f"Example: cnnjax {name} " in printed
    assert max(map(len, printed.splitlines()[1:])) <= 80  # the first line is tyro's usage
    assert (COMMANDS[name].__doc__ or "").partition("\n")[0].endswith(".")


def test_the_list_of_commands_has_a_sentence_for_each(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in ([], ["--help"], ["-h"]):
        with pytest.raises(SystemExit) as end:
            cli.main(arguments)
        assert not end.value.code
        printed = capsys.readouterr().out
        assert all(f"• {name} " in printed for name in COMMANDS)
        assert "Example" not in printed and "--completion bash" in printed
