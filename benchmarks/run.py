"""`python benchmarks/run.py [workload...] [--peers ...] [--backends ...] [--device cuda] [--threads N] [--json FILE] [--quick] [--minutes M]
[--scaling]`: one table of measures against their goals, a results file and its charts. A run may be done in pieces: a workload replaces what the file
held for it.

Promises: every ratio is between sides timed in turns in this one run; a side whose answer disagrees with the others is reported as wrong and
its time is not used; a peer that is not installed is skipped and said; a measure that misses its goal is printed as it is.
"""

from __future__ import annotations

import argparse
import datetime
import importlib
import importlib.metadata
import json
import math
import platform
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from benchmarks import timing  # noqa: E402

EARLY = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
EARLY.add_argument("--threads", type=int, default=1, metavar="N", help="threads and cores for everybody (default 1)")
EARLY.add_argument("--device", default="cpu", help="cpu or cuda: where torch, jax and minidl on them run")
FIRST, _ = EARLY.parse_known_args()
CORES = timing.pin(FIRST.threads, FIRST.device)  # before NumPy, torch and jax read the environment

import numpy as np  # noqa: E402

from benchmarks import chart, goals, sides  # noqa: E402
from minidl.backends.numpy_helpers import openblas  # noqa: E402
from minidl.columns import columns  # noqa: E402

SUITE = ("tiny100", "mlp", "cnn", "resnet", "gelu_ln", "persample", "transformer", "lstm", "hvp", "cross_entropy", "adamw", "ode", "chain")
ENGINE = ("importing", "call8", "trace10k", "memory", "random_bits")
WORKLOADS = (*SUITE, *ENGINE)
TRIED = ("tried",)  # only where it is asked for
BACKENDS = ("numpy", "numba", "torch", "jax", "auto")
ON_DEVICES = ("torch", "jax")  # the libraries, as peers and as backends, that compute elsewhere than on the CPU
CUDA = ("transformer", "mlp", "cnn", "gelu_ln", "cross_entropy", "adamw")


class Bench:
    """What a workload is given: which peers and backends to run, `measure` to time sides and `row` to report."""

    def __init__(self, peers: Sequence[str], backends: Sequence[str], quick: bool, device: str = "cpu"):
        self.peers, self.backends, self.quick, self.device = tuple(peers), tuple(backends), quick, device
        self.rows: list[goals.Row] = []
        self.times: dict[str, dict[str, Any]] = {}
        self.notes: list[str] = []
        self.save: Callable[[], None] = lambda: None  # for workloads that take long: write down what there is

    def note(self, text: str) -> None:
        """A line below the table, and now."""
        timing.progress(text)
        self.notes.append(text)

    def measure(
        self, label: str, builders: dict[str, Callable[[], timing.Side]], rtol: float, seconds: float = 20.0, least: float = 0.01,
        apart: Callable[[np.ndarray, np.ndarray], float] | None = None,
    ) -> Any:  # fmt: skip
        """Build the sides, check their answers against the first one's (apart: how far two arrays are), and time them in turns; the times by side."""
        built: dict[str, timing.Side] = {}
        reference: list[np.ndarray] | None = None
        for name, build in builders.items():
            timing.progress(f"{label}: building {name}")
            try:
                side = build()
                answer = [np.asarray(a, np.float64) for a in side.answer()]
            except (ImportError, NotImplementedError, sides.Absent) as error:
                self.note(f"{label}: {name} skipped: {error}")
            except Exception as error:  # a side that breaks must not take the others with it
                text = str(error).strip() or "(no message)"
                self.note(f"{label}: {name} FAILED: {type(error).__name__}: {text.splitlines()[0][:200]}")
            else:
                reference = answer if reference is None else reference
                off = [(apart or distance)(a, b) for a, b in zip(answer, reference, strict=True)] if len(answer) == len(reference) else [float("inf")]
                if not max(off) <= rtol:
                    self.note(f"{label}: {name} WRONG: differs from {next(iter(built))} by {max(off):.1e} relative (at most {rtol:.0e}); not timed")
                else:
                    built[name] = side
                    continue
                side.close()
        seconds *= (0.1 if self.quick else 1.0) * (1.0 if self.device == "cpu" else 0.3)  # with a GPU compiling takes the most
        times = timing.interleave(built, seconds, label, least) if built else {}
        for side in built.values():
            side.close()
        self.times[label] = {n: {"best_s": t.best, "median_s": t.median, "rounds": len(t.samples)} for n, t in times.items()}
        return times

    def row(self, measure: str, value: float | None, unit: str = "", goal: float | None = None, quartiles: Any = None) -> None:
        """One line of the table; value None: could not be measured."""
        self.rows.append(goals.Row(measure, value, unit, goal, quartiles))

    def goals(self, workload: str, times: dict[str, timing.Times]) -> None:
        """The lines that goals.py asks for."""
        self.rows += goals.rows(workload, times, self.device)

    def ratio(self, measure: str, times: dict[str, timing.Times], side: str, peer: str, goal: float | None = None) -> None:
        """Best time of a side over best time of a peer, with the quartiles of the ratios round by round."""
        if all(name in times and times[name].samples for name in (side, peer)):
            value, quartiles = goals.over(times, side, peer)
            self.row(f"{measure}: {side} / {peer}", value, "x", goal, quartiles)
        elif goal is not None:
            self.row(f"{measure}: {side} / {peer}", None, "x", goal)

    def each(self, measure: str, times: dict[str, timing.Times], unit: str = "ms") -> None:
        """A line with the best time of every side, for reading only."""
        scale = {"ms": 1e3, "µs": 1e6, "s": 1.0}[unit]
        for name, t in times.items():
            self.row(f"{measure}: {name}", t.best * scale, unit, None, tuple(v * scale for v in timing.spread(t.samples)))


def distance(a: np.ndarray, b: np.ndarray) -> float:
    """Largest difference relative to the largest value; infinite where shapes differ."""
    if a.shape != b.shape:
        return float("inf")
    return float(np.max(np.abs(a - b)) / max(np.max(np.abs(b)), 1e-30))


@cache
def about(threads: int) -> dict[str, str]:
    """What ran: Python, the libraries (installed or not), the processor and how much of it."""
    out = {"python": platform.python_version()}
    for name in ("numpy", "torch", "jax", "jaxlib", "numba", "keras", "autograd", "mygrad", "tinygrad", "mlx", "minidl"):
        try:
            out[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            out[name] = "not installed"
    if out["minidl"] == "not installed":
        out["minidl"] = str(getattr(importlib.import_module("minidl"), "__version__", "working tree"))
    out["openblas"] = openblas() or "not NumPy's"
    out["cpu"] = next(cpu_names(), platform.processor() or platform.machine())
    out["cores"] = ", ".join(map(str, CORES)) or "not pinned"
    out["threads"] = str(threads)
    if sides.DEVICE[0] != "cpu":
        import torch

        out["device"] = torch.cuda.get_device_name()
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


def table(rows: Sequence[goals.Row]) -> str:
    """The table: measure, value, quartiles, goal, met or the distance to it. Rows without a goal are for reading."""
    lines = [("measure", "value", "quartiles", "goal", "met")]
    for r in rows:
        if r.goal is None:
            met = ""
        elif r.value is None:
            met = "not measured"
        else:
            met = "yes" if r.met else f"no: {r.value / r.goal:.2f} of the goal" if r.goal else "no"
        between = " .. ".join(number(q, "x") for q in r.quartiles) if r.quartiles else ""
        goal = "" if r.goal is None else f"<= {number(r.goal, r.unit)}"
        lines.append((r.measure, number(r.value, r.unit), between, goal, met))
    text = columns(lines)
    return "\n".join([text[0], "-" * len(text[0]), *text[1:]])


def save(path: Path, about: dict[str, str], bench: Bench, name: str) -> None:
    """Put a workload of this run into the results file, in place of what it held for it; each workload keeps the versions it ran with."""
    old: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    workloads = dict(old.get("workloads", {}))
    own = lambda text: text == name or text.startswith((f"{name}:", f"{name},", f"{name} "))
    rows, times = [vars(r) for r in bench.rows if own(r.measure)], {k: v for k, v in bench.times.items() if own(k)}
    workloads[name] = {"versions": about, "quick": bench.quick, "rows": rows, "times": times, "notes": [n for n in bench.notes if own(n)]}
    order = [*(w for w in WORKLOADS if w in workloads), *(w for w in workloads if w not in WORKLOADS)]
    workloads = {w: workloads[w] for w in order}
    suite = {w: found["times"][w] for w, found in workloads.items() if w in SUITE and w in found["times"]}
    results = {"workloads": workloads, "summary": [vars(r) for r in goals.summary(suite)]}
    path.write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the workloads; exit status 0 whatever the numbers say, 1 when a side of minidl failed or gave a wrong answer."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, parents=[EARLY])
    parser.add_argument("workload", nargs="*", help=f"which to run (default: all but the last): {', '.join((*WORKLOADS, *TRIED))}")
    there = EARLY.parse_known_args(argv)[0].device != "cpu"
    peers, backends = (ON_DEVICES, ON_DEVICES) if there else ([*sides.PEERS], BACKENDS)
    parser.add_argument("--peers", nargs="*", choices=[*sides.PEERS], default=peers, help="whom to compare with (alone: nobody)")
    parser.add_argument("--backends", nargs="*", choices=BACKENDS, default=backends, help="minidl backends to run")
    parser.add_argument("--minutes", type=float, default=math.inf, metavar="M", help="begin no workload after so many")
    parser.add_argument("--json", metavar="FILE", type=Path, help="results file (default: benchmarks/results/DATE.json, none for --quick)")
    parser.add_argument("--quick", action="store_true", help="a tenth of the time: shows that all sides run; the numbers are rough")
    parser.add_argument("--scaling", action="store_true", help="how cost grows with operations, batch, width and length, instead of workloads")
    args = parser.parse_args(argv)
    if unknown := [w for w in args.workload if w not in (*WORKLOADS, *TRIED)]:
        parser.error(f"no workload {unknown[0]!r}; there are {', '.join((*WORKLOADS, *TRIED))}")
    sides.DEVICE[0] = args.device
    bench = Bench(args.peers, args.backends, args.quick, args.device)
    suffix = "" if (args.device, args.threads) == ("cpu", 1) else f"-{args.device}" if args.device != "cpu" else f"-{args.threads}threads"
    path = args.json or (None if args.quick else HERE / "results" / f"{datetime.date.today().isoformat()}{suffix}.json")
    names = ("scaling",) if args.scaling else tuple(args.workload) or (WORKLOADS if args.device == "cpu" else CUDA)
    begun = time.monotonic()
    for name in names:
        if time.monotonic() - begun > 60 * args.minutes:
            bench.note(f"{name}: not begun after {args.minutes:g} minutes")
            continue
        timing.progress(f"{name}: starting")
        if path:  # each workload as it is done, so that a run that is cut short leaves what it had
            path.parent.mkdir(parents=True, exist_ok=True)
            bench.save = partial(save, path, about(args.threads), bench, name)
        importlib.import_module(f"benchmarks.workloads.{name}").run(bench)
        bench.save()
    if sys.stderr.isatty():
        sys.stderr.write("\r\x1b[K")
    if bench.rows or bench.notes:
        print(table(bench.rows))
        print("\n" + "\n".join([*bench.notes, ", ".join(f"{k} {v}" for k, v in about(args.threads).items()) + (", quick" if args.quick else "")]))
    if path and path.exists():
        result = json.loads(path.read_text())
        if result["summary"]:
            print(table([goals.Row(r["measure"], r["value"], r["unit"], r["goal"]) for r in result["summary"]]))
        print(f"written to {', '.join(map(str, [path, *chart.write(result, path.with_suffix(''))]))}")
    return int(any("minidl" in n and ("FAILED" in n or "WRONG" in n) for n in bench.notes))


if __name__ == "__main__":
    sys.exit(main())
