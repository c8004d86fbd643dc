"""`python benchmarks/run.py [workload...] [--peers ...] [--backends ...] [--json FILE] [--quick]`: one table of measures against their goals.

Promises: every ratio is between sides timed in turns in this one run; a side whose answer disagrees with the others is reported as wrong and
its time is not used; a peer that is not installed is skipped and said; a measure that misses its goal is printed as it is.
"""

from __future__ import annotations

import argparse
import datetime
import importlib
import importlib.metadata
import json
import platform
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from benchmarks import timing  # noqa: E402

CORE = timing.pin()  # before NumPy, torch and jax read the environment

import numpy as np  # noqa: E402

WORKLOADS = ("importing", "tiny100", "call8", "mlp", "cnn", "trace10k")
PEERS = ("numpy", "torch", "jax", "autograd")
BACKENDS = ("numpy", "numba", "torch", "jax")


class Bench:
    """What a workload is given: which peers and backends to run, `measure` to time sides and `row` to report."""

    def __init__(self, peers: Sequence[str], backends: Sequence[str], quick: bool):
        self.peers, self.backends, self.quick = tuple(peers), tuple(backends), quick
        self.rows: list[dict[str, Any]] = []
        self.times: dict[str, dict[str, Any]] = {}
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        """A line below the table, and now."""
        timing.progress(text)
        self.notes.append(text)

    def measure(self, label: str, builders: dict[str, Callable[[], timing.Side]], rtol: float, seconds: float = 20.0, least: float = 0.01) -> Any:
        """Build the sides, check their answers against the first one's, and time them in turns; the times by side."""
        sides: dict[str, timing.Side] = {}
        reference: list[np.ndarray] | None = None
        for name, build in builders.items():
            timing.progress(f"{label}: building {name}")
            try:
                side = build()
                answer = [np.asarray(a, np.float64) for a in side.answer()]
            except ImportError as error:
                self.note(f"{label}: {name} skipped: {error}")
            except Exception as error:  # a side that breaks must not take the others with it
                text = str(error).strip() or "(no message)"
                self.note(f"{label}: {name} FAILED: {type(error).__name__}: {text.splitlines()[0][:200]}")
            else:
                reference = answer if reference is None else reference
                off = [distance(a, b) for a, b in zip(answer, reference, strict=True)]
                if not max(off) <= rtol:
                    self.note(f"{label}: {name} WRONG: differs from {next(iter(sides))} by {max(off):.1e} relative (at most {rtol:.0e}); not timed")
                else:
                    sides[name] = side
        times = timing.interleave(sides, seconds / 10 if self.quick else seconds, label, least) if sides else {}
        self.times[label] = {n: {"best_s": t.best, "median_s": t.median, "rounds": len(t.samples)} for n, t in times.items()}
        return times

    def row(self, measure: str, value: float | None, unit: str = "", goal: float | None = None, quartiles: Sequence[float] | None = None) -> None:
        """One line of the table; value None: could not be measured."""
        met = None if goal is None or value is None else value <= goal
        self.rows.append({"measure": measure, "value": value, "unit": unit, "goal": goal, "met": met, "quartiles": quartiles})

    def ratio(self, measure: str, times: dict[str, timing.Times], side: str, peer: str, goal: float | None = None) -> None:
        """Best time of a side over best time of a peer, with the quartiles of the ratios round by round."""
        if side not in times or peer not in times:
            return self.row(f"{measure}: {side} / {peer}", None, "x", goal) if goal is not None else None
        a, b = times[side], times[peer]
        pairs = [p / q for p, q in zip(a.samples, b.samples, strict=True)]
        self.row(f"{measure}: {side} / {peer}", a.best / b.best, "x", goal, timing.spread(pairs))

    def each(self, measure: str, times: dict[str, timing.Times], unit: str = "ms") -> None:
        """A line with the best time of every side, for reading only."""
        scale = {"ms": 1e3, "µs": 1e6, "s": 1.0}[unit]
        for name, t in times.items():
            self.row(f"{measure}: {name}", t.best * scale, unit, None, [v * scale for v in timing.spread(t.samples)])


def distance(a: np.ndarray, b: np.ndarray) -> float:
    """Largest difference relative to the largest value; infinite where shapes differ."""
    if a.shape != b.shape:
        return float("inf")
    return float(np.max(np.abs(a - b)) / max(np.max(np.abs(b)), 1e-30))


def versions() -> dict[str, str]:
    """What ran: Python, the libraries (installed or not) and the processor."""
    out = {"python": platform.python_version()}
    for name in ("numpy", "torch", "jax", "jaxlib", "numba", "autograd", "minidl"):
        try:
            out[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            out[name] = "not installed"
    if out["minidl"] == "not installed":
        out["minidl"] = str(getattr(importlib.import_module("minidl"), "__version__", "working tree"))
    out["cpu"] = next(cpu_names(), platform.processor() or platform.machine())
    out["core"] = "not pinned" if CORE is None else str(CORE)
    return out


def cpu_names() -> Iterator[str]:
    """The processor's name as Linux gives it."""
    path = Path("/proc/cpuinfo")
    if path.exists():
        yield from (line.split(":", 1)[1].strip() for line in path.read_text().splitlines() if line.startswith("model name"))


def number(value: float | None, unit: str) -> str:
    """`0.243`, `4.51 µs`, or a dash."""
    if value is None:
        return "-"
    return f"{value:.3f}" if unit in ("x", "") else f"{value:.4g} {unit}"


def table(rows: list[dict[str, Any]]) -> str:
    """The table: measure, value, quartiles, goal, met or the distance to it. Rows without a goal are for reading."""
    lines = [("measure", "value", "quartiles", "goal", "met")]
    for r in rows:
        unit = r["unit"]
        if r["goal"] is None:
            met = ""
        elif r["value"] is None:
            met = "not measured"
        else:
            met = "yes" if r["met"] else f"no: {r['value'] / r['goal']:.2f} of the goal"
        between = " .. ".join(number(q, "x") for q in r["quartiles"]) if r["quartiles"] else ""
        goal = "" if r["goal"] is None else f"<= {number(r['goal'], unit)}"
        lines.append((r["measure"], number(r["value"], unit), between, goal, met))
    widths = [max(len(line[i]) for line in lines) for i in range(5)]
    text = ["  ".join(cell.ljust(w) for cell, w in zip(line, widths, strict=True)).rstrip() for line in lines]
    return "\n".join([text[0], "-" * len(text[0]), *text[1:]])


def main(argv: Sequence[str] | None = None) -> int:
    """Run the workloads; exit status 0 whatever the numbers say, 1 when a side of minidl failed or gave a wrong answer."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("workload", nargs="*", help=f"which to run (default: all): {', '.join(WORKLOADS)}")
    parser.add_argument("--peers", nargs="*", choices=PEERS, default=PEERS, help="whom to compare with (none given after it: nobody)")
    parser.add_argument("--backends", nargs="*", choices=BACKENDS, default=BACKENDS, help="minidl backends to run")
    parser.add_argument("--json", metavar="FILE", type=Path, help="where to write (default: benchmarks/results/DATE.json, nothing for --quick)")
    parser.add_argument("--quick", action="store_true", help="a tenth of the time: shows that all sides run; the numbers are rough")
    args = parser.parse_args(argv)
    if unknown := [w for w in args.workload if w not in WORKLOADS]:
        parser.error(f"no workload {unknown[0]!r}; there are {', '.join(WORKLOADS)}")
    bench = Bench(args.peers, args.backends, args.quick)
    for name in args.workload or WORKLOADS:
        timing.progress(f"{name}: starting")
        importlib.import_module(f"benchmarks.workloads.{name}").run(bench)
    about = versions()
    if sys.stderr.isatty():
        sys.stderr.write("\r\x1b[K")
    print(table(bench.rows))
    print("\n" + "\n".join([*bench.notes, ", ".join(f"{k} {v}" for k, v in about.items()) + ", one thread" + (", quick" if args.quick else "")]))
    path = args.json or (None if args.quick else HERE / "results" / f"{datetime.date.today().isoformat()}.json")
    if path:
        path.parent.mkdir(parents=True, exist_ok=True)
        result = {"versions": about, "quick": args.quick, "rows": bench.rows, "times": bench.times, "notes": bench.notes}
        path.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n")
        print(f"written to {path}")
    return int(any("minidl" in n and ("FAILED" in n or "WRONG" in n) for n in bench.notes))


if __name__ == "__main__":
    sys.exit(main())
