"""A helper process that starts runs and kills them, for `tests/test_faults.py`.

It imports everything once, and forks for each run before JAX has been initialised. Requests are lines of JSON
on stdin, responses are lines of JSON on stdout:

    {"arguments": [...], "under": DIR, "log": FILE, "event": K or null, "after": SECONDS or null}
    -> {"code": exit code, or minus the signal; "events": number; "seconds": duration}

With "event", the run sends itself SIGKILL right before it opens, renames, creates or removes the K-th file or
directory under DIR; with "after", it is killed from outside after that many seconds.
"""

import json
import os
import signal
import sys
import time

WATCHED = {"open", "os.rename", "os.remove", "os.mkdir", "os.rmdir"}


def child(request: dict) -> int:
    """Train in the forked process; return the exit code."""
    from cnnjax import cli

    log = os.open(request["log"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(log, 1)
    os.dup2(log, 2)
    count = 0

    def watch(event: str, arguments: tuple) -> None:
        nonlocal count
        if event in WATCHED and request["under"] in str(arguments[0]):
            count += 1
            if count == request["event"]:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(watch)
    code = cli.main(request["arguments"])
    sys.stdout.flush()
    with open(request["log"] + ".events", "w") as file:
        file.write(str(count))
    return code


def main() -> None:
    import jax

    jax.config.update("jax_numpy_dtype_promotion", "strict")
    jax.config.update("jax_numpy_rank_promotion", "raise")
    import orbax.checkpoint  # noqa: F401

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
        events = 0
        if code >= 0:
            with open(request["log"] + ".events") as file:
                events = int(file.read())
        print(json.dumps({"code": code, "events": events, "seconds": time.monotonic() - began}), flush=True)


if __name__ == "__main__":
    main()
