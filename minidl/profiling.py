"""md.profile: where the time of a call goes and what its memory holds, from one run with a clock at every operation.

Eager, each operation is timed where it reaches its backend, and each node of a backward pass as a whole. Jitted, the program's graph is run equation
by equation on the real inputs and nothing is stored, so state does not advance; a compiled program fuses equations, and its time stands beside
their sum. The device is waited for after every operation, so the times are the work's and not the launches'.

Promises: memory is counted from what was alive when the call began, views as nothing; other threads are neither timed nor slowed down.
"""

from __future__ import annotations

import contextlib
import dataclasses
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from html import escape
from pathlib import Path
from typing import Any

from minidl import tape, tree
from minidl.backends import loaded
from minidl.backends.reuse import VIEWS
from minidl.context import state
from minidl.draw import PALETTE, label, page
from minidl.graph import Graph, Literal, describe, last_uses
from minidl.jitting import Jitted
from minidl.primitives import table
from minidl.program import Program
from minidl.tensors import Tensor

_BARS = "▁▂▃▄▅▆▇█"
_lock = threading.Lock()


@dataclasses.dataclass
class Event:
    """One operation: its name, seconds, and the bytes alive when it ended."""

    name: str
    seconds: float
    alive: int


@dataclasses.dataclass
class Profile:
    """What md.profile found; print it, or save the picture of memory over time with `save("memory.svg")`.

    seconds: the whole call; for a jitted function the compiled program's. peak: bytes at the worst moment, above what was there before the call.
    largest: (bytes, operation, type) of the largest arrays alive at that moment.
    """

    title: str
    events: list[Event]
    seconds: float
    largest: list[tuple[int, str, str]]
    jitted: bool

    @property
    def peak(self) -> int:
        """The most bytes that were alive at once."""
        return max((e.alive for e in self.events), default=0)

    def by_operation(self) -> list[tuple[str, int, float]]:
        """(name, calls, seconds), the dearest first."""
        found: dict[str, tuple[int, float]] = {}
        for e in self.events:
            calls, seconds = found.get(e.name, (0, 0.0))
            found[e.name] = calls + 1, seconds + e.seconds
        return sorted(((n, c, s) for n, (c, s) in found.items()), key=lambda row: -row[2])

    def __str__(self) -> str:
        rows = self.by_operation()
        inside = sum(s for _, _, s in rows)
        if self.jitted:
            head = f"{self.title}: {_time(self.seconds)} compiled; {_time(inside)} for its {len(self.events)} equations one by one"
        else:
            head = f"{self.title}: {_time(self.seconds)}, of which {_time(max(self.seconds - inside, 0.0))} between the operations (Python)"
        lines = [head, "", f"{'operation':30}{'calls':>7}{'time':>12}{'share':>8}"]
        lines += [f"{n:30}{c:7}{_time(s):>12}{s / max(inside, 1e-12):8.1%}" for n, c, s in rows[:15]]
        if len(rows) > 15:
            lines.append(f"{f'{len(rows) - 15} others':30}{sum(c for _, c, _ in rows[15:]):7}{_time(sum(s for *_, s in rows[15:])):>12}")
        lines += ["", f"peak memory {_bytes(self.peak)}, over time: {self._sparkline()}", "largest arrays at the peak:"]
        return "\n".join([*lines, *(f"  {_bytes(n):>10}  {kind:20} of {name}" for n, name, kind in self.largest)])

    def _sparkline(self, width: int = 60) -> str:
        n, peak = len(self.events), max(self.peak, 1)
        slots = [self.events[i * n // width : max((i + 1) * n // width, i * n // width + 1)] for i in range(min(width, n))] if n > width else None
        heights = [max(e.alive for e in s) for s in slots if s] if slots else [e.alive for e in self.events]
        return "".join(_BARS[min(h * len(_BARS) // peak, len(_BARS) - 1)] for h in heights)

    def to_svg(self) -> str:
        """Memory over the operations, as an SVG for light and dark pages; the pointer over a step shows the operation."""
        width, height, left, top = 800, 260, 70, 34
        n, peak = max(len(self.events), 1), max(self.peak, 1)
        step = width / n
        bars = []
        for i, e in enumerate(self.events):
            h = height * e.alive / peak
            note = escape(f"{i}: {e.name}, {_time(e.seconds)}, {_bytes(e.alive)} alive")
            place = f'x="{left + i * step:.2f}" y="{top + height - h:.2f}" width="{step + 0.3:.2f}" height="{h:.2f}"'
            bars.append(f'<rect fill="{PALETTE[0]}" {place}><title>{note}</title></rect>')
        grid = []
        for k in range(3):
            y = top + height * (1 - k / 2)
            grid += [label(left - 6, y + 4, _bytes(peak * k // 2), "end", "small"), f'<path class="rule" d="M{left} {y:.1f}h{width}"/>']
        head = label(left, 18, f"{self.title}: memory alive after each of {len(self.events)} operations")
        return page(left + width + 20, top + height + 34, [head, *grid, *bars, label(left, top + height + 22, "operations in order →", kind="small")])

    def save(self, path: str | Path) -> None:
        """Write the SVG picture to a file."""
        Path(path).write_text(self.to_svg(), encoding="utf-8")


def _time(seconds: float) -> str:
    return f"{seconds * 1e6:.1f} us" if seconds < 1e-3 else f"{seconds * 1e3:.2f} ms" if seconds < 1 else f"{seconds:.2f} s"


def _bytes(n: float) -> str:
    for unit in ("B", "KB", "MB"):
        if abs(n) < 1000:
            return f"{n:.0f} B" if unit == "B" else f"{n:.2f} {unit}"
        n /= 1000
    return f"{n:.2f} GB"


class _Recorder:
    """The events of one call, and which of its arrays are alive."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.alive: dict[int, tuple[int, str, str]] = {}
        self.total = self.worst = 0
        self.largest: list[tuple[int, str, str]] = []
        self.thread = threading.get_ident()
        self.inside = False

    def made(self, xp: Any, name: str, natives: Any) -> None:
        """Arrays that an operation returned: alive until nobody refers to them."""
        for native in natives:
            size = _size(native)
            if size and id(native) not in self.alive:
                with contextlib.suppress(TypeError):  # NumPy's scalars cannot be watched
                    weakref.finalize(native, self._gone, id(native)).atexit = False
                    self.alive[id(native)] = size, name, f"{xp.dtype_of(native).short}[{','.join(map(str, native.shape))}]"
                    self.total += size

    def _gone(self, key: int) -> None:
        self.total -= self.alive.pop(key, (0,))[0]

    def ended(self, name: str, seconds: float) -> None:
        """One more event; the worst moment is remembered with what it held."""
        if self.total > self.worst:
            self.worst, self.largest = self.total, sorted(self.alive.values(), reverse=True)[:8]
        self.events.append(Event(name, seconds, self.total))

    def timed(self, xp: Any, name: str, f: Callable[..., Any]) -> Callable[..., Any]:
        """f with a clock, for the calls of this thread that are not part of another timed one."""

        def call(*args: Any, **params: Any) -> Any:
            if self.inside or threading.get_ident() != self.thread or state.interpreter is not None:
                return f(*args, **params)
            self.inside = True
            try:
                start = time.perf_counter()
                out = f(*args, **params)
                _wait(xp, outs := out if isinstance(out, tuple) else (out,))
                seconds = time.perf_counter() - start
            finally:
                self.inside = False
            if name not in VIEWS:
                self.made(xp, name, outs)
            self.ended(name, seconds)
            return out

        return call


def _size(native: Any) -> int:
    n = getattr(native, "nbytes", 0)
    return int(n) if getattr(native, "base", None) is None else 0


def _wait(xp: Any, natives: Any) -> None:
    for n in natives:
        if hasattr(n, "block_until_ready"):
            n.block_until_ready()
    if xp.device != "cpu" and xp.name != "jax":
        xp.synchronize()


class _Timed(tape.Hooked):
    """A kind of node whose part in a backward pass is one event."""

    __slots__ = ("recorder",)

    def __init__(self, inner: Any, recorder: _Recorder):
        super().__init__(inner)
        self.recorder = recorder

    def pull(self, node: Any, g: Any, pending: dict, heap: list) -> None:
        """The inner kind's, with a clock."""
        r, xp, parents = self.recorder, node[2], [p for p in tape.parents_of(node) if p is not None]
        name = "backward of " + (self.inner.primitive.name if hasattr(self.inner, "primitive") else self.inner.name)
        before, r.inside = r.inside, True
        try:
            start = time.perf_counter()
            tape.pull_of(self.inner)(node, g, pending, heap)
            found = [n for p in parents if hasattr(n := pending.get(p[0]), "shape")]
            _wait(xp, found)
            seconds = time.perf_counter() - start
        finally:
            r.inside = before
        r.made(xp, name, found)
        r.ended(name, seconds)


class _Names:
    """A backend's `quick` functions with clocks."""

    def __init__(self, xp: Any, recorder: _Recorder):
        quick = xp.quick
        self.__dict__.update({name: recorder.timed(xp, name, getattr(quick, name)) for name in table})
        self.numbers, self.number, self.dtype_of = xp.numbers, xp.number, xp.dtype_of


@contextlib.contextmanager
def _clocks(recorder: _Recorder) -> Iterator[None]:
    """Clocks at the functions of every backend that is loaded, and at the nodes of backward passes."""
    pull_raw, before = tape.pull_raw, [(xp, dict(xp.__dict__)) for xp in loaded()]

    def watched(roots: Any, *rest: Any, **named: Any) -> None:
        if threading.get_ident() != recorder.thread or state.interpreter is not None:
            return pull_raw(roots, *rest, **named)
        changed = []
        for root, _ in roots:
            for node in tape.above(root):
                if isinstance(node[1], (tape.Kind, tape.Opaque)):
                    node[1] = _Timed(node[1], recorder)
                    changed.append(node)
        try:
            return pull_raw(roots, *rest, **named)
        finally:
            for node in changed:
                if isinstance(node[1], _Timed):  # not released: it may be used again
                    node[1] = node[1].inner

    for xp, _ in before:
        clocked = {name: recorder.timed(xp, name, getattr(xp, name)) for name in table}
        quick, bare = _Names(xp, recorder), xp.bare
        xp.__dict__.update(clocked, quick=quick, bare=bare)
    tape.pull_raw = watched  # type: ignore[assignment]
    try:
        yield
    finally:
        tape.pull_raw = pull_raw
        for xp, attributes in before:
            xp.__dict__.clear()
            xp.__dict__.update(attributes)


def _eager(f: Callable[..., Any], args: tuple, kwargs: dict[str, Any]) -> tuple[_Recorder, float]:
    recorder = _Recorder()
    with _lock, _clocks(recorder):
        start = time.perf_counter()
        out = f(*args, **kwargs)
        for leaf in tree.leaves(out):
            if isinstance(leaf, Tensor) and hasattr(leaf.payload, "block_until_ready"):
                leaf.payload.block_until_ready()
        seconds = time.perf_counter() - start
    return recorder, seconds


def _equations(graph: Graph, xp: Any, natives: list[Any]) -> _Recorder:
    """Run a graph equation by equation; values are dropped after their last use."""
    recorder, last = _Recorder(), last_uses(graph)
    env: dict[Any, Any] = dict(zip(graph.inputs, natives, strict=True))
    with xp.scope():
        for i, e in enumerate(graph.equations):
            operands = [xp.scalar(a.value, a.dtype) if isinstance(a, Literal) else env[a] for a in e.inputs]
            start = time.perf_counter()
            out = getattr(xp, e.primitive.name)(*operands, **e.params)
            outs = out if e.primitive.multiple else (out,)
            _wait(xp, outs)
            seconds = time.perf_counter() - start
            if e.primitive.name not in VIEWS:
                for v, _ in zip(e.outputs, outs, strict=True):
                    recorder.alive[id(v)] = v.nbytes, e.primitive.name, describe(v)
                    recorder.total += v.nbytes
            env.update(zip(e.outputs, outs, strict=True))
            recorder.ended(e.primitive.name, seconds)
            del operands, out, outs
            for v in last.get(i, ()):
                env.pop(v, None)
                recorder._gone(id(v))
    return recorder


def profile(f: Callable[..., Any], *args: Any, **kwargs: Any) -> Profile:
    """Run `f(*args, **kwargs)` once and report the time of each operation, the peak memory and the largest arrays at the peak.

    A function made by md.jit is profiled as its graph, equation by equation, and as the compiled program; its state does not advance. Any other
    runs as it is: a training step trains once. Returns a Profile, which prints as a table; `.save("memory.svg")` draws memory over time. Raises
    TypeError for what is no function.

    >>> report = md.profile(lambda x: (x * x).sum(), md.ones((1000,)))
    >>> [name for name, calls, seconds in sorted(report.by_operation())], report.peak >= 4000
    (['mul', 'sum'], True)
    """
    if not callable(f):
        raise TypeError(f"profile: expected a function, got {type(f).__name__}; write md.profile(step, x, y), not md.profile(step(x, y))")
    title = getattr(f, "__name__", type(f).__name__)
    if not isinstance(f, Jitted):
        recorder, seconds = _eager(f, args, kwargs)
        return Profile(title, recorder.events, seconds, recorder.largest, False)
    program = Program(f, args, kwargs, state.grad)
    natives = program.natives(args, kwargs)
    recorder = _equations(program.graph, program.xp, natives)
    run = program.xp.compile(program.graph)
    _wait(program.xp, run(*natives))  # what is compiled at the first call
    start = time.perf_counter()
    _wait(program.xp, run(*natives))
    return Profile(f"jit({title})", recorder.events, time.perf_counter() - start, recorder.largest, True)
