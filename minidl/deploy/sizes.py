"""A graph for any number of examples: what is larger in the graphs that were traced for one and two examples more is an expression of n.

Promises: a size is linear in the number of examples, or it is a ValueError, also where a program computes with it; so are graphs that differ in more
than sizes.
"""

from __future__ import annotations

from collections.abc import Container, Sequence
from typing import Any

from minidl import Graph
from minidl.extend import Equation, Literal, Var


class Size(int):
    """A size that grows with the number of examples: `per` * n + `rest`, which is how it prints; as an int, what it is in the traced graph."""

    per: int
    rest: int

    def __repr__(self) -> str:
        return ("n" if self.per == 1 else f"{self.per} * n") + (f" + {self.rest}" if self.rest > 0 else f" - {-self.rest}" if self.rest else "")


def _grown(values: Sequence[Any], n: int, keep: Container[str]) -> Any:
    """What is values[i] for n + i examples."""
    a, b, c = values
    if isinstance(a, Graph):
        return sized(a, (b, c), n, keep)
    if isinstance(a, tuple):
        if not len(a) == len(b) == len(c):
            raise ValueError("one has more parts than the other")
        return tuple(_grown(parts, n, keep) for parts in zip(a, b, c, strict=True))
    if all(type(v) in (int, float) and v % 1 == 0 for v in values) and a != b:
        if c - b != b - a:
            raise ValueError(f"{a}, {b} and {c} for {n}, {n + 1} and {n + 2} examples, which is not linear in their number")
        out = Size(a)
        out.per = int(b - a)
        out.rest = int(a) - out.per * n
        return out
    for i, v in enumerate((b, c), 1):
        if a is not v and a != v and not (a != a and v != v):
            raise ValueError(f"{a!r} for {n} examples, {v!r} for {n + i}")
    return a


def _number(e: Equation, atoms: tuple[Any, ...], n: int, keep: Container[str]) -> Literal:
    """A number in an equation, which may be a size, as where a mean divides."""
    for i, a in enumerate(atoms):
        if a.key() != atoms[0].key():
            try:
                return Literal(_grown([a.value for a in atoms], n, keep), a.dtype)
            except ValueError:
                raise ValueError(f"{e.primitive.name} by {atoms[0]!r} for {n} examples, by {a!r} for {n + i}") from None
    return atoms[0]


def sized(graph: Graph, larger: Sequence[Graph], n: int, keep: Container[str]) -> Graph:
    """The graph for n examples with every size that differs in `larger`, traced for n + 1 and n + 2, as a Size, in the primitives of `keep` and what
    has no decomposition. Raises ValueError where they differ in more than sizes."""
    graph, *more = graphs = [g.expand(keep) for g in (graph, *larger)]
    if any([e.primitive for e in graph.equations] != [e.primitive for e in g.equations] for g in more):
        raise ValueError("other operations")
    equations = []
    own = {v[0]: Var(_grown([w.shape for w in v], n, keep), v[0].dtype) for v in zip(*(g.variables() for g in graphs), strict=True)}
    for e, *others in zip(*(g.equations for g in graphs), strict=True):
        inputs = [own[a[0]] if isinstance(a[0], Var) else _number(e, a, n, keep) for a in zip(e.inputs, *(f.inputs for f in others), strict=True)]
        params = {k: _grown([f.params[k] for f in (e, *others)], n, keep) for k in e.params}
        equations.append(Equation(e.primitive, tuple(inputs), params, tuple(own[v] for v in e.outputs), e.where))
    outputs = [own[a] if isinstance(a, Var) else a for a in graph.outputs]
    return Graph([own[v] for v in graph.inputs], equations, outputs, graph.name)
