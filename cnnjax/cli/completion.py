"""Shell completion scripts: what tyro knows of the commands, and the names that it does not know."""

import ast
import contextlib
import io
import re
import shlex
from collections.abc import Collection, Mapping
from importlib import resources
from typing import Any

import tyro

from cnnjax.cli.offers import FILES

_MANY = 1000
_RUNS = {"evaluate": 1, "predict": 1, "export": 1, "report": _MANY, "verify": _MANY, "compare": _MANY}
_RUNS |= {"merge": _MANY}
"""How many positional arguments of a command are directories of runs or experiments."""

_BASH = r"""
_PROG() {
  local IFS=$'\n' line
  local -a found=()
  while IFS= read -r line; do found+=("${line%%$'\t'*}"); done \
    < <(python3 -c "$_PROG_offers" "${COMP_WORDS[@]:1:COMP_CWORD}" 2> /dev/null)
  [ "${found[0]}" = words ] || compopt -o filenames 2> /dev/null
  if [ "${found[0]}" = files ]; then
    COMPREPLY=($(compgen -f -- "${COMP_WORDS[COMP_CWORD]}"))
  else
    COMPREPLY=("${found[@]:1}")
  fi
}
complete -F _PROG PROG
"""
_ZSH = r"""
_PROG() {
  local -a found described
  local line
  found=("${(@f)$(python3 -c "$_PROG_offers" "${(@)words[2,CURRENT]}" 2> /dev/null)}")
  case $found[1] in
    files) _files ;;
    paths) compadd -f -- "${(@)found[2,-1]}" ;;
    *)
      for line in "${(@)found[2,-1]}"; do
        described+=("${${line%%$'\t'*}//:/\\:}:${line#*$'\t'}")
      done
      _describe PROG described ;;
  esac
}
compdef _PROG PROG 2> /dev/null
[ "$funcstack[1]" = _PROG ] && _PROG "$@"
"""
_FISH = r"""
function _PROG
    set -l given (commandline -opc) (commandline -ct)
    set -l found (python3 -c $_PROG_offers $given[2..-1] 2> /dev/null)
    if test "$found[1]" = files
        __fish_complete_path (commandline -ct)
    else
        printf '%s\n' $found[2..-1]
    end
end
complete -c PROG -f -a '(_PROG)'
"""
SHELLS = {"bash": "_PROG_offers=SOURCE" + _BASH, "zsh": "#compdef PROG\n_PROG_offers=SOURCE" + _ZSH}
SHELLS |= {"fish": "set -g _PROG_offers SOURCE" + _FISH}


def script(command: Any, summaries: Mapping[str, str], prog: str, shell: str) -> str:
    """Return the completion script of a tyro command for one of `SHELLS`; `summaries` are of its commands."""
    program = resources.files("cnnjax.cli").joinpath("offers.py").read_text()
    commands = _commands(command, summaries, prog)
    source = f"{program}\nimport sys\nprint('\\n'.join(offers({commands!r}, sys.argv[1:])))\n"
    if shell == "fish":
        quoted = "'" + source.replace("\\", "\\\\").replace("'", "\\'") + "'"
    else:
        quoted = shlex.quote(source)
    return SHELLS[shell].replace("PROG", prog).replace("SOURCE", quoted)


def _commands(command: Any, summaries: Mapping[str, str], prog: str) -> dict[str, Any]:
    """Return the commands as `offers` takes them."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.suppress(SystemExit):
        arguments = ["--tyro-write-completion", "bash", "-"]
        tyro.cli(command, prog=prog, args=arguments, config=(tyro.conf.FlagCreatePairsOff,))
    found = re.search(r"^COMPLETION_SPEC = (.*)$", out.getvalue(), re.MULTILINE)
    assert found, "tyro's completion script has another form"
    commands, choices = ast.literal_eval(found[1])["subcommands"], _choices()
    return {
        name: {
            "help": _line(summary),
            "flags": {
                flag: (_line(option["description"]), _values(option, choices.get(flag)))
                for option in commands[name]["options"]
                for flag in option["flags"]
                if flag.startswith("--")
            },
            "runs": _RUNS.get(name, 0),
        }
        for name, summary in summaries.items()
    }


def _choices() -> dict[str, Collection[str]]:
    """Return by flag, in any command, the names that are its values and that tyro does not know."""
    from cnnjax.config import OPTIMIZER_NAMES, SCHEDULE_NAMES
    from cnnjax.data import NAMES
    from cnnjax.models import MODELS
    from cnnjax.runs.train_config import COMPUTE_DTYPES, TRAIN_SPLITS

    return {
        "--model": MODELS,
        "--dataset": (*NAMES, FILES),
        "--optimizer": OPTIMIZER_NAMES,
        "--schedule": SCHEDULE_NAMES,
        "--train-split": TRAIN_SPLITS,
        "--compute-dtype": COMPUTE_DTYPES,
    }


def _values(option: dict[str, Any], named: Collection[str] | None) -> list[str] | None:
    """Return the values that a flag takes, as `offers` takes them."""
    if option["type"] in ("flag", "boolean"):
        return None
    if named is None and option["type"] == "path":
        return [FILES]
    return [str(name) for name in named or option.get("choices", ()) if name != "None"]


def _line(text: str) -> str:
    """Return the first sentence of a description, without what tyro puts around it."""
    sentence = " ".join(text.split()).rpartition(" • ")[2].partition(". ")[0].partition(" (default")[0]
    return sentence.replace("%%", "%").rstrip(".")
