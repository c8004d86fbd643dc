"""What every pass stands on: the checker of a graph, dead code, calls in line, lifetimes, and the estimate of memory."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from minidl.graph import Equation, Graph, Var, subgraphs
from minidl.shapes import describe


def check(graph: Graph) -> None:
    """Raise AssertionError where an equation reads what is not defined yet, states a shape or dtype that its primitive's rule contradicts, or mixes
    dtypes that should have been made one."""
    known: set[Var] = set(graph.inputs)
    for i, e in enumerate(graph.equations):
        for a in e.inputs:
            if isinstance(a, Var) and a not in known:
                raise AssertionError(f"equation {i} ({e.primitive.name}) reads a variable before its definition")
        joins, others = e.primitive.joins, e.primitive.others
        mixed = {a.dtype.name for k, a in enumerate(e.inputs) if joins is None or k in joins} if e.primitive.promote != "none" else ()
        if len(mixed) > 1:
            raise AssertionError(f"equation {i} ({e.primitive.name}) mixes the dtypes {', '.join(sorted(mixed))}")
        if joins is not None and others is not None and any(a.dtype is not others for k, a in enumerate(e.inputs) if k not in joins):
            raise AssertionError(f"equation {i} ({e.primitive.name}) wants {others.name} for what decides its result")
        found = e.primitive.infer(*e.inputs, **e.params)
        for v, (shape, dtype) in zip(e.outputs, found if e.primitive.multiple else (found,), strict=True):
            if tuple(shape) != v.shape or dtype is not v.dtype:
                raise AssertionError(f"equation {i} ({e.primitive.name}) states {describe(v)}, its rule says {describe(Var(tuple(shape), dtype))}")
            if v in known:
                raise AssertionError(f"equation {i} ({e.primitive.name}) assigns a variable twice")
            known.add(v)
        for inner in subgraphs(e.params):
            check(inner)
    for a in graph.outputs:
        if isinstance(a, Var) and a not in known:
            raise AssertionError("the graph returns a variable that nothing defines")


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


#: What shows the memory of its operand in another form, on the backends that have views (the compilers of the others fuse it away).
VIEWS = frozenset("barrier reshape permute broadcast_to".split())


def lifetimes(graph: Graph) -> tuple[dict[Var, Var], dict[Var, int]]:
    """For each variable the one whose memory it shows; and for those the number of the last equation that reads it, or a view of it.

    Inputs and outputs of the program live to its end.

    >>> graph = md.trace(lambda x: md.sin(md.exp(x)))(md.ones(2))
    >>> list(md.extend.lifetimes(graph)[1].values())
    [2, 1, 2]
    """
    end = len(graph.equations)
    root = {v: v for v in graph.inputs}
    last = dict.fromkeys(graph.inputs, end)
    for i, e in enumerate(graph.equations):
        for a in e.inputs:
            if isinstance(a, Var) and last[root[a]] < i:
                last[root[a]] = i
        view = root[e.inputs[0]] if e.primitive.name in VIEWS and isinstance(e.inputs[0], Var) else None
        for v in e.outputs:
            root[v] = view or v
            last.setdefault(root[v], i)
    last.update((root[a], end) for a in graph.outputs if isinstance(a, Var))
    return root, last


def memory(graph: Graph) -> list[int]:
    """The estimated bytes alive while each equation runs, inputs not counted: values live from their equation to their last use.

    >>> md.extend.memory(md.trace(lambda x: md.sin(md.exp(x)))(md.ones(2)))
    [8, 16]
    """
    root, last = lifetimes(graph)
    inputs = set(graph.inputs)
    dies: dict[int, int] = {}
    for v, i in last.items():
        if v not in inputs:
            dies[i] = dies.get(i, 0) + v.nbytes
    live, out = 0, []
    for i, e in enumerate(graph.equations):
        live += sum(v.nbytes for v in e.outputs if root[v] is v)
        out.append(live + max((max(memory(g), default=0) for g in subgraphs(e.params)), default=0))
        live -= dies.get(i, 0)
    return out


def peak_memory(graph: Graph) -> int:
    """Estimated peak of live bytes: inputs live throughout, other values from their equation to the last use of them or of a view of them."""
    return sum(v.nbytes for v in graph.inputs) + max(memory(graph), default=0)
