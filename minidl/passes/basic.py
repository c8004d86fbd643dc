"""What every pass stands on: dead code, and calls in line."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from minidl.graph import Equation, Graph, Var


def dead_code(graph: Graph) -> Graph:
    """Without the equations that no output needs.

    >>> x = md.extend.Var((), md.float32)
    >>> unread = md.extend.Equation(md.extend.table["sin"], (x,), {}, (md.extend.Var((), md.float32),))
    >>> len(md.extend.dead_code(md.Graph([x], [unread], [x])).equations)
    0
    """
    needed = {v for v in graph.outputs if isinstance(v, Var)}
    keep = []
    for e in reversed(graph.equations):
        if any(v in needed for v in e.outputs):
            keep.append(e)
            needed.update(a for a in e.inputs if isinstance(a, Var))
    return Graph(graph.inputs, keep[::-1], graph.outputs, graph.name)


def inlined(graph: Graph, gone: tuple[str, ...] = ("stop", "instead")) -> Graph:
    """The graph as it is run: with the bodies of functions that have rules of their own in the places of their calls, and without what only stops
    derivatives, in loops and branches too."""
    key = "inlined", gone
    if key in graph.cache:
        return graph.cache[key]
    if all(e.primitive.name not in ("custom", *gone) for e in graph.walk()):
        graph.cache[key] = graph
        return graph
    equations: list[Equation] = []

    def inside(value: Any) -> Any:
        return inlined(value, gone) if isinstance(value, Graph) else tuple(map(inside, value)) if isinstance(value, tuple) else value

    def take(found: Iterable[Equation], new: dict[Any, Any], rename: bool) -> None:
        for e in found:
            inputs = tuple(new.get(a, a) if isinstance(a, Var) else a for a in e.inputs)
            if e.primitive.name in gone:
                new[e.outputs[0]] = inputs[-1]
                continue
            if e.primitive.name == "custom":
                body = e.params["body"]
                within = dict(zip(body.inputs, inputs, strict=False))
                take(body.equations, within, True)
                new.update((v, within[a] if isinstance(a, Var) else a) for v, a in zip(e.outputs, body.outputs, strict=True))
                continue
            outputs = tuple(Var(v.shape, v.dtype) for v in e.outputs) if rename else e.outputs
            new.update(zip(e.outputs, outputs, strict=True))
            equations.append(Equation(e.primitive, inputs, {k: inside(v) for k, v in e.params.items()}, outputs, e.where))

    new: dict[Any, Any] = {v: v for v in graph.inputs}
    take(graph.equations, new, False)
    outputs = [new[a] if isinstance(a, Var) else a for a in graph.outputs]
    graph.cache[key] = Graph(graph.inputs, equations, outputs, graph.name)
    return graph.cache[key]
