"""TAB completion in real shells, and --help."""

import shutil
import subprocess
from pathlib import Path

import pytest
from helpers import fails, succeeds

from cnnjax import cli
from cnnjax.cli import COMMANDS
from cnnjax.cli.completion import SHELLS

BASH = shutil.which("bash")


def completed(script: Path, *words: str) -> list[str]:
    """Return the completions that bash offers for the last word."""
    program = (
        'source "$1"; shift; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1))\n'
        "$(complete -p cnnjax | sed 's/.*-F \\([^ ]*\\).*/\\1/'); printf '%s\\n' \"${COMPREPLY[@]}\""
    )
    command = [str(BASH), "-c", program, "bash", str(script), "cnnjax", *words]
    done = subprocess.run(command, capture_output=True, text=True, cwd=script.parent, timeout=60, check=True)
    return done.stdout.split("\n")[:-1]


@pytest.mark.skipif(BASH is None, reason="bash is not installed")
def test_tab_completes_commands_flags_values_and_files(tmp_path: Path) -> None:
    script = tmp_path / "script"
    script.write_text(succeeds("--completion", "bash"))
    (tmp_path / "my run").mkdir()
    assert set(COMMANDS) <= set(completed(script, ""))
    assert completed(script, "eva") == ["evaluate"]
    assert completed(script, "train", "--drop") == ["--dropout-rate"]
    assert completed(script, "evaluate", "--split", "v") == ["validation"]
    assert completed(script, "predict", "my") == ["my run"]
    assert completed(script, "predict", "my run", "sc") == ["script"]
    assert completed(script, "train", "--out", "my") == ["my run"]


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
