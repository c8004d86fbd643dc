"""The static graph: variables, equations and the program they make; printed, it is typed Python that runs.

Promises: shapes and dtypes are static; equations are in execution order and each variable is assigned once; a Graph is immutable after
tracing and passes return a new one.
"""

from __future__ import annotations

import importlib
import numbers
from collections.abc import Callable, Container, Iterator, Sequence
from typing import Any, NamedTuple

from minidl.context import Symbolic
from minidl.dtypes import DType
from minidl.primitives.core import table
from minidl.shapes import describe


def told(value: Any) -> Any:
    """What tells a param from any other: 0.0 is not -0.0, 1 is not True, nan is itself, also inside tuples.

    >>> md.extend.told(0.0) == md.extend.told(-0.0), md.extend.told(float("nan")) == md.extend.told(float("nan"))
    (False, True)
    """
    if isinstance(value, tuple):
        return *map(type, value), *map(told, value)
    return repr(value) if isinstance(value, numbers.Number) and value.__class__ is not int else value


class Var(Symbolic):
    """A symbolic value: a shape and a dtype, told apart by identity.

    >>> md.extend.Var((3,), md.float32)
    f32[3]
    """

    __slots__ = ("__weakref__", "dtype", "shape")

    def __init__(self, shape: tuple[int, ...], dtype: DType):
        self.shape = shape
        self.dtype = dtype

    @property
    def nbytes(self) -> int:
        """Bytes that the value occupies."""
        n = self.dtype.itemsize
        for s in self.shape:
            n *= s
        return n

    def __repr__(self) -> str:
        return describe(self)


class Literal(Symbolic):
    """A scalar constant of the program, with its dtype.

    >>> md.extend.Literal(2.0, md.float32)
    2.0:f32
    """

    __slots__ = ("dtype", "value")
    shape: tuple[int, ...] = ()
    ndim = 0
    nbytes = 0

    def __init__(self, value: bool | int | float | complex, dtype: DType):
        self.value = value
        self.dtype = dtype

    def key(self) -> tuple:
        """Equal for literals that are the same constant (zeros of both signs apart)."""
        return ("literal", repr(self.value), self.dtype.name)

    def __repr__(self) -> str:
        return f"{self.value!r}:{self.dtype.short}"


Atom = Var | Literal


class Emitted(NamedTuple):
    """What stands for a primitive in programs for one backend only."""

    name: str
    multiple: bool = False


class Equation:
    """One application of a primitive: outputs = primitive(*inputs, **params).

    >>> md.trace(md.sin)(md.ones(3)).equations[0]
    f32[3] = sin(f32[3])
    """

    __slots__ = ("inputs", "outputs", "params", "primitive", "where")

    def __init__(self, primitive: Any, inputs: tuple[Atom, ...], params: dict[str, Any], outputs: tuple[Var, ...], where: str | None = None):
        self.primitive = primitive
        self.inputs = inputs
        self.params = params
        self.outputs = outputs
        self.where = where  # the user's line, for error messages

    def __repr__(self) -> str:
        return f"{', '.join(map(repr, self.outputs))} = {self.primitive.name}({', '.join(map(repr, self.inputs))})"


class Graph:
    """A traced program: `inputs` → `equations` → `outputs`.

    `print(graph)` shows typed single-assignment Python, and `emit` gives the text that a backend runs. A call raises ValueError for arguments of
    other shapes or dtypes than the inputs have, and for another number of them.

    >>> print(md.trace(lambda x: md.sin(x) * 2.0)(md.ones(3)))
    def program(a: 'f32[3]'):
        b = sin(a)  # f32[3]
        c = mul(b, 2.0)  # f32[3]
        return (c,)
    """

    __slots__ = ("__weakref__", "cache", "captured", "equations", "inputs", "name", "outputs", "written")

    def __init__(self, inputs: Sequence[Var], equations: Sequence[Equation], outputs: Sequence[Atom], name: str = "program"):
        self.inputs = tuple(inputs)
        self.equations = tuple(equations)
        self.outputs = tuple(outputs)
        self.name = name + "_" if name in table else name  # the program of md.sum calls sum
        self.captured: tuple[Any, ...] = ()  # the values of the last inputs, where a trace read them from outside: Tensors, and numbers of a schedule
        self.written: tuple[Any, ...] = ()  # the Tensors from outside that a trace saw changed, which the graph does not change
        self.cache: dict[Any, Any] = {}  # what backends and transforms derive from this graph once

    def __str__(self) -> str:
        from minidl.emit import emit

        return emit(self, annotate=True)[0]

    def __repr__(self) -> str:
        args = ", ".join(describe(v) for v in self.inputs)
        outs = ", ".join(describe(v) for v in self.outputs)
        return f"Graph({args} -> {outs}; {len(self.equations)} equations)"

    def names(self) -> dict[Var, str]:
        """A short name for each variable, in order of definition: a, b, …, z, aa, ab, …"""
        return {v: letters(i) for i, v in enumerate(self.variables())}

    def variables(self) -> Iterator[Var]:
        """Every variable: the inputs, then the outputs of each equation."""
        yield from self.inputs
        for equation in self.equations:
            yield from equation.outputs

    def walk(self) -> Iterator[Equation]:
        """Every equation, those of nested graphs (loop bodies, branches) included."""
        for equation in self.equations:
            yield equation
            for inner in subgraphs(equation.params):
                yield from inner.walk()

    def run(self, call: Callable[[Any, list[Any], dict[str, Any]], Any], args: Sequence[Any], literal: Callable[[Literal], Any]) -> list[Any]:
        """Interpret the program: `call(primitive, inputs, params)` gives one result, or a sequence for a primitive with several."""
        env: dict[Var, Any] = dict(zip(self.inputs, args, strict=True))
        last = last_uses(self)

        def read(atom: Atom) -> Any:
            return literal(atom) if isinstance(atom, Literal) else env[atom]

        for i, equation in enumerate(self.equations):
            out = call(equation.primitive, [read(a) for a in equation.inputs], equation.params)
            env.update(zip(equation.outputs, out if equation.primitive.multiple else (out,), strict=True))
            for v in last.get(i, ()):
                del env[v]
        return [read(a) for a in self.outputs]

    def check(self) -> Graph:
        """Re-derive every shape and dtype and the order of definitions; returns the graph itself.

        Raises AssertionError that names the first equation which is wrong.
        """
        importlib.import_module("minidl.testing.wellformed").check(self)  # by name: these rooms stand above the graph, which works without them
        return self

    def to_dot(self) -> str:
        """The graph in the dot language of Graphviz."""
        return importlib.import_module("minidl.draw").to_dot(self)

    def to_svg(self) -> str:
        """The graph as an SVG picture, drawn without any other program."""
        return importlib.import_module("minidl.draw").to_svg(self)

    _repr_svg_ = to_svg

    def to_python(self, name: str | None = None, inputs: Sequence[str] = (), larger: Sequence[Graph] = ()) -> str:
        """The text of a Python module that needs NumPy alone: its function `name` (default: the graph's name) takes the inputs as arrays and returns
        the outputs as a tuple.

        inputs: names for the first inputs. larger: the graphs of the same function for one and for two examples more along the first axis of the
        first input; the text then holds for any number of examples. Raises TypeError for a graph that computes in bfloat16, ValueError where
        `larger` differs in more than sizes, or a size is not linear in the number of examples.

        >>> import minidl as md
        >>> print(md.trace(lambda x: md.exp(x) + 1.0)(md.ones((3,))).to_python("f"))
        from __future__ import annotations
        <BLANKLINE>
        import numpy as np
        <BLANKLINE>
        <BLANKLINE>
        @np.errstate(all="ignore")
        def f(a):
            b = np.exp(a)
            c = b + np.float32(1.0)
            return (c,)
        <BLANKLINE>
        """
        return importlib.import_module("minidl.deploy.on_numpy").python_source(self, name, inputs, larger)

    def expand(self, keep: Container[str] = (), larger: Sequence[Graph] = ()) -> Graph:
        """The graph with decompositions in place of those primitives that have one and are not in `keep`; for whoever writes it in another language.

        larger: the graphs of the same function for one and for two examples more along the first axis of the first input. Sizes that differ are
        then ints which print as an expression of n, `per` * n + `rest`, in nested graphs too. Raises ValueError as to_python does.

        >>> import minidl as md
        >>> graph, *larger = (md.trace(lambda x: x.reshape(-1))(md.ones((n, 3))) for n in (2, 3, 4))
        >>> graph.expand(larger=larger).outputs[0].shape
        (3 * n,)
        """
        from minidl.lowering import expand
        from minidl.passes import inlined

        sized = importlib.import_module("minidl.deploy.sizes").sized if larger else None
        return sized(self, larger, self.inputs[0].shape[0], keep) if sized else expand(inlined(self), keep)

    def __call__(self, *args: Any) -> tuple[Any, ...]:
        """The program on Tensors, in the current context: eagerly, inside jit, differentiated. One Tensor per input; returns a tuple.

        It computes in the dtypes that it shows, also under md.autocast, which had its say when the graph was traced.

        >>> import minidl as md
        >>> graph = md.trace(lambda x: md.sin(x) * 2.0)(md.ones((3,)))
        >>> graph(md.zeros((3,)))[0].tolist()
        [0.0, 0.0, 0.0]
        """
        from minidl.bodies import run_graph

        if [(a.shape, a.dtype) for a in args] != [(v.shape, v.dtype) for v in self.inputs]:
            came, want = (", ".join(describe(a) for a in xs) or "nothing" for xs in (args, self.inputs))
            raise ValueError(f"{self.name}: the graph was traced for {want}, and {came} came; trace the function again for these arguments")
        return tuple(run_graph(self, args))

    def peak_memory(self) -> int:
        """Estimated peak bytes of live values when equations run in order and each value dies at its last use."""
        return importlib.import_module("minidl.lifetimes").peak_memory(self)


def subgraphs(params: dict[str, Any]) -> Iterator[Graph]:
    """The graphs among an equation's params.

    >>> step = md.trace(lambda x: md.fori_loop(0, 3, lambda i, v: v * 2.0, x))(md.tensor(1.0))
    >>> sum(len(list(md.extend.subgraphs(e.params))) for e in step.equations)
    1
    """
    for value in params.values():
        if isinstance(value, Graph):
            yield value
        elif isinstance(value, tuple):
            yield from (v for v in value if isinstance(v, Graph))


def last_uses(graph: Graph) -> dict[int, list[Var]]:
    """For each equation number, the variables that nobody reads after it (program outputs never die)."""
    keep = {v for v in graph.outputs if isinstance(v, Var)}
    last: dict[Var, int] = {}
    for i, equation in enumerate(graph.equations):
        for v in equation.outputs:
            last[v] = i
        for a in equation.inputs:
            if isinstance(a, Var):
                last[a] = i
    out: dict[int, list[Var]] = {}
    for v, i in last.items():
        if v not in keep:
            out.setdefault(i, []).append(v)
    return out


def letters(i: int) -> str:
    """0 → a, 25 → z, 26 → aa; never a Python keyword or a name that an emitted program uses."""
    name = ""
    i += 1
    while i:
        i, r = divmod(i - 1, 26)
        name = chr(97 + r) + name
    return name + "_" if name in _TAKEN or name in table else name


_TAKEN = frozenset("np as if in is or and def del for not try int len map str set elif else from with None pass True".split())
