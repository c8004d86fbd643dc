"""What every pass stands on: the checker of a graph, dead code, and the estimate of memory."""

from __future__ import annotations

from minidl.graph import Graph, Var, describe, last_uses, subgraphs


def check(graph: Graph) -> None:
    """Raise AssertionError where an equation reads what is not defined yet, or states a shape or dtype that its primitive's rule contradicts."""
    known: set[Var] = set(graph.inputs)
    for i, e in enumerate(graph.equations):
        for a in e.inputs:
            if isinstance(a, Var) and a not in known:
                raise AssertionError(f"equation {i} ({e.primitive.name}) reads a variable before its definition")
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
    """Without the equations that no output needs."""
    needed = {v for v in graph.outputs if isinstance(v, Var)}
    keep = []
    for e in reversed(graph.equations):
        if any(v in needed for v in e.outputs):
            keep.append(e)
            needed.update(a for a in e.inputs if isinstance(a, Var))
    return Graph(graph.inputs, keep[::-1], graph.outputs, graph.name)


def peak_memory(graph: Graph) -> int:
    """Estimated peak of live bytes: inputs live throughout, other values from their equation to their last use."""
    last = last_uses(graph)
    inputs = set(graph.inputs)
    live = peak = sum(v.nbytes for v in graph.inputs)
    for i, e in enumerate(graph.equations):
        live += sum(v.nbytes for v in e.outputs)
        inner = max((peak_memory(g) for g in subgraphs(e.params)), default=0)
        peak = max(peak, live + inner)
        live -= sum(v.nbytes for v in last.get(i, ()) if v not in inputs)
    return peak
