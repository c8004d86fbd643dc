"""The contest behind backend="auto": who the candidates for a program are, whether they agree, and how long they take.

Candidates are the backends that are installed and can be on the device of the inputs, each with its first choice and its other modes; those that
should compile the quickest come first. They run in turns on copies of the real inputs, in loops: arguments change hands in every call, state lies
with the candidate already and goes from call to call, and results are read where a loop ends, as they lie with the candidate until somebody does.
A turn begins when the threads that the one before left spinning are still, unless some of this process always run.
Graphs are pure, so nothing happens twice. The fastest that agrees with the backend of the inputs wins; that backend itself wins where it is within
1 %, since it needs no handover.

Agreement is to half the digits of the dtype. An output that moves by more than that when the inputs are rounded otherwise (the first steps of Adam on
a gradient that is zero but for rounding) may differ by as much as it moves: no candidate can be held to digits that the program does not determine.

Promises: no more than `md.set_auto(budget=)` seconds pass before the last candidate is begun, imports apart; one that fails, is wrong or was not
tried is in the report with the reason; the time that the system gives to other programs is no candidate's (minidl.stopwatch); whoever is close to the
best has run in at least ROUNDS rounds, but for programs of which that many take a quarter of the budget. Processes that time a program one after
the other name together who is best.
"""

from __future__ import annotations

import dataclasses
import math
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

import minidl as md
from minidl.columns import columns
from minidl.extend import Engine, handed
from minidl.extend import get_backend as get
from minidl.stopwatch import SPREAD, Stopwatch, settle

if TYPE_CHECKING:
    from minidl.program import Program

available = md.backends
_ROUND, _TIMING = 1e-2, 1.0  # seconds that a candidate runs in a round, seconds after which enough rounds are enough
_LONG = 0.2  # seconds of a call from which it is timed as it comes
ROUNDS, _MOST = 5, 20
_AHEAD = 20  # calls in a timed loop that state goes through, behind half as many: what comes later may be beyond what the program was written for
_DROP = (2.0, 1.5, 1.5, 1.5, 1.2)  # times the best: who is dropped after each round, the last for all that follow
_TIE = 1.05  # times the best within which more rounds may tell
_NEAR = 1.01  # times the best within which the inputs' own backend is taken: nearer than two measurements of one program
_CLOSE, _REACH = 1.25, 4.0  # times the winner: who is timed again in a later process; who is, where the winner's time changed by as much as _CLOSE
_ULPS, _DRAWS, _ROOM = 4, 3, 4.0  # how far inputs are moved, how often, and how much more than the largest movement seen is allowed


class Auto:
    """What backend="auto" may do: measure, and for how many seconds a graph.

    >>> isinstance(md.extend.Auto.measure, bool) and md.extend.Auto.budget >= 0
    True
    """

    measure = os.environ.get("MINIDL_AUTO", "on").lower() not in ("off", "0", "no", "false")
    budget = float(os.environ.get("MINIDL_AUTO_BUDGET", 30.0))


def set_auto(*, measure: bool | None = None, budget: float | None = None) -> None:
    """Whether backend="auto" measures (environment: MINIDL_AUTO=off), and for how many seconds a graph (MINIDL_AUTO_BUDGET, 30 by default).

    Where it does not measure, a program runs on the backend of its inputs, so that results are the same on every run and every machine of a kind.
    Raises ValueError for a negative budget. A budget of 0 still measures the backend of the inputs, and nothing else.

    >>> md.set_auto(measure=True, budget=30.0)
    """
    if budget is not None and not budget >= 0:
        raise ValueError(f"set_auto: the budget is a number of seconds, not {budget}")
    Auto.measure = Auto.measure if measure is None else bool(measure)
    Auto.budget = Auto.budget if budget is None else float(budget)


#: Who runs a program, the graph as it was compiled, and why.
Chosen = tuple[Engine, Callable[..., tuple], "Report"]


@dataclasses.dataclass
class Row:
    """What is known of one candidate. Seconds; None where there is no figure."""

    backend: str
    mode: str | None = None
    compile: float | None = None
    call: float | None = None
    error: float | None = None  # the largest difference from the reference, over what is allowed
    note: str = ""
    open: bool = False  # not tried for want of time
    behind: list[float] = dataclasses.field(default_factory=list)  # its time over the best one's, in each process that timed it

    @property
    def name(self) -> str:
        """Backend and mode."""
        return self.backend if self.mode is None else f"{self.backend} {self.mode}"

    def standing(self) -> float:
        """Its time over the best one's, all processes together: how memory happens to lie in one is no candidate's merit."""
        return math.prod(self.behind) ** (1 / len(self.behind)) if self.behind else math.inf


@dataclasses.dataclass
class Report:
    """What was tried, and which row won."""

    rows: list[Row]
    winner: int
    why: str
    budget: float  # seconds that it was made in
    checks: int = 1  # processes that measured it
    origin: str = ""

    def __str__(self) -> str:
        table = [("", "engine", "compile", "a call", "difference / allowed", "")]
        for i, r in enumerate(self.rows):
            figures = (_seconds(r.compile), _seconds(r.call), "" if r.error is None else f"{r.error:.2g}")
            table.append(("*" if i == self.winner else "", r.name, *figures, r.note))
        return "\n".join([*columns(table), f"{self.rows[self.winner].name} wins: {self.why} ({self.origin})"])


def _seconds(t: float | None) -> str:
    return "" if t is None else f"{t * 1e6:.1f} us" if t < 1e-3 else f"{t * 1e3:.2f} ms" if t < 1 else f"{t:.2f} s"


def engines(home: Any) -> Iterator[tuple[Row, Engine | None]]:
    """Every candidate with its row, the inputs' own backend first; None where it cannot be on that device."""
    found = []
    for name in (home.name, *(n for n, ok in available().items() if ok is True and n != home.name)):
        try:
            xp = home if name == home.name else get(name, home.device)
            found.append(xp)
            yield Row(name), Engine(home, name)
        except Exception as error:  # a broken installation of one library is no reason to do without the others
            yield Row(name, note=f"not tried: {short(error)}"), None
    for xp in found:
        for mode in xp.modes:
            yield Row(xp.name, mode), Engine(home, xp.name, mode)


def short(error: BaseException) -> str:
    """Class and first line of an error."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:100]}" if lines else type(error).__name__


class Contest:
    """The candidates for one program on the values of one call."""

    def __init__(self, program: Program, natives: Sequence[Any]):
        self.program, self.natives = program, natives
        candidates = [(r, e, e.xp.expected(program.graph, e.mode) if e else 0.0) for r, e in engines(program.xp)]  # which imports their libraries
        self.candidates = [candidates[0], *sorted((c for c in candidates[1:] if c[2] < math.inf), key=lambda c: c[2])]
        self.rows = [r for r, _, _ in self.candidates]
        self.runs: dict[int, Candidate] = {}  # by row: those that agree
        self.reference: list[np.ndarray] | None = None
        self.first: Candidate | None = None  # who made the reference
        self.scale = 0.0  # the largest number among inputs and results
        self.movement: list[float] | None = None  # of each result
        self.fault: Exception | None = None
        self.shown = False
        self.start = time.perf_counter()

    def decide(self) -> Chosen:
        """Try all that the budget allows, time those that agree, and name the winner. Raises what the first that failed raised where all do."""
        self._try(range(len(self.rows)))
        if not self.runs:
            assert self.fault is not None
            raise self.fault
        self._time(list(self.runs))
        return self._name(1, "measured now")

    def again(self, report: Report) -> Chosen:
        """Look again at what a report leaves open. Raises what the winner raises."""
        known = {r.name: r for r in report.rows}
        best = report.rows[report.winner]
        for row in self.rows:
            row.__dict__.update(vars(known.get(row.name, Row(row.backend, row.mode, open=True))))

        def within(reach: float) -> list[int]:
            limit = reach * (best.call or 0.0)
            return [k for k, r in enumerate(self.rows) if k not in self.runs and r.call is not None and r.call <= limit]

        winner = next(k for k, r in enumerate(self.rows) if r.name == best.name)
        late = [k for k, r in enumerate(self.rows) if r.open]
        before = best.call or 0.0
        self._try([winner, *(k for k in within(_CLOSE) if k != winner), *late])
        if winner not in self.runs:
            raise self.fault or RuntimeError("its results are not what they were")
        self._time(list(self.runs))
        if not 1 / _CLOSE <= (self.rows[winner].call or 0.0) / (before or 1.0) <= _CLOSE:
            self._try(within(_REACH))
            for k in self.runs:  # what was found under other circumstances
                self.rows[k].behind = []
            self._time(list(self.runs))
        return self._name(report.checks + 1, "remembered, and measured again")

    def _name(self, checks: int, origin: str) -> Chosen:
        if self.shown and sys.stderr.isatty():
            print("\r\x1b[K", end="", file=sys.stderr)
        least = min(self.rows[k].call or 0.0 for k in self.runs) or 1.0
        for k in self.runs:
            self.rows[k].behind.append((self.rows[k].call or 0.0) / least)
        standing = {k: self.rows[k].standing() for k in self.runs}
        best = min(standing, key=lambda k: standing[k])
        if standing.get(0, math.inf) <= _NEAR * standing[best]:
            best = 0
        others = sorted((r.standing(), r.name) for k, r in enumerate(self.rows) if k != best and r.call is not None)
        why = f"{others[0][0] / standing[best]:.2f} times as fast as {others[0][1]}" if others else "nothing else could be tried"
        return self.runs[best].engine, self.runs[best].run, Report(self.rows, best, why, Auto.budget, checks, origin)

    def _progress(self, what: str, spent: float) -> None:
        if spent > 2:
            self.shown = True
            line = f"minidl: choosing a backend for {self.program.graph.name}: {what}"
            print(f"\r\x1b[K{line}" if sys.stderr.isatty() else line, end="" if sys.stderr.isatty() else "\n", file=sys.stderr, flush=True)

    def _try(self, which: Sequence[int]) -> None:
        """Compile candidates and compare what they return, as long as the budget lasts; the first one in any case."""
        for count, k in enumerate(which, 1):
            row, engine, expected = self.candidates[k]
            spent = time.perf_counter() - self.start
            row.open = engine is not None and self.first is not None and spent + expected >= Auto.budget
            if row.open:
                left = f"the budget of {Auto.budget:g} s was spent" if spent >= Auto.budget else f"about {expected:.0f} s would not fit the budget"
                row.note = f"not tried: {left}"
            elif engine is not None:
                self._progress(f"{row.name} ({count} of {len(which)}, {spent:.1f} s)", spent)
                self._attempt(k, row, engine)

    def _attempt(self, k: int, row: Row, engine: Engine) -> None:
        start = time.perf_counter()
        row.call, row.note = None, ""
        try:
            candidate = Candidate(self.program, self.natives, engine)
            outs = candidate.once()
            row.compile = time.perf_counter() - start
            values = [np.array(engine.xp.to_numpy(o)) for o in outs]
        except Exception as error:  # a candidate may fail in any way that its library knows; it is set aside, and said
            row.note = f"set aside: {short(error)}"
            self.fault = self.fault or error
            return
        if self.reference is None:
            self.reference, self.first = values, candidate
            self.scale = max((_largest(a) for a in (*values, *map(engine.home.to_numpy, self.natives)) if a.dtype.kind not in "biu"), default=0.0)
            row.note = "the reference" if row.error is None else ""
        else:
            row.error = self._difference(values)
            if not row.error <= 1:
                row.note = "rejected: its results differ"
                return
        self.runs[k] = candidate

    def _difference(self, values: list[np.ndarray]) -> float:
        """The largest difference from the reference over what is allowed."""
        assert self.reference is not None
        found = [difference(a, b, self.scale) for a, b in zip(values, self.reference, strict=True)]
        if max(found, default=0.0) > 1:
            self.movement = self.movement or self._moved()
            found = [d / max(1.0, _ROOM * m) for d, m in zip(found, self.movement, strict=True)]
        return max(found, default=0.0)

    def _moved(self) -> list[float]:
        """For each result, how far it moves when the inputs are rounded otherwise, over the difference that is allowed."""
        assert self.reference is not None and self.first is not None
        rng, moved = np.random.default_rng(0), [0.0] * len(self.reference)
        for _ in range(_DRAWS):
            values = [np.array(self.first.engine.xp.to_numpy(o)) for o in self.first.once(lambda a: _nudged(a, rng))]
            new = [difference(a, b, self.scale) for a, b in zip(values, self.reference, strict=True)]
            moved = [max(m, d) if np.isfinite(d) else m for m, d in zip(moved, new, strict=True)]
        return moved

    def _time(self, going: list[int]) -> None:
        """Best of several rounds in which the candidates take turns; whoever is behind is dropped, the sooner the further."""
        best: dict[int, float] = {}
        still = True
        start, watch = time.perf_counter(), Stopwatch()  # on a loaded machine as many rounds as on a quiet one, while the budget lasts
        for turn in range(_MOST):
            for k in going[turn % len(going) :] + going[: turn % len(going)]:
                still = still and settle()
                best[k] = min(self.runs[k].seconds(), best.get(k, float("inf")))
            limit = _DROP[min(turn, len(_DROP) - 1)] * min(best.values())
            going = [k for k in going if best[k] <= limit]
            spent = watch.seconds()
            if turn + 1 >= ROUNDS and spent >= _TIMING:  # as long again for those between whom it is close
                going = [k for k in going if best[k] <= _TIE * min(best.values())]
            late = spent >= max(_TIMING, Auto.budget / 4) or time.perf_counter() - start >= max(_TIMING, Auto.budget)
            if len(going) == 1 or late or (turn + 1 >= ROUNDS and spent >= 2 * _TIMING):
                break
        for k, t in best.items():
            self.rows[k].call = t


class Candidate:
    """One engine with the compiled graph and the inputs as they will lie: state with the engine, arguments with the inputs' backend."""

    def __init__(self, program: Program, natives: Sequence[Any], engine: Engine):
        self.engine, self.home, self.results = engine, program.xp, len(program.dtypes)
        self.graph = program.graph
        _, donated, stored = engine.asks(program)
        self.stored = sorted(stored.items())  # what is returned by nobody, and is as it came in
        self.run = engine.build(program)
        self.used = [(k, program.graph.inputs[k].dtype) for k in donated] if engine.xp.donates else []
        places = {w.target: w.output for w in program.writes}
        self.heirs = [(k, places[text]) for k, _ in self.used if (text := program.inputs[k].text) in places]  # inputs and what follows them
        self.put, self.taken = engine.ways.put, engine.ways.classes
        kinds = [i.kind for i in program.inputs]
        self.inputs = [n if kind == "argument" else handed(n, self.home, engine.xp) for n, kind in zip(natives, kinds, strict=True)]
        self.calls, self.found = 0, 0.0  # in a round; seconds for one
        self.kept: tuple = ()  # a result lives until the next is there, as a user's does: where it lies decides which memory the next one gets

    def _fresh(self, change: Callable[[np.ndarray], np.ndarray] | None = None) -> list[Any]:
        """The inputs, with copies of those that a call uses up; or all of them changed."""
        out, xp = list(self.inputs), self.engine.xp
        if change is not None:
            for k, v in enumerate(self.graph.inputs):
                there = self.home if self.home.is_native(out[k]) else xp
                with there.scope():
                    out[k] = there.asarray(change(self.put_numpy(out[k])), v.dtype)
            return out
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
        there = [n if n.__class__ in taken else put(n) for n in inputs]
        outs = self.run(*there)
        for k, i in self.stored:
            outs = (*outs[:k], there[i], *outs[k:])
        return outs

    def once(self, change: Callable[[np.ndarray], np.ndarray] | None = None) -> tuple:
        """The results of one call, on the inputs or on what `change` makes of them."""
        outs = self._call(self._fresh(change))
        self.engine.xp.wait(outs)
        return outs

    def _loop(self, count: int) -> float:
        """Seconds a call of so many, one after the other, each with the state that the one before left; half as many go before, which find new copies
        of it instead."""
        call, heirs, inputs = self._call, self.heirs, self._fresh()
        for turns in (count // 2, count):
            watch = Stopwatch()
            for _ in range(turns):
                self.kept = outs = call(inputs)
                for k, o in heirs:
                    inputs[k] = outs[o]
            if turns:
                self.engine.xp.wait(outs)
        for o in outs[: self.results]:
            handed(o, self.engine.xp, self.home)
        return watch.seconds() / count

    def _settle(self, seconds: float) -> None:
        """Let a round have as many calls of so many seconds as fill it, if it has fewer."""
        self.found = seconds
        self.calls = max(1, self.calls, min(_AHEAD if self.heirs else 1000, round(_ROUND / max(seconds, 1e-9))))

    def seconds(self) -> float:
        """Seconds a call, over as many calls as fill a round, which the rounds find out: the first calls, whose memory the system has yet to give,
        may take ten times as long as others. Where they do not take long, calls go before that do not count: others ran meanwhile, and one that finds
        neither its code nor its data in a cache may take half as long again, and one whose threads have slept twice as long (see stopwatch)."""
        if not self.calls:
            self.kept = self.once()
            first = self._loop(1)
            self._settle(first if first > _ROUND else min(first, self._loop(1), self._loop(1)))
            warm = self.calls > 1
        else:
            warm = self.found < _LONG
        if warm:
            end = time.perf_counter() + SPREAD
            self._loop(1)
            while time.perf_counter() < end:
                self._loop(self.calls)
        if len(self.heirs) == len(self.used):
            try:
                found = self._loop(self.calls)
                self._settle(found)
                return found
            except Exception:
                if not self.heirs:
                    raise
                self.heirs = []  # an index that grew too large, for one
        return min(self._loop(1) for _ in range(min(self.calls, 3)))  # each call needs another input, which is not part of the time


# ---- agreement ------------------------------------------------------------------------------------------------------------------------------
def _finite(a: np.ndarray) -> np.ndarray:
    wide = a.astype(np.complex128 if a.dtype.kind == "c" else np.float64)
    return np.where(np.isfinite(wide), wide, 0.0)


def _largest(a: np.ndarray) -> float:
    return float(np.abs(_finite(a)).max(initial=0.0))


def _nudged(a: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Numbers moved by a few units in the last place."""
    if a.dtype.kind in "biu":
        return a
    wide = a.astype(np.complex128 if a.dtype.kind == "c" else np.float64)
    return (wide * (1 + _epsilon(a.dtype) * rng.integers(-_ULPS, _ULPS, a.shape, endpoint=True))).astype(a.dtype)


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
