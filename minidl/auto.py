"""backend="auto": who runs a graph is measured, once for each graph, kind of device and set of versions, and remembered.

Candidates are the backends that are installed and can be on the device of the inputs, each with its first choice and its other modes. They run in
turns on copies of the real inputs: arguments change hands in every timed call and results come back, state lies with the candidate already, as in
the calls that follow. Graphs are pure, so nothing happens twice. The fastest that agrees with the backend of the inputs wins; that backend itself
wins where it is within 3 %, since it needs no handover.

Promises: no more than `md.set_auto(budget=)` seconds pass before the last candidate is begun, imports apart; one that fails, is wrong or was not
tried is in the report with the reason; the winner is kept under MINIDL_CACHE, and a file that cannot be read means measuring again.

Choosing an implementation by timing it on the real input is what FFTW (M. Frigo, S. G. Johnson, 1998) and ATLAS (R. C. Whaley, J. Dongarra, 1998) do.
"""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.metadata
import os
import platform
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from minidl.backends import available, disk, get
from minidl.calls import Engine, expendable
from minidl.graph import Graph, subgraphs
from minidl.handover import handed, ways
from minidl.program import Program
from minidl.settings import Auto

_ROUND, _ROUNDS, _TIMING = 2e-3, 12, 1.0  # seconds that a candidate runs in a round, rounds at most, seconds for all rounds together
_QUICK = ("numpy", "torch", "jax")  # compile in little time, and so come first
_HOPELESS, _NEAR = 1.5, 1.03  # times the best: who is dropped after a round; within which the inputs' own backend is taken
_known: dict[str, Report] = {}


@dataclasses.dataclass
class Row:
    """What is known of one candidate. Seconds; None where there is no figure."""

    backend: str
    mode: str | None = None
    compile: float | None = None
    call: float | None = None
    error: float | None = None  # the largest difference from the reference, over what is allowed
    note: str = ""

    @property
    def name(self) -> str:
        """Backend and mode."""
        return self.backend if self.mode is None else f"{self.backend} {self.mode}"


@dataclasses.dataclass
class Report:
    """What was tried, and which row won."""

    rows: list[Row]
    winner: int
    why: str
    origin: str = "measured now"

    def __str__(self) -> str:
        table = [("", "engine", "compile", "a call", "difference / allowed", "")]
        for i, r in enumerate(self.rows):
            figures = (_seconds(r.compile), _seconds(r.call), "" if r.error is None else f"{r.error:.2g}")
            table.append(("*" if i == self.winner else "", r.name, *figures, r.note))
        widths = [max(len(row[k]) for row in table) for k in range(len(table[0]))]
        lines = ["  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in table]
        return "\n".join([*lines, f"{self.rows[self.winner].name} wins: {self.why} ({self.origin})"])


def _seconds(t: float | None) -> str:
    return "" if t is None else f"{t * 1e6:.1f} us" if t < 1e-3 else f"{t * 1e3:.2f} ms" if t < 1 else f"{t:.2f} s"


# ---- what is remembered ---------------------------------------------------------------------------------------------------------------------
def signature(graph: Graph) -> str:
    """The text of a graph with those of the graphs inside it."""
    inner = [signature(g) for e in graph.equations for g in subgraphs(e.params)]
    return "\n".join([str(Graph(graph.inputs, graph.equations, graph.outputs)), *inner])


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return ""


_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS", "XLA_FLAGS", "CUDA_VISIBLE_DEVICES")


def key_of(program: Program) -> str:
    """What decides who is fastest: the program, the versions of all that could run it, and the machine as this process may use it."""
    usable = [f"{n} {_version(n)}" for n, ok in available().items() if ok is True]
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    machine = [platform.machine(), platform.processor(), platform.system(), str(cores), *(f"{n}={os.environ.get(n)}" for n in _THREADS)]
    roles = [f"{i.kind} {k in program.donated}" for k, i in enumerate(program.inputs)]
    parts = [signature(program.graph), *roles, str(len(program.dtypes)), repr(program.xp), _version("minidl"), sys.version, *usable, *machine]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:32]


def _remembered(key: str) -> Report | None:
    if key in _known:
        return dataclasses.replace(_known[key], origin="measured before in this process")
    try:
        data = disk.read(f"auto/{key}.json")
        report = Report([Row(**row) for row in data["rows"]], data["winner"], data["why"], "remembered")
        return report if isinstance(report.rows[report.winner].name, str) else None
    except (TypeError, KeyError, IndexError):
        return None


# ---- choosing -------------------------------------------------------------------------------------------------------------------------------
def choose(program: Program, natives: Sequence[Any]) -> tuple[Engine, Callable[..., tuple] | None, Report | None]:
    """Who runs a program: the engine, the graph as it compiled it if that was done here, and the report. natives: the inputs' values now.

    Raises what the inputs' own backend raises if no candidate can run the graph.
    """
    home = program.xp
    if not Auto.measure:
        return Engine(home), None, None
    key = key_of(program)
    report = _remembered(key)
    if report is not None:
        row = report.rows[report.winner]
        try:
            engine = Engine(home, row.backend, row.mode)
            return engine, engine.compile(program.graph, (*program.donated, *expendable(program, engine))), report
        except Exception as error:  # whatever a library that changed since may raise: the answer is to measure again
            print(f"minidl: auto: {row.name}, which was fastest before, fails now ({_short(error)}); measuring again", file=sys.stderr)
    contest = Contest(program, natives)
    engine, run, report = contest.decide()
    _known[key] = report
    disk.write(f"auto/{key}.json", {"rows": [dataclasses.asdict(r) for r in report.rows], "winner": report.winner, "why": report.why})
    return engine, run, report


def engines(home: Any) -> Iterator[tuple[Row, Engine | None]]:
    """Every candidate with its row, the inputs' own backend first and other modes last; None where it cannot be on that device."""
    usable = [n for n, ok in available().items() if ok is True and n != home.name]
    names = [home.name, *sorted(usable, key=lambda n: (n not in _QUICK, usable.index(n)))]
    found = []
    for name in names:
        try:
            xp = home if name == home.name else get(name, home.device)
            found.append(xp)
            yield Row(name), Engine(home, name)
        except Exception as error:  # a broken installation of one library is no reason to do without the others
            yield Row(name, note=f"not tried: {_short(error)}"), None
    for xp in found:
        for mode in xp.modes:
            yield Row(xp.name, mode), Engine(home, xp.name, mode)


def _short(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:100]}" if lines else type(error).__name__


class Contest:
    """The candidates for one program on the values of one call."""

    def __init__(self, program: Program, natives: Sequence[Any]):
        self.program, self.natives = program, natives
        self.rows: list[Row] = []
        self.runs: dict[int, Candidate] = {}  # by row: those that agree
        self.reference: list[np.ndarray] | None = None
        self.scale = 0.0  # the largest number among inputs and results
        self.fault: Exception | None = None
        self.shown = False

    def decide(self) -> tuple[Engine, Callable[..., tuple], Report]:
        """Try all that the budget allows, time those that agree, and name the winner."""
        candidates = list(engines(self.program.xp))  # which imports their libraries
        start = time.perf_counter()
        for k, (row, engine) in enumerate(candidates):
            self.rows.append(row)
            spent = time.perf_counter() - start
            expected = engine.xp.expected(self.program.graph, engine.mode) if engine is not None else 0.0
            if engine is not None and k and spent + expected >= Auto.budget:
                left = f"the budget of {Auto.budget:g} s was spent" if spent >= Auto.budget else f"about {expected:.0f} s would not fit the budget"
                row.note = f"not tried: {left}"
            elif engine is not None:
                self._progress(f"{row.name} ({k + 1} of {len(candidates)}, {spent:.1f} s)", spent)
                self._try(k, row, engine)
        if not self.runs:
            assert self.fault is not None
            raise self.fault
        self._time(start)
        if self.shown and sys.stderr.isatty():
            print("\r\x1b[K", end="", file=sys.stderr)
        best = min(self.runs, key=lambda k: self.rows[k].call or 0.0)
        if 0 in self.runs and (self.rows[0].call or 0.0) <= _NEAR * (self.rows[best].call or 0.0):
            best = 0
        others = sorted((r.call, r.name) for k, r in enumerate(self.rows) if k != best and k in self.runs and r.call is not None)
        why = f"{others[0][0] / (self.rows[best].call or 1.0):.2f} times as fast as {others[0][1]}" if others else "nothing else could be tried"
        return self.runs[best].engine, self.runs[best].run, Report(self.rows, best, why)

    def _progress(self, what: str, spent: float) -> None:
        if spent > 2:
            self.shown = True
            line = f"minidl: choosing a backend for {self.program.graph.name}: {what}"
            print(f"\r\x1b[K{line}" if sys.stderr.isatty() else line, end="" if sys.stderr.isatty() else "\n", file=sys.stderr, flush=True)

    def _try(self, k: int, row: Row, engine: Engine) -> None:
        start = time.perf_counter()
        try:
            candidate = Candidate(self.program, self.natives, engine)
            outs = candidate.once()
            row.compile = time.perf_counter() - start
            values = [np.array(engine.xp.to_numpy(o)) for o in outs]
        except Exception as error:  # a candidate may fail in any way that its library knows; it is set aside, and said
            row.note = f"set aside: {_short(error)}"
            self.fault = self.fault or error
            return
        if self.reference is None:
            self.reference = values
            self.scale = max((_largest(a) for a in (*values, *map(engine.home.to_numpy, self.natives)) if a.dtype.kind not in "biu"), default=0.0)
            row.note = "the reference"
        else:
            row.error = max((difference(a, b, self.scale) for a, b in zip(values, self.reference, strict=True)), default=0.0)
            if not row.error <= 1:
                row.note = "rejected: its results differ"
                return
        self.runs[k] = candidate

    def _time(self, start: float) -> None:
        """Best of several rounds in which the candidates take turns; the hopeless are dropped after each."""
        going = list(self.runs)
        until = time.perf_counter() + max(min(_TIMING, Auto.budget - (time.perf_counter() - start)), 0.0)
        for turn in range(_ROUNDS):
            for k in going[turn % len(going) :] + going[: turn % len(going)]:
                t = self.runs[k].seconds()
                self.rows[k].call = min(t, self.rows[k].call or t)
            best = min(self.rows[k].call or 0.0 for k in going)
            going = [k for k in going if (self.rows[k].call or 0.0) <= _HOPELESS * best]
            if len(going) == 1 or time.perf_counter() >= until:
                break


class Candidate:
    """One engine with the compiled graph and the inputs as they will lie: state with the engine, arguments with the inputs' backend."""

    def __init__(self, program: Program, natives: Sequence[Any], engine: Engine):
        self.engine, self.home, self.results = engine, program.xp, len(program.dtypes)
        donated = (*program.donated, *expendable(program, engine))
        self.run = engine.compile(program.graph, donated)
        self.used = [(k, program.graph.inputs[k].dtype) for k in donated] if engine.xp.donates else []
        way = ways(engine.xp)
        self.put, self.taken = way.put, way.classes
        kinds = [i.kind for i in program.inputs]
        self.inputs = [n if kind == "argument" else handed(n, self.home, engine.xp) for n, kind in zip(natives, kinds, strict=True)]
        self.calls = 0

    def _fresh(self) -> list[Any]:
        """The inputs, with copies of those that a call uses up."""
        out, xp = list(self.inputs), self.engine.xp
        for k, dtype in self.used:
            out[k] = xp.asarray(np.array(self.put_numpy(out[k])), dtype)
        if self.used:
            xp.wait([out[k] for k, _ in self.used])
        return out

    def put_numpy(self, native: Any) -> np.ndarray:
        """The values of an input, whoever it lies with."""
        return (self.home if self.home.is_native(native) else self.engine.xp).to_numpy(native)

    def _call(self, inputs: list[Any]) -> tuple:
        taken, put = self.taken, self.put
        outs = self.run(*[n if n.__class__ in taken else put(n) for n in inputs])
        self.engine.xp.wait(outs)
        if self.engine.crosses:
            for o in outs[: self.results]:
                handed(o, self.engine.xp, self.home)
        return outs

    def once(self) -> tuple:
        """The results of one call."""
        return self._call(self._fresh())

    def seconds(self) -> float:
        """Seconds a call, over as many calls as fill a round; the first round finds out how many."""
        if not self.calls:
            self.once()
            inputs, start = self._fresh(), time.perf_counter()
            self._call(inputs)
            self.calls = max(1, min(1000, int(_ROUND / (time.perf_counter() - start))))
        if self.used:  # each call needs inputs of its own, which are not part of the time
            best = float("inf")
            for _ in range(min(self.calls, 3)):
                inputs, start = self._fresh(), time.perf_counter()
                self._call(inputs)
                best = min(best, time.perf_counter() - start)
            return best
        call, inputs, n = self._call, self.inputs, self.calls
        start = time.perf_counter()
        for _ in range(n):
            call(inputs)
        return (time.perf_counter() - start) / n


# ---- agreement ------------------------------------------------------------------------------------------------------------------------------
def _finite(a: np.ndarray) -> np.ndarray:
    wide = a.astype(np.complex128 if a.dtype.kind == "c" else np.float64)
    return np.where(np.isfinite(wide), wide, 0.0)


def _largest(a: np.ndarray) -> float:
    return float(np.abs(_finite(a)).max(initial=0.0))


def difference(a: np.ndarray, b: np.ndarray, scale: float = 0.0) -> float:
    """The largest difference of two arrays over what their dtype allows, inf for another dtype, shape, integer or place of nan or infinity.

    Allowed is the square root of the dtype's epsilon, times the largest number in b or a thousandth of `scale`, the largest number of all:
    what cancels to nearly nothing beside large numbers carries their rounding.

    >>> bool(difference(np.ones(2, np.float32), np.full(2, 1.01, np.float32)) > 1 > difference(np.ones(2), np.ones(2) + 1e-12))
    True
    """
    if a.dtype != b.dtype or a.shape != b.shape:
        return float("inf")
    if a.dtype.kind in "biu":
        return 0.0 if np.array_equal(a, b) else float("inf")
    wide = np.complex128 if a.dtype.kind == "c" else np.float64
    x, y = a.astype(wide), b.astype(wide)
    odd = ~(np.isfinite(x) & np.isfinite(y))
    if not np.array_equal(x[odd], y[odd], equal_nan=True):
        return float("inf")
    allowed = _epsilon(a.dtype) ** 0.5 * max(_largest(b), 1e-3 * scale)
    largest = float(np.abs(_finite(a) - _finite(b)).max(initial=0.0))
    return largest / allowed if allowed else (float("inf") if largest else 0.0)


def _epsilon(dtype: np.dtype) -> float:
    return 2.0**-7 if dtype.name == "bfloat16" else float(np.finfo(dtype).eps)
