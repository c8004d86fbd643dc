"""A side in a process of its own, for libraries that choose their backend once per process.

The child builds the side, gives its answer, and times blocks of steps when told to: one line each way over its pipes. Promises: while the child
runs the parent waits, and the child's threads are still when it goes on, so the two are never on the cores together; the child inherits the pinned
cores.
"""

from __future__ import annotations

import base64
import importlib
import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

from benchmarks.timing import Side, block, quiet

ROOT = Path(__file__).resolve().parent.parent
MARK = "\x1e"  # the libraries print to stdout as well


def remote(target: str, args: tuple = (), env: dict[str, str] | None = None) -> Side:
    """The side that `target` ("module:function") builds from args in a new process. Raises ImportError where that process lacks a library."""
    child = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.remote", target, base64.b64encode(pickle.dumps(args)).decode()],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT, text=True,
        env={**os.environ, **(env or {}), "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])},
    )  # fmt: skip
    assert child.stdin is not None and child.stdout is not None

    def ask(what: str = "") -> Any:
        if what:
            child.stdin.write(what + "\n")
            child.stdin.flush()
        for line in child.stdout:
            if line.startswith(MARK):
                kind, value = pickle.loads(base64.b64decode(line[1:]))
                if kind == "error":
                    raise value
                return value
        raise RuntimeError(f"the process of {target} ended with status {child.wait()}")

    def close() -> None:
        child.stdin.close()  # which ends its loop
        try:
            child.wait(30)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
        child.stdout.close()

    try:
        answer = ask()
    except BaseException:
        close()
        raise
    return Side(step=lambda: None, answer=lambda: answer, block=lambda count: ask(str(count)), close=close)


def main(target: str, args: str) -> None:
    """The child: the answer first, then seconds per step for each number of steps that comes in."""

    def tell(kind: str, value: Any) -> None:
        print(MARK + base64.b64encode(pickle.dumps((kind, value))).decode(), flush=True)

    module, name = target.split(":")
    try:
        side = getattr(importlib.import_module(module), name)(*pickle.loads(base64.b64decode(args)))
        tell("value", side.answer())
        for line in sys.stdin:
            seconds = block(side, int(line))
            quiet()  # the parent's turn
            tell("value", seconds)
    except ImportError as error:
        tell("error", ImportError(str(error)))
    except Exception as error:  # it may be of a class that the parent cannot load
        tell("error", RuntimeError(f"{type(error).__name__}: {error}"))


if __name__ == "__main__":
    main(*sys.argv[1:])
