"""One run with a clock at every operation: what md.profile reports.

Eager, each operation is timed where it reaches its backend; each node of a backward pass, and each jitted function that is called on the way (as the
step of an optimizer is), as a whole. Jitted, the program's graph is run equation by equation on the real inputs and nothing is stored, so state does
not advance. The device is waited for after every operation, so the times are the work's and not the launches'.

Promises: memory is counted from what was alive when the call began, views as nothing; other threads are neither timed nor slowed down.
"""

from __future__ import annotations

import contextlib
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from typing import Any

from minidl import tape, tree
from minidl.backends import loaded
from minidl.backends.base import Functions
from minidl.backends.reuse import VIEWS
from minidl.context import busy, state
from minidl.graph import Graph
from minidl.jitting import SLOT, Jitted
from minidl.primitives import table
from minidl.program import Program
from minidl.tensors import Tensor

_lock = threading.Lock()


#: Of each operation the name, the seconds, and the bytes alive when it ended; those of the whole call, or of the compiled program; (bytes, operation,
#: type) of the largest arrays alive at the worst moment; whether the function is jitted.
Recording = tuple[list[tuple[str, float, int]], float, list[tuple[int, str, str]], bool]


class _Recorder:
    """The events of one call, and which of its arrays are alive."""

    def __init__(self) -> None:
        self.events: list[tuple[str, float, int]] = []
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
        self.events.append((name, seconds, self.total))

    def measured(self, name: str, f: Callable[[], Any], found: Callable[[Any], list[tuple[Any, Any]]]) -> Any:
        """f() as one operation, where it is this thread's and no part of another. found: from its result to the arrays, each with its backend."""
        if self.inside or threading.get_ident() != self.thread or state.interpreter is not None:
            return f()
        self.inside = True
        try:
            start = time.perf_counter()
            out = f()
            done = time.perf_counter()
            made = found(out)
            start += time.perf_counter() - done  # to look for them is nobody's time
            for xp, native in made:
                xp.wait((native,))
            seconds = time.perf_counter() - start
        finally:
            self.inside = False
        for xp, native in made if name not in VIEWS else ():
            self.made(xp, name, (native,))
        self.ended(name, seconds)
        return out

    def timed(self, xp: Any, name: str, f: Callable[..., Any]) -> Callable[..., Any]:
        """A function of a backend with a clock."""
        found = lambda out: [(xp, native) for native in (out if isinstance(out, tuple) else (out,))]
        return lambda *args, **params: self.measured(name, lambda: f(*args, **params), found)

    def called(self, jitted: Any, args: tuple, kwargs: dict[str, Any]) -> Any:
        """A call of a jitted function with a clock: of its memory what it returns and stores is seen."""

        def found(out: Any) -> list[tuple[Any, Any]]:
            last = [p for p in jitted.programs if p.entry is SLOT.__get__(jitted) and not busy[0]]  # which asks no guard
            program = next((p for p in last or jitted.programs if last or (p.holds() and not p.why(args, kwargs))), None)
            stored = [program.source.env.get(w.target) for w in program.writes] if program else []
            return [(t.xp, t.payload) for t in (*tree.leaves(out), *stored) if isinstance(t, Tensor)]

        return self.measured(f"jit({getattr(jitted, '__name__', 'function')})", lambda: SLOT.__get__(jitted)(*args, **kwargs), found)


def _size(native: Any) -> int:
    n = getattr(native, "nbytes", 0)
    return int(n) if getattr(native, "base", None) is None else 0


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
            xp.wait(found)
            seconds = time.perf_counter() - start
        finally:
            r.inside = before
        r.made(xp, name, found)
        r.ended(name, seconds)


@contextlib.contextmanager
def _clocks(recorder: _Recorder) -> Iterator[None]:
    """Clocks at the functions of every backend that is loaded, at the nodes of backward passes, and at jitted functions."""
    names = (*table, "quick", "bare")
    pull_raw, before = tape.pull_raw, [(xp, {n: vars(xp)[n] for n in names if n in vars(xp)}) for xp in loaded()]

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
        quick, bare = Functions(xp, {n: recorder.timed(xp, n, getattr(xp.quick, n)) for n in table}), xp.bare
        xp.__dict__.update(clocked, quick=quick, bare=bare)
    tape.pull_raw = watched  # type: ignore[assignment]
    Jitted.__call__ = lambda self, *args, **kwargs: recorder.called(self, args, kwargs)  # type: ignore[assignment, method-assign]
    try:
        yield
    finally:
        tape.pull_raw = pull_raw
        Jitted.__call__ = SLOT  # type: ignore[method-assign]
        for xp, own in before:  # one by one: other threads use the backend meanwhile
            xp.__dict__.update(own)
            for name in names:
                if name not in own:
                    xp.__dict__.pop(name, None)


def _eager(f: Callable[..., Any], args: tuple, kwargs: dict[str, Any]) -> Recording:
    recorder = _Recorder()
    with _lock, _clocks(recorder):
        start = time.perf_counter()
        out = f(*args, **kwargs)
        for leaf in tree.leaves(out):
            if isinstance(leaf, Tensor):
                leaf.xp.wait([leaf.payload])
        seconds = time.perf_counter() - start
    return recorder.events, seconds, recorder.largest, False


def _equations(graph: Graph, xp: Any, natives: list[Any]) -> _Recorder:
    """Run a graph equation by equation; values are dropped after their last use."""
    recorder = _Recorder()
    said = lambda primitive, params: " of ".join(filter(None, (primitive.name, params.get("kernel"))))
    timed = lambda p, args, params: recorder.timed(xp, said(p, params), getattr(xp, p.name))(*args, **params)
    with xp.scope():
        graph.run(timed, natives, lambda c: xp.scalar(c.value, c.dtype))
    return recorder


def recorded(f: Callable[..., Any], args: tuple, kwargs: dict[str, Any]) -> Recording:
    """Run `f(*args, **kwargs)` once, with a clock at every operation."""
    if not isinstance(f, Jitted):
        return _eager(f, args, kwargs)
    program = Program(f, args, kwargs, state.grad)
    natives = program.natives(args, kwargs)
    recorder = _equations(program.graph, program.xp, natives)
    run = program.xp.compile(program.graph)
    program.xp.wait(run(*natives))  # what is compiled at the first call
    start = time.perf_counter()
    program.xp.wait(run(*natives))
    return recorder.events, time.perf_counter() - start, recorder.largest, True
