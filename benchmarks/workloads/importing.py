"""`import minidl` over `import numpy`, each in fresh interpreters, in turns."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

from benchmarks.timing import Times, progress

ROOT = Path(__file__).resolve().parents[2]
CODE = "import time; t = time.perf_counter(); import {}; print(time.perf_counter() - t)"


def run(bench: Any) -> None:
    """Add one row; goal 1.3."""
    times = {"import minidl": Times(), "import numpy": Times()}
    for i in range(5 if bench.quick else 25):
        for name, t in times.items():
            out = subprocess.run([sys.executable, "-c", CODE.format(name.split()[1])], cwd=ROOT, capture_output=True, text=True)
            if out.returncode:
                return bench.note(f"importing: minidl FAILED: {out.stderr.strip().splitlines()[-1]}")
            if i:  # the first pair fills the disk cache and writes the byte code
                t.samples.append(float(out.stdout))
        progress(f"importing: round {i}")
    bench.ratio("importing", times, "import minidl", "import numpy", 1.3)
    bench.each("importing", times)
