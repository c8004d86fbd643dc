"""Lowering: what a backend does to a graph before it looks for loops in it. Decompositions in place of what it has no kernel for, products the other
way round in place of their transposes, and multiplications in place of products that add nothing up.

Promises: graph → graph; an equation computes what it did, but a product that is turned may round differently, which is why these are no passes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from typing import Any

from minidl.context import interpreting
from minidl.graph import Atom, Equation, Graph, Literal, Var
from minidl.passes.rewriting import common
from minidl.primitives.core import Interpreter, Primitive, decomposed

#: What two decompositions compute alike is kept from one to the other up to so many bytes and over so many equations: it costs memory, too.
SHARED, NEAR = 1 << 16, 48


class Recorder(Interpreter):
    """A namespace that records equations: what a decomposition runs on."""

    def __init__(self, line: str | None):
        super().__init__()
        self.recorded: list[Equation] = []
        self.line = line

    def call(self, primitive: Primitive, args: Sequence[Any], params: dict[str, Any]) -> Any:
        """Record an equation; numbers become literals."""
        joins = primitive.joins or range(len(args))
        common = next((a.dtype for i, a in enumerate(args) if i in joins and isinstance(a, (Var, Literal))), None)
        atoms = tuple(a if isinstance(a, (Var, Literal)) else _literal(a, common) for a in args)
        found = primitive.infer(*atoms, **params)
        outs = tuple(Var(tuple(s), d) for s, d in (found if primitive.multiple else (found,)))
        self.recorded.append(Equation(primitive, atoms, params, outs, self.line))
        return outs if primitive.multiple else outs[0]


def swapped(graph: Graph, least: int = 0) -> Graph:
    """The graph with products the other way round, y.T @ x.T, in place of their transposes (x @ y).T of at least so many bytes, through functions of
    their elements, where nobody else reads them: nothing is copied, and what follows sees the product. It may round differently, so it is no pass.

    >>> import minidl as md
    >>> graph = md.trace(lambda x, y: (x @ y * 2.0).T)(md.ones((4, 2)), md.ones((2, 3)))
    >>> [e.primitive.name for e in graph.equations], [e.primitive.name for e in swapped(graph).equations]
    (['dot_general', 'mul', 'permute'], ['dot_general', 'mul'])
    """
    uses = Counter(a for inputs in (*(e.inputs for e in graph.equations), graph.outputs) for a in inputs)
    made = {v: e for e in graph.equations for v in e.outputs}
    new: dict[Atom, Var] = {}

    def below(v: Atom) -> list[Atom] | None:
        """What is turned for v to be: itself, and of what it is a function."""
        e = made.get(v) if isinstance(v, Var) and uses[v] == 1 and len(v.shape) == 2 else None
        if e is None or e.primitive.multiple:
            return None
        if e.primitive.name == "dot_general":
            return [v] if all(len(a.shape) == 1 + len(e.params["contract"][0]) for a in e.inputs) and not e.params["batch"][0] else None
        parts = [below(a) for a in e.inputs if a.shape]
        if not e.primitive.elementwise or not parts or None in parts or any(a.shape not in ((), v.shape) for a in e.inputs):
            return None
        return [v, *(a for part in parts for a in part or ())]

    for e in graph.equations:
        wide = e.primitive.name == "permute" and e.params["axes"] == (1, 0) and e.outputs[0].nbytes >= least
        if wide and (found := below(e.inputs[0])) is not None:
            new.update((v, Var(v.shape[::-1], v.dtype)) for v in found)
            new[e.inputs[0]] = e.outputs[0]
    equations = []
    for e in graph.equations:
        if e.outputs[0] in new:
            inputs, params = tuple(new.get(a, a) for a in e.inputs), e.params
            if e.primitive.name == "dot_general":
                inputs, params = e.inputs[::-1], {k: axes[::-1] for k, axes in params.items()}
            equations.append(Equation(e.primitive, inputs, params, (new[e.outputs[0]],), e.where))
        elif e.primitive.name != "permute" or e.inputs[0] not in new:
            equations.append(e)
    return Graph(graph.inputs, equations, graph.outputs, graph.name) if new else graph


def multiplied(graph: Graph, least: int) -> Graph:
    """The graph with multiplications of broadcast operands in place of products that add nothing up, being over no axis or over axes of size one,
    where the result has at least so many bytes: a library for matrices is slow at them, and they fuse. As in a sum of one, -0.0 becomes 0.0.

    >>> from minidl.dtypes import float32
    >>> x, y, z = Var((8, 1, 4), float32), Var((8, 1, 3), float32), Var((8, 4, 3), float32)
    >>> product = Equation(md.extend.table["dot_general"], (x, y), {"contract": ((1,), (1,)), "batch": ((0,), (0,))}, (z,))
    >>> from minidl.fusion import regions
    >>> regions(multiplied(Graph([x, y], [product], [z]), 0))[-1]
    <region [8, 4, 3]x[]: mul add>
    """
    equations: list[Equation] = []
    for e in graph.equations:
        equations += [e] if e.primitive.name != "dot_general" or e.outputs[0].nbytes < least else _multiplied(e)
    return graph if len(equations) == len(graph.equations) else Graph(graph.inputs, equations, graph.outputs, graph.name)


def _multiplied(e: Equation) -> list[Equation]:
    (x, y), (out,) = e.inputs, e.outputs
    (cx, cy), (bx, by) = e.params["contract"], e.params["batch"]
    if any(x.shape[a] != 1 for a in cx) or out.dtype.is_complex or out.dtype.kind == "bool":
        return [e]
    xp, sides = Recorder(e.where), []
    free = [[a for a in range(len(v.shape)) if a not in c and a not in b] for v, c, b in ((x, cx, bx), (y, cy, by))]
    for v, c, b, own, gap in ((x, cx, bx, free[0], 0), (y, cy, by, free[1], len(free[0]))):
        order = [*b, *own]
        sizes = [v.shape[a] for a in order]
        if order != sorted(order):
            v = xp.permute(v, axes=(*order, *c))
        sizes[len(b) : len(b)] = [1] * gap
        sides.append(xp.reshape(v, shape=(*sizes, *[1] * (len(out.shape) - len(sizes)))))
    z = xp.mul(*sides)
    if cx and out.dtype.is_float:
        xp.add(z, 0.0)
    last = xp.recorded.pop()
    return [*xp.recorded, Equation(last.primitive, last.inputs, last.params, e.outputs, e.where)]


def _literal(value: Any, dtype: Any) -> Literal:
    kind = {"bool": bool, "int": int, "uint": int, "complex": complex}.get(dtype.kind, float)
    return Literal(kind(value), dtype)


def expand(graph: Graph, keep: Container[str] = (), choose: Callable[[Equation], bool] = lambda e: True) -> Graph:
    """The graph with decompositions in place of the primitives that have one, so that they can be fused.

    Those named in keep stay whole, and so do equations that `choose` declines (too small to be worth it). What is small and computed alike by two
    (the row sums of a loss and of its gradient) is computed once.

    >>> from minidl.dtypes import float32
    >>> x, y = Var((8, 4), float32), Var((8, 4), float32)
    >>> graph = expand(Graph([x], [Equation(md.extend.table["softmax"], (x,), {"axis": 1}, (y,))], [y]))
    >>> from minidl.fusion import regions
    >>> regions(graph)
    [<region [8]x[4]: max eq where eq sub where exp sum eq where div>]
    """
    if not any(_expandable(e, keep, choose) for e in graph.equations):
        return graph
    new: dict[Var, Atom] = {}
    fulls: dict[Atom, Any] = {}  # constant arrays
    inside = [0]  # how deep in decompositions
    seen: dict[Any, Equation] = {}

    def pieces(equations: Iterable[Equation]) -> Iterator[Equation]:
        for e in equations:
            if new:
                e = Equation(e.primitive, tuple(new.get(a, a) if isinstance(a, Var) else a for a in e.inputs), e.params, e.outputs, e.where)
            if not _expandable(e, keep, choose):
                if e.primitive.name == "full":
                    fulls[e.outputs[0]] = e.params["value"]
                if inside[0] and (same := _unchanged(e, fulls)) is not None:
                    new[e.outputs[0]] = same
                elif max((v.nbytes for v in e.outputs), default=0) > SHARED:
                    yield e
                elif (left := common(e, seen, new)) is not None:
                    yield left
                if len(seen) > NEAR:
                    del seen[next(iter(seen))]
                continue
            xp = Recorder(e.where)
            with interpreting(xp):
                out = decomposed(e.primitive, xp, e.inputs, e.params)
            inside[0] += 1
            yield from pieces(xp.recorded)
            inside[0] -= 1
            made = {v for x in xp.recorded for v in x.outputs}
            for v, w in zip(e.outputs, out if e.primitive.multiple else (out,), strict=True):
                new[v] = w if isinstance(w, Literal) or w not in made else new.get(w, w)

    body = list(pieces(graph.equations))
    return Graph(graph.inputs, body, [new.get(a, a) if isinstance(a, Var) else a for a in graph.outputs], graph.name)


#: (function, operand) → the number that leaves the other operand as it is, to the bit.
_NEUTRAL = {("mul", 0): "1.0", ("mul", 1): "1.0", ("add", 0): "-0.0", ("add", 1): "-0.0", ("sub", 1): "0.0"}


def _unchanged(e: Equation, fulls: dict[Atom, Any]) -> Var | None:
    """The operand that an equation gives back: a decomposition was handed a constant (the weight of a normalisation without one)."""
    for k, a in enumerate(e.inputs):
        neutral, x = _NEUTRAL.get((e.primitive.name, k)), e.inputs[k - 1]
        if neutral is not None and isinstance(x, Var) and x.dtype.is_float and a.dtype is x.dtype and x.shape == e.outputs[0].shape:
            value = a.value if isinstance(a, Literal) else fulls.get(a)
            if value is not None and repr(float(value)) == neutral:  # type: ignore[arg-type]
                return x
    return None


def _expandable(e: Equation, keep: Container[str], choose: Callable[[Equation], bool]) -> bool:
    known = e.primitive.decompose is not None and e.primitive.name not in keep and choose(e)
    return known and all(0 not in v.shape for v in (*e.inputs, *e.outputs))
