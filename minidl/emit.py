"""One emitter for every backend: a Graph becomes Python source, and a hook decides how each equation is spelled.

Promises: the text that `print(graph)` shows is what runs (annotations aside); sources are registered with linecache, so tracebacks and
debuggers show them; each variable is dropped after its last use, so a program holds no more memory than it must.
"""

from __future__ import annotations

import itertools
import linecache
import types
import weakref
import zlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from minidl.graph import Atom, Equation, Graph, Literal, Var, last_uses
from minidl.shapes import describe

_serial = itertools.count()
#: spell(equation, input names, output names, globals) -> one line of Python. It may add what the line needs to globals.
Spell = Callable[[Equation, list[str], list[str], dict[str, Any]], str]


def static(value: Any, env: dict[str, Any]) -> str:
    """A param as source text; what has no literal text is bound in env under a fresh name."""
    if value is None or type(value) in (bool, int, str):
        return repr(value)
    if type(value) is float:
        return repr(value) if value == value and abs(value) != float("inf") else f'float("{value}")'
    if type(value) is tuple:
        return "(" + "".join(static(v, env) + ", " for v in value).rstrip(" " if len(value) == 1 else ", ") + ")"
    name = getattr(value, "name", type(value).__name__)
    if env.get(name, value) is not value or isinstance(value, Graph):  # a nested graph may be called what the program is called
        name = f"{name}_{len(env)}"
    env[name] = value
    return name


def spell(equation: Equation, inputs: list[str], outputs: list[str], env: dict[str, Any]) -> str:
    """`c = mul(a, b)`: how an equation reads unless a backend says otherwise."""
    params = [f"{k}={static(v, env)}" for k, v in equation.params.items()]
    left = ", ".join(outputs) + ("," if equation.primitive.multiple and len(outputs) == 1 else "")
    return f"{left} = {equation.primitive.name}({', '.join(inputs + params)})"


def literal_text(atom: Literal, env: dict[str, Any]) -> str:
    """A scalar constant, as plain Python."""
    return static(atom.value, env) if not isinstance(atom.value, complex) else repr(atom.value)


def emit(
    graph: Graph,
    spell: Spell = spell,
    literal: Callable[[Literal, dict[str, Any]], str] = literal_text,
    annotate: bool = False,
    release: bool = False,
) -> tuple[str, dict[str, Any]]:
    """The program's source and the globals that it needs (besides the namespace of primitives).

    annotate: add the type of each variable, for readers. release: `del` each variable after its last use, for running.
    """
    names = graph.names()
    env: dict[str, Any] = {}

    def text(atom: Atom) -> str:
        return names[atom] if isinstance(atom, Var) else literal(atom, env)

    head = ", ".join(f"{names[v]}: '{describe(v)}'" if annotate else names[v] for v in graph.inputs)
    lines = [f"def {graph.name}({head}):"]
    last = last_uses(graph) if release else {}
    for i, equation in enumerate(graph.equations):
        line = spell(equation, [text(a) for a in equation.inputs], [names[v] for v in equation.outputs], env)
        note = "  # " + " ".join(describe(v) for v in equation.outputs) if annotate else ""
        lines += ["    " + part for part in line.split("\n")]
        lines[-1] += note
        if dead := last.get(i):
            lines.append("    del " + ", ".join(names[v] for v in dead))
    lines.append("    return (" + "".join(text(a) + ", " for a in graph.outputs).rstrip(" ") + ")")
    return "\n".join(lines) + "\n", env


class _Packed(Sequence[str]):
    """The lines of a text that is run often and read seldom."""

    def __init__(self, text: str):
        self.text = zlib.compress(text.encode(), 1)

    def __getitem__(self, i: Any) -> Any:
        return zlib.decompress(self.text).decode().splitlines(True)[i]

    def __iter__(self) -> Iterator[str]:
        return iter(self[:])  # unpacked once, not for each line

    def __len__(self) -> int:
        return len(self[:])


def load(source: str, env: dict[str, Any], name: str = "program") -> Any:
    """Run a source text and return the function `name` that it defines; tracebacks and inspect.getsource show its lines. What env and Python call by
    that name they still do: a user's function may be called `empty` or `range`."""
    filename = f"<minidl {name} {next(_serial)}>"
    linecache.cache[filename] = (len(source), None, _Packed(source), filename)  # type: ignore[assignment]
    env.setdefault("__name__", "minidl.generated")  # whose functions it makes
    exec(compile(source, filename, "exec"), env, made := dict[str, Any]())
    weakref.finalize(made[name].__code__, linecache.cache.pop, filename, None).atexit = False
    return made[name]


def on_first_call(make: Callable[[], Any], name: str) -> Any:
    """A function whose code is that of `make()`, made when it is first called: a hundred generated operations cost nothing at import, and
    nothing afterwards, since the function object stays and only its code changes."""

    def first(*args: Any, **params: Any) -> Any:
        made = make()
        env.update(made.__globals__)
        function.__code__ = made.__code__
        return function(*args, **params)

    env: dict[str, Any] = {"_first": first, "__name__": "minidl.generated"}
    function = types.FunctionType(_stub.__code__, env, name)
    return function


def _stub(*args: Any, **params: Any) -> Any:
    return _first(*args, **params)  # type: ignore[name-defined]  # noqa: F821
