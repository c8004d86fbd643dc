"""How long the values of a graph live, and how much memory those take that live together."""

from __future__ import annotations

from minidl import Graph
from minidl.extend import Var, subgraphs

#: What shows all the memory of its operand in another form, on the backends that have views (the compilers of the others fuse it away).
_WHOLE = frozenset("barrier reshape permute broadcast_to".split())


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
        view = root[e.inputs[0]] if e.primitive.name in _WHOLE and isinstance(e.inputs[0], Var) else None
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
