"""A helper process that starts jobs and disturbs them, for `tests/test_disk.py`.

It imports everything once, and forks for each job before JAX has been initialised. It is started with
`tests/shim.c` preloaded.
Requests are lines of JSON on stdin, responses are lines of JSON on stdout:

    {"job": NAME, "disk": DIR, "log": FILE, "journal": FILE, "fault": [K, ERROR, ALWAYS], "after": SECONDS}
    -> {"code": exit code, or minus the signal; "calls": number; "seconds": duration}

The fault is that of `shim_start`. With "after", which may be null, the job is killed from outside after that
many seconds.
"""

import ctypes
import json
import os
import signal
import sys
import time
from pathlib import Path


def train(out: Path) -> int:
    """Start or resume a run of three epochs."""
    import helpers

    from cnnjax import cli

    return cli.main(helpers.train(out, "--epochs", "3", "--resume", "auto"))


def experiment(out: Path) -> int:
    """Start or go on with an experiment of two arms, two seeds and two epochs."""
    from dataclasses import replace

    from test_experiment import PROTOCOL, run

    from cnnjax.errors import UserError

    try:
        run(out, replace(PROTOCOL, seeds=2))
    except UserError as error:
        print(f"cnnjax: error: {error}", file=sys.stderr)
        return 1
    return 0


def child(request: dict) -> int:
    """Do a job in the forked process; return the exit code."""
    log = os.open(request["log"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(log, 1)
    os.dup2(log, 2)
    shim = ctypes.CDLL(None)
    shim.shim_calls.restype = ctypes.c_long
    at, error, always = request["fault"]
    names = (os.fsencode(request[name]) for name in ("disk", "journal"))
    shim.shim_start(*names, ctypes.c_long(at), error, always)
    code = {"train": train, "experiment": experiment}[request["job"]](Path(request["disk"]) / "out")
    sys.stdout.flush()
    Path(request["log"] + ".calls").write_text(str(shim.shim_calls()))
    return code


def main() -> None:
    import jax

    jax.config.update("jax_numpy_dtype_promotion", "strict")
    jax.config.update("jax_numpy_rank_promotion", "raise")
    import test_experiment  # noqa: F401

    import cnnjax.runs.training  # noqa: F401

    for line in sys.stdin:
        request = json.loads(line)
        began = time.monotonic()
        process = os.fork()
        if process == 0:
            code = 99
            try:
                code = child(request)
            finally:
                os._exit(code)
        if request["after"] is not None:
            time.sleep(request["after"])
            os.kill(process, signal.SIGKILL)
        code = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
        calls = int(Path(request["log"] + ".calls").read_text()) if code >= 0 else 0
        print(json.dumps({"code": code, "calls": calls, "seconds": time.monotonic() - began}), flush=True)


if __name__ == "__main__":
    main()
