"""The command line. Each command has a file, and does no more than parse, call and print."""

import platform
import sys
from collections.abc import Callable, Sequence
from importlib.metadata import version

from cnnjax import __version__
from cnnjax.cli import output, runner
from cnnjax.cli.compare import Compare
from cnnjax.cli.data import Data
from cnnjax.cli.evaluate import Evaluate
from cnnjax.cli.export import Export
from cnnjax.cli.merge import Merge
from cnnjax.cli.power import Power
from cnnjax.cli.predict import Predict
from cnnjax.cli.report import Report
from cnnjax.cli.runs import Runs
from cnnjax.cli.summary import Summary
from cnnjax.cli.train import Train
from cnnjax.cli.verify import Verify

DESCRIPTION = """Convolution, pooling and dropout in JAX, with evidence.

Run cnnjax COMMAND --help for the options of a command, cnnjax --version for
the versions.
TAB completion in bash: eval "$(cnnjax --completion bash)"
In zsh, save the output of cnnjax --completion zsh as _cnnjax in your $fpath."""
COMMANDS: dict[str, Callable[..., runner.Command]] = {
    "train": Train,
    "evaluate": Evaluate,
    "predict": Predict,
    "export": Export,
    "runs": Runs,
    "compare": Compare,
    "summary": Summary,
    "data": Data,
    "report": Report,
    "verify": Verify,
    "merge": Merge,
    "power": Power,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one of `COMMANDS` and return the exit code; see `runner.run`."""
    given = sys.argv[1:] if arguments is None else arguments
    if list(given) == ["--version"]:
        if arguments is None:
            output.protect()
        versions = (f"{name} {version(name)}" for name in ("jax", "flax", "optax"))
        print(f"cnnjax {__version__} ({', '.join(versions)}, Python {platform.python_version()})")
        return output.exit_code(0)
    return runner.run(COMMANDS, DESCRIPTION, arguments)
