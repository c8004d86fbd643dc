"""A value at one place of each row: sums that add nothing anywhere else are written there only.

The gradient of a look-up in a row (cross-entropy, max, take_along) is `where(i == iota, g, 0) - y`: over a row of thousands that is a comparison of
integers, a choice and a subtraction, each of them a pass over memory, to change one element. For backends that run equation by equation.

Promises: the same values, nan and infinities included (a zero at the place itself may have the other sign); a rewrite never makes more passes.
"""

from __future__ import annotations

import math
from collections import Counter

from minidl.graph import Atom, Equation, Graph, Literal, Var
from minidl.lowering import Recorder
from minidl.passes.basic import dead_code
from minidl.primitives.core import table
from minidl.shapes import broadcast

#: Elements of the result, and of a row, from which on it pays.
LEAST, ROW = 1 << 14, 32


def rewrite(graph: Graph) -> Graph:
    """The graph with `put_along` in place of such sums."""
    if not any(e.primitive.name == "iota" for e in graph.equations):
        return graph
    made = {v: e for e in graph.equations for v in e.outputs}
    reads = Counter(a for e in graph.equations for a in e.inputs)
    reads.update(graph.outputs)
    equations: list[Equation] = []
    for e in graph.equations:
        found = _found(e, made, reads)
        if found is None:
            equations.append(e)
            continue
        rest, sign, (g, i, axis) = found
        row = tuple(1 if a == axis else n for a, n in enumerate(e.outputs[0].shape))
        xp = Recorder(e.where)
        at, u = (x if isinstance(x, Var) and x.shape == row else xp.broadcast_to(x, shape=row) for x in (i, g))
        u = xp.neg(u) if sign < 0 else u
        equations += [*xp.recorded, *rest]
        base = rest[-1].outputs[0] if rest else e.inputs[0]
        equations.append(Equation(table["put_along"], (base, at, u), {"axis": axis, "mode": "add"}, e.outputs, e.where))
    return dead_code(Graph(graph.inputs, equations, graph.outputs, graph.name))


def _found(e: Equation, made: dict[Var, Equation], reads: Counter[Atom]) -> tuple[list[Equation], int, tuple[Atom, Var, int]] | None:
    """For a sum of a hot choice and y: the equation of what it is elsewhere (none: y itself), the sign of the choice, and (g, i, axis) of it."""
    name = e.primitive.name
    if name not in ("add", "sub") or not e.outputs[0].dtype.is_float or math.prod(e.outputs[0].shape) < LEAST:
        return None
    (out,) = e.outputs
    for k, w in enumerate(e.inputs):
        y = e.inputs[1 - k]
        hot = _hot(made.get(w), out, made) if isinstance(w, Var) and reads[w] == 1 and y.shape == out.shape else None  # type: ignore[arg-type]
        if hot is None:
            continue
        if name == "sub" and k == 1:
            return [], -1, hot
        zero = Literal(0.0, out.dtype)
        return [Equation(e.primitive, (zero, y), {}, (Var(out.shape, out.dtype),), e.where)], 1, hot
    return None


def _hot(choice: Equation | None, out: Var, made: dict[Var, Equation]) -> tuple[Atom, Var, int] | None:
    """(g, i, axis) for where(i == iota along the axis, g, 0)."""
    if choice is None or choice.primitive.name != "where" or repr(getattr(choice.inputs[2], "value", None)) != "0.0":
        return None
    test, g = made.get(choice.inputs[0]), choice.inputs[1]  # type: ignore[arg-type]
    if test is None or test.primitive.name != "eq":
        return None
    for i, numbers in (test.inputs, test.inputs[::-1]):
        counted = made.get(numbers)  # type: ignore[arg-type]
        if counted is not None and counted.primitive.name == "reshape":
            counted = made.get(counted.inputs[0])  # type: ignore[arg-type]
        long = [a - len(numbers.shape) + len(out.shape) for a, n in enumerate(numbers.shape) if n != 1]
        if counted is None or counted.primitive.name != "iota" or len(long) != 1 or not isinstance(i, Var):
            continue
        (axis,) = long
        n = out.shape[axis]
        row = tuple(1 if a == axis else s for a, s in enumerate(out.shape))
        if n >= ROW and counted.params["size"] == n and i.dtype.name == "int64" and all(_fits(x, row) for x in (i, g)):
            return g, i, axis
    return None


def _fits(x: Atom, row: tuple[int, ...]) -> bool:
    return len(x.shape) <= len(row) and broadcast(x.shape, row) == row
