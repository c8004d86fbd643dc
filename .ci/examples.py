"""Run examples on a backend, on their small setting: `python -W error .ci/examples.py BACKEND FILE...`.

They run one after the other in one process, so that importing a library and compiling what examples share is paid once; that each runs as a program
of its own is for tests/test_demo.py to show. Prints a line for each, and what it printed where it failed. Exits with 1 if one did.
"""

from __future__ import annotations

import contextlib
import io
import runpy
import sys
import time
import traceback
from pathlib import Path


def passes(path: str, backend: str) -> bool:
    """Whether an example ends without an error."""
    sys.argv, sys.path[0] = [path, "--small", "--backend", backend], str(Path(path).resolve().parent)
    printed, start = io.StringIO(), time.monotonic()
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
        try:
            runpy.run_path(path, run_name="__main__")
            code: object = 0
        except SystemExit as end:
            code = end.code
        except Exception:
            traceback.print_exc()
            code = 1
    passed = code in (0, None)
    print(f"{'passed' if passed else 'FAILED'}: {backend} {path} ({time.monotonic() - start:.1f}s)", flush=True)
    if not passed:
        print(printed.getvalue(), flush=True)
    return passed


if __name__ == "__main__":
    backend, *paths = sys.argv[1:]
    sys.exit([passes(path, backend) for path in paths].count(False) > 0)
