"""`import minidl` over `import numpy`, each in fresh interpreters, in turns."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.timing import Times, progress

ROOT = Path(__file__).resolve().parents[2]
CODE = "import time; t = time.perf_counter(); import {}; print(time.perf_counter() - t)"


def run(bench: Any) -> None:
    """Add one row; goal 1.3."""
    times = {"import minidl": Times(), "import numpy": Times()}
    with tempfile.TemporaryDirectory() as cache:  # byte code is kept, as where minidl is installed, whatever this process was told
        env = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"} | {"PYTHONPYCACHEPREFIX": cache}
        _fill(bench, times, env)
    bench.ratio("importing", times, "import minidl", "import numpy", 1.3)
    bench.each("importing", {name: t for name, t in times.items() if t.samples})


def _fill(bench: Any, times: dict[str, Times], env: dict[str, str]) -> None:
    for i in range(5 if bench.quick else 25):
        for name, t in times.items():
            out = subprocess.run([sys.executable, "-c", CODE.format(name.split()[1])], cwd=ROOT, env=env, capture_output=True, text=True)
            if out.returncode:
                return bench.note(f"importing: {name} of minidl FAILED: {out.stderr.strip().splitlines()[-1]}")
            if i:  # the first pair fills the disk's cache and writes the byte code
                t.samples.append(float(out.stdout))
        progress(f"importing: round {i}")
