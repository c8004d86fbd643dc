"""Whether a graph is what it says: md.Graph.check."""

from __future__ import annotations

from minidl import Graph
from minidl.extend import Var, describe, subgraphs


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
