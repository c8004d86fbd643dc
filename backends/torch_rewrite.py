"""PyTorch: what rewrites of a graph before it is emitted have to know, and where they are. They keep what a program computes, so without them it is
longer, and right.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from minidl.backends.base import beside
from minidl.graph import Equation, Graph, Literal, Var

#: What libraries rewrite, see md.extend.define: functions of a graph, and of the device whose compiled program it is; "" if none's.
REWRITES: list[Callable[[Graph, str], Graph]] = []
#: What libraries say of a program on a CPU: which variables are images whose channels are last in memory.
LAST: list[Callable[[Graph], set[Var]]] = []
#: What libraries know of the modes that are the first choice for another graph: how it reads, or None where it would be the same.
WAYS: dict[str, Callable[[Graph], Graph | None]] = {}
#: The functions of the primitives that live in emitted programs; and which of these write over as many of their first operands as they have results,
#: or over what the functions `into` make of those.
EMITTED: dict[str, Callable[..., Any]] = {}
OVER: set[str] = set()


class Uses:
    """Who makes and who reads each variable."""

    def __init__(self, graph: Graph):
        self.made = {v: e for e in graph.equations for v in e.outputs}
        self.users: dict[Any, list[Equation]] = {}
        for e in graph.equations:
            for a in e.inputs:
                self.users.setdefault(a, []).append(e)
        self.kept = set(graph.outputs)

    def maker(self, a: Any, name: str) -> Equation | None:
        """The equation of that primitive that makes a."""
        e = self.made.get(a)
        return e if e is not None and e.primitive.name == name else None

    def positive(self, e: Equation) -> Any:
        """x, for an equation where(x > 0, g, 0) of the shape of x."""
        if e.primitive.name != "where" or not (isinstance(e.inputs[2], Literal) and repr(e.inputs[2].value) == "0.0"):
            return None
        test = self.maker(e.inputs[0], "gt")
        if test is None or not (isinstance(test.inputs[1], Literal) and test.inputs[1].value == 0):
            return None
        x, g, out = test.inputs[0], e.inputs[1], e.outputs[0]
        return x if isinstance(x, Var) and isinstance(g, Var) and x.shape == out.shape and x.dtype is g.dtype else None


def rewritten(graph: Graph, place: str) -> Graph:
    """All rewrites in their order: those of libraries, and then those of minidl.rewrites."""
    for rewrite in REWRITES:
        graph = rewrite(graph, place)
    for room in ("minidl.rewrites", "minidl.rewrites.updates"):
        graph = found.rewrite(graph, place) if (found := beside(room, "torch")) else graph
    return graph
