"""How a jitted call runs, in words: md.explain."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import minidl as md


class Explanation:
    """How a jitted call runs. `str` of it is the table, `rows` what was measured where backend="auto" chose, `source` the program."""

    def __init__(self, program: Any):
        graph, engine = program.graph, program.engine
        self._graph, self._engine, self._asked = graph, engine, engine.asks(program)[:2]  # not the program, which keeps state and results
        kinds = [i.kind for i in program.inputs]
        self.backend, self.mode, self.equations, self.guards = engine.xp.name, engine.mode, len(graph.equations), len(program.terms)
        self.rows = program.report.rows if program.report else []
        lines = [f"{graph.name}: {self.equations} equations, {self.guards} guards, runs on {engine!r} ({engine.xp.device})"]
        lines += [f"inputs: {', '.join(f'{kinds.count(k)} {k}' for k in dict.fromkeys(kinds)) or 'none'}; of the {program.xp.name} backend"]
        lines += [f"outputs: {program.n_out}, of which {len(program.writes)} overwrite a tensor", f"linked in {program.seconds * 1e3:.1f} ms"]
        self.text = "\n".join([*lines, *([str(program.report)] if program.report else [])])

    @property
    def source(self) -> str:
        """The program as Python: on numpy the text that runs, with its blocks and the memory that it writes over, below the numbers that it names;
        on an engine that compiles to machine code, or for torch where it writes over state, the graph."""
        run: Any = self._engine.compile(*self._asked) if self._engine.xp.name in ("numpy", "torch") and self._asked[0].outputs else None
        code: Any = inspect.unwrap(run) if run else None
        if getattr(code, "__module__", None) != "minidl.generated":
            return str(self._graph)
        found = {n: code.__globals__.get(n) for n in code.__code__.co_names}
        numbers = [f"{n} = {v.item()}  # {v.dtype}" for n, v in found.items() if hasattr(v, "item") and getattr(v, "ndim", 1) == 0]
        return "\n".join([*numbers, inspect.getsource(code)])

    def __str__(self) -> str:
        return self.text

    def __repr__(self) -> str:
        return f"<explanation: {self.text.splitlines()[0]}>"


def explain(f: Callable[..., Any], *args: Any, **kwargs: Any) -> Explanation:
    """Print how a jitted function runs for these arguments: backend and mode, equations, guards; for backend="auto" also what was tried, how long
    that took to compile and to run, how well it agrees with the inputs' backend, what won and why. Returns the same as an object, whose `source` is
    the program as Python: on numpy the text that runs, block by block.

    f is traced and compiled if it has to be, but not run: no state changes. A function that is not jitted is jitted first.

    >>> def wave(x):
    ...     return md.sin(x) * 2.0
    >>> print(repr(md.jit(wave).explain(md.ones((3,), backend="numpy"))))
    <explanation: wave: 2 equations, ... guards, runs on numpy (cpu)>
    >>> print(md.jit(wave).explain(md.ones((3,), backend="numpy")).source)
    k1 = 2.0  # float32
    def wave(a):
        b = sin(a)
        del a
        c = mul(b, k1, out=b)
        del b
        return (c,)
    <BLANKLINE>
    """
    jitted: Any = f if hasattr(type(f), "explain") else md.jit(f)
    found: Explanation = jitted.explain(*args, **kwargs)
    print(found)
    return found
