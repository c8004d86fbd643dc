"""Fused regions: the stretches of a graph that one loop over rows computes, for any backend.

A region has a shape, split into leading axes (its rows) and trailing axes (the inside of a row). Each of its values varies along some of these axes
and is constant along the others: FULL along all, ROW along the leading ones (the result of a reduction over a row), INNER along the trailing ones (a
bias), SCALAR along none. Its equations are elementwise ones, broadcasts, reshapes that only add or drop axes of size one, reductions of whole rows,
and, as last equations, reductions over other axes, whose partial results are accumulated (`terminal`).

Promises: graph → list, nothing else is changed; run in order, the list computes what the graph computes; a region is convex (no path leaves it and
comes back), so it runs in one go; linear time up to a bounded search.

The greedy growth along edges with a search for cycles is the usual one of loop fusion (K. Kennedy and K. McKinley, Maximizing loop parallelism
and improving data locality via loop fusion and distribution, LCPC 1993).
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from typing import Any, TypeVar

from minidl.graph import Atom, Equation, Graph, Literal, Var
from minidl.passes.rewriting import common

#: For each axis of a region's shape, whether a value varies along it (true where the size is 1).
Layout = tuple[bool, ...]
REDUCTIONS = frozenset(("sum", "max", "min"))
_CHEAP = frozenset(("full", "iota"))  # without operands: each region makes them for itself
T = TypeVar("T")
_SEARCH = 400  # units that one search for a cycle may visit before it gives up and nothing is joined


class Region:
    """Equations that one loop over rows computes.

    shape, rows: the first `rows` axes of shape are the rows (all of them, where no equation reduces a row). inputs: variables read from outside;
    outputs: those that somebody outside reads. layout: how each variable lies in the shape. terminal: outputs accumulated over the rows, which
    no equation of the region reads.
    """

    __slots__ = ("equations", "inputs", "layout", "outputs", "rows", "shape", "terminal")

    def __init__(
        self,
        equations: Sequence[Equation],
        outputs: Sequence[Var],
        shape: tuple[int, ...],
        rows: int,
        layout: dict[Var, Layout],
        terminal: Container[Var],
    ):
        made = {v for e in equations for v in e.outputs}
        self.equations, self.outputs = tuple(equations), tuple(outputs)
        self.inputs = tuple(dict.fromkeys(a for e in equations for a in e.inputs if isinstance(a, Var) and a not in made))
        self.shape, self.rows, self.layout = shape, rows, layout
        self.terminal = frozenset(v for v in outputs if v in terminal)

    def kind(self, atom: Atom) -> str:
        """FULL, ROW, INNER, SCALAR, or MIXED for a broadcast along some of the leading or some of the trailing axes."""
        if isinstance(atom, Literal):
            return "SCALAR"
        flags = [f for f, n in zip(self.layout[atom], self.shape, strict=True) if n != 1]
        rows = sum(n != 1 for n in self.shape[: self.rows])
        if all(flags):
            return "FULL"
        outer, inner = flags[:rows], flags[rows:]
        return "SCALAR" if not any(flags) else "ROW" if all(outer) and not any(inner) else "INNER" if all(inner) and not any(outer) else "MIXED"

    def view(self, v: Var) -> tuple[int, ...]:
        """The shape in which a variable broadcasts against the region's."""
        return tuple(n if f else 1 for n, f in zip(self.shape, self.layout[v], strict=True))

    def merged(self) -> Region:
        """The region with what two equations compute alike (two decompositions: the exponentials of a softmax and of a loss) computed once."""
        new: dict[Var, Atom] = {}
        seen: dict[Any, dict[Any, Equation]] = {}
        equations = []
        for e in self.equations:
            if new:
                e = Equation(e.primitive, tuple(new.get(a, a) if isinstance(a, Var) else a for a in e.inputs), e.params, e.outputs, e.where)
            left = e if any(v in self.outputs for v in e.outputs) else common(e, seen.setdefault(places(e, self.layout), {}), new)
            equations += [] if left is None else [left]
        same = len(equations) == len(self.equations)
        return self if same else Region(equations, self.outputs, self.shape, self.rows, self.layout, self.terminal)

    def graph(self) -> Graph:
        """The region as a graph of its own."""
        return Graph(self.inputs, self.equations, self.outputs)

    def __repr__(self) -> str:
        names = " ".join(e.primitive.name for e in self.equations)
        return f"<region {list(self.shape[: self.rows])}x{list(self.shape[self.rows :])}: {names}>"


def places(equation: Equation, layout: dict[Var, Layout]) -> tuple[Layout, ...]:
    """Where the results lie: what equal equations of a region must have in common, for an iota or a broadcast may lie along another axis."""
    return tuple(layout[v] for v in equation.outputs)


@functools.lru_cache(4096)
def spread(shape: tuple[int, ...], into: tuple[int, ...], drop: int = 0) -> Layout | None:
    """How a value of this shape lies in a larger one whose last `drop` axes it lacks; None where it does not broadcast.

    >>> spread((4, 1), (3, 4, 5)), spread((3,), (3, 5), drop=1), spread((2,), (3,))
    ((False, True, False), (True, False), None)
    """
    lead = len(into) - drop - len(shape)
    if lead < 0:
        return None
    sizes = (1,) * lead + shape + (1,) * drop
    if any(s not in (1, n) for s, n in zip(sizes, into, strict=True)):
        return None
    return tuple(s == n for s, n in zip(sizes, into, strict=True))


class _Unit:
    """A region in the making, or one equation that is in none."""

    __slots__ = ("equations", "first", "inner", "last", "layout", "parent", "reads", "shape", "terminal")

    def __init__(self, position: int, equation: Equation, reads: set[_Unit]):
        self.equations = [(position, equation)]
        self.first = self.last = position
        self.reads = reads
        self.parent: _Unit | None = None  # the unit that this one was merged into
        self.shape: tuple[int, ...] | None = None  # None: not a region
        self.inner: int | None = None  # the number of axes inside a row; None as long as nothing says
        self.layout: dict[Var, Layout] = {}
        self.terminal: set[Var] = set()


def _root(u: _Unit) -> _Unit:
    while u.parent is not None:
        if u.parent.parent is not None:
            u.parent = u.parent.parent
        u = u.parent
    return u


def _axes(equation: Equation) -> tuple[int, ...]:
    axis = equation.params["axis"]
    return tuple(axis) if isinstance(axis, (tuple, list)) else (axis,)


class _Rules:
    """What the backend lets into a region, and how an equation lies in a region's shape."""

    def __init__(
        self,
        elementwise: Callable[[Equation], bool],
        reductions: Container[str],
        terminal: Container[str],
        rowwise: Container[str],
    ):
        self.elementwise, self.reductions, self.terminal, self.rowwise = elementwise, reductions, terminal, rowwise

    def shape(self, e: Equation) -> tuple[int, ...] | None:
        """The shape of a region that begins with this equation; None where it cannot be in one."""
        name = e.primitive.name
        x = e.inputs[0] if e.inputs else None
        if name in self.rowwise or name in self.reductions or name in self.terminal:
            shape = x.shape if isinstance(x, Var) else ()
        elif name == "broadcast_to" or self.elementwise(e):
            shape = e.outputs[0].shape
        else:
            return None
        return shape if math.prod(shape) > 1 else None

    def fit(self, e: Equation, u: _Unit, shape: tuple[int, ...]) -> bool:
        """Enter the equation's layouts into the unit, whose region has this shape; False (and nothing entered) where it does not fit."""
        if any(a in u.terminal for a in e.inputs if isinstance(a, Var)):
            return False
        name = e.primitive.name
        if name in _CHEAP:
            found = self._broadcast(e, shape, 0, u.inner)
        elif name in self.rowwise:
            found = self._rowwise(e, u, shape)
        elif name in self.reductions or name in self.terminal:
            found = self._reduction(e, u, shape)
        elif name == "reshape":
            found = self._reshape(e, u, shape)
        elif name == "broadcast_to" or self.elementwise(e):
            found = self._elementwise(e, u, shape)
        else:
            return False
        if found is None:
            return False
        layouts, inner = found
        if any(u.layout.get(v, f) != f for v, f in layouts.items()):
            return False
        u.layout.update(layouts)
        u.inner = inner
        return True

    def _broadcast(self, e: Equation, shape: tuple[int, ...], drop: int, inner: int | None) -> tuple[dict[Var, Layout], int | None] | None:
        layouts: dict[Var, Layout] = {}
        for v in (*e.inputs, *e.outputs):
            if isinstance(v, Var):
                flags = spread(v.shape, shape, drop)
                if flags is None:
                    return None
                layouts[v] = flags
        return layouts, inner

    def _elementwise(self, e: Equation, u: _Unit, shape: tuple[int, ...]) -> tuple[dict[Var, Layout], int | None] | None:
        members = [a for a in e.inputs if isinstance(a, Var) and a in u.layout]
        for drop in (0, u.inner) if u.inner and members else (0,):
            found = self._broadcast(e, shape, drop, u.inner)
            if found is None or any(u.layout.get(a, found[0][a]) != found[0][a] for a in members):
                continue
            flags = found[0][e.outputs[0]]
            if all(flags):
                return found
            inner = u.inner or next(i for i in range(len(shape), -1, -1) if i == 0 or flags[i - 1])
            inner = u.inner or len(shape) - inner
            if inner < len(shape) and flags == _row(shape, inner):
                return found[0], inner
        return None

    def _rowwise(self, e: Equation, u: _Unit, shape: tuple[int, ...]) -> tuple[dict[Var, Layout], int | None] | None:
        (x,), n = e.inputs, len(shape)
        if not isinstance(x, Var) or x.shape != shape or _axes(e) != (n - 1,) or n < 2 or u.inner not in (None, 1):
            return None
        return dict.fromkeys((x, *e.outputs), (True,) * n), 1

    def _reduction(self, e: Equation, u: _Unit, shape: tuple[int, ...]) -> tuple[dict[Var, Layout], int | None] | None:
        x, (out,), n, name = e.inputs[0], e.outputs, len(shape), e.primitive.name
        if not isinstance(x, Var):
            return None
        drop = next((d for d in {0, u.inner or 0} if spread(x.shape, shape, d) == u.layout.get(x, spread(x.shape, shape, d))), None)
        flags = None if drop is None else spread(x.shape, shape, drop)
        if flags is None or drop is None:
            return None
        lead = n - drop - len(x.shape)
        axes = {a + lead for a in _axes(e)}
        result = tuple(f and (i not in axes or s == 1) for i, (f, s) in enumerate(zip(flags, shape, strict=True)))
        inner = len(axes)
        if name in self.reductions and all(flags) and inner and axes == set(range(n - inner, n)) and inner < n and u.inner in (None, inner):
            return {x: flags, out: result}, inner
        everywhere = all(flags) or (u.inner is not None and flags == _row(shape, u.inner))  # else some elements would be counted once for each row
        if name in self.terminal and everywhere and any(flags[a] and shape[a] != 1 for a in axes):
            u.terminal.add(out)
            return {x: flags, out: result}, u.inner
        return None

    def _reshape(self, e: Equation, u: _Unit, shape: tuple[int, ...]) -> tuple[dict[Var, Layout], int | None] | None:
        x, (out,) = e.inputs[0], e.outputs
        flags = u.layout.get(x) if isinstance(x, Var) else None
        if flags is None or not any(spread(out.shape, shape, d) == flags for d in {0, u.inner or 0}):
            return None
        return {x: flags, out: flags}, u.inner  # type: ignore[dict-item]


def _row(shape: Sequence[int], inner: int) -> Layout:
    return tuple(i < len(shape) - inner or n == 1 for i, n in enumerate(shape))


def default_elementwise(equation: Equation) -> bool:
    """Whether an equation is elementwise, with one result."""
    return equation.primitive.elementwise and not equation.primitive.multiple


def regions(
    graph: Graph,
    elementwise: Callable[[Equation], bool] = default_elementwise,
    *,
    reductions: Container[str] = REDUCTIONS,
    terminal: Container[str] = REDUCTIONS,
    rowwise: Container[str] = (),
    alone: Callable[[Equation], bool] = lambda equation: False,
    most: int = 256,
) -> list[Equation | Region]:
    """The graph as equations and fused regions, in an order in which they can run.

    elementwise: which equations (broadcast_to apart) may enter a region as functions of single elements. reductions: names of primitives that may
    reduce the rows inside a region; terminal: those that may end one over other axes, accumulated from row to row; rowwise: those that map a row to
    a row (softmax over the last axis). alone: which equations make a region by themselves; any other region has at least two. most: equations in one
    region. Raises nothing of its own.

    >>> from minidl.primitives import table
    >>> from minidl.dtypes import float32
    >>> x, y, z = Var((8, 4), float32), Var((8, 1), float32), Var((8, 4), float32)
    >>> total = Equation(table["sum"], (x,), {"axis": (1,), "keepdims": True}, (y,))
    >>> regions(Graph([x], [total, Equation(table["div"], (x, y), {}, (z,))], [z]))
    [<region [8]x[4]: sum div>]
    """
    rules = _Rules(elementwise, reductions, terminal, rowwise)
    equations = list(_own_cheap(graph))
    made: dict[Var, _Unit] = {}
    readers: dict[Var, _Unit] = {}  # the last region that read a variable
    taken: set[Var] = set()  # read by something outside the region that made it: it is in memory anyway, and joining there would save nothing
    units = []
    for position, e in enumerate(equations):
        variables = [a for a in e.inputs if isinstance(a, Var)]
        unit = _Unit(position, e, {_root(made[a]) for a in variables if a in made})
        units.append(unit)
        made.update((v, unit) for v in e.outputs)
        shape = rules.shape(e)
        if e.primitive.name == "reshape" or (shape is not None and rules.fit(e, unit, shape)):
            unit.shape = shape
            near = [_root(made[a]) for a in variables if a in made and a not in taken]
            near += [_root(readers[a]) for a in variables if a in readers and a.shape == shape]
            for other in sorted(dict.fromkeys(near), key=lambda u: -u.last):
                unit = _join(rules, other, unit, most)
        unit = _root(unit)
        for a in variables:
            if a in made and _root(made[a]) is not unit:
                taken.add(a)
            if unit.shape is not None:
                readers[a] = unit
    return list(_finish(graph, units, alone))


def _own_cheap(graph: Graph) -> Iterator[Equation]:
    """The equations, where each reader of a cheap value has one of its own, made just before it."""
    source = {e.outputs[0]: e for e in graph.equations if e.primitive.name in _CHEAP and not e.inputs}
    kept = {v for v in graph.outputs if v in source}
    for e in graph.equations:
        if e.outputs and e.outputs[0] in source:
            if e.outputs[0] in kept:
                yield e
            continue
        new = {a: Var(a.shape, a.dtype) for a in dict.fromkeys(e.inputs) if isinstance(a, Var) and a in source and a not in kept}
        for a, v in new.items():
            yield Equation(source[a].primitive, (), source[a].params, (v,), source[a].where)
        yield Equation(e.primitive, tuple(new.get(a, a) for a in e.inputs), e.params, e.outputs, e.where) if new else e  # type: ignore[arg-type]


def _join(rules: _Rules, a: _Unit, b: _Unit, most: int) -> _Unit:
    """The union of two units if it is a region, else b."""
    a, b = _root(a), _root(b)
    if a is b or len(a.equations) + len(b.equations) > most or _between(a, b) or _between(b, a):
        return b
    shape = max((u.shape for u in (a, b) if u.shape is not None), key=math.prod, default=None)
    lone = a.equations[0][1].primitive.name in _CHEAP
    if shape is None or (a.shape is None and not lone):
        return b
    reads = {_root(u) for u in (*a.reads, *b.reads)} - {a, b}
    if a.shape == shape and len(b.equations) == 1 and b.last > a.last:  # the usual case, without looking at every equation again
        if not rules.fit(b.equations[0][1], a, shape):
            return b
        a.equations += b.equations
        a.last, a.reads, b.parent = b.last, reads, a
        return a
    both = _Unit(a.first, a.equations[0][1], reads)
    both.equations = sorted([*a.equations, *b.equations], key=lambda p: p[0])
    both.first, both.last, both.shape = both.equations[0][0], both.equations[-1][0], shape
    both.inner = b.inner if a.inner is None or b.shape != a.shape else a.inner
    if not all(rules.fit(e, both, shape) for _, e in both.equations):
        return b
    a.parent = b.parent = both
    return both


def _between(a: _Unit, b: _Unit) -> bool:
    """Whether a path leads from a through another unit to b (or too many to be sure)."""
    todo = [u for u in {_root(r) for r in b.reads} if u is not a and u is not b]
    seen = set(todo)
    while todo:
        u = todo.pop()
        if u.last < a.first:
            continue
        for r in u.reads:
            r = _root(r)
            if r is a or len(seen) > _SEARCH:
                return True
            if r not in seen and r is not b:
                seen.add(r)
                todo.append(r)
    return False


def _finish(graph: Graph, units: Sequence[_Unit], alone: Callable[[Equation], bool]) -> Iterator[Equation | Region]:
    roots = list(dict.fromkeys(_root(u) for u in units))
    order = _in_order(roots)
    while len(order) < len(roots):  # the search for paths looks back only so far: what waits for itself is taken apart, the widest first
        widest = max(set(roots) - set(order), key=lambda u: u.last - u.first if len(u.equations) > 1 else -1)
        roots = [u for u in roots if u is not widest] + [_Unit(p, e, set()) for p, e in widest.equations]
        order = _in_order(roots)
    owner = {v: u for u in roots for _, e in u.equations for v in e.outputs}
    read = {v for v in graph.outputs if isinstance(v, Var)}
    for u in roots:
        read.update(a for _, e in u.equations for a in e.inputs if isinstance(a, Var) and owner.get(a) is not u)
    for u in order:
        equations = [e for _, e in u.equations]
        if u.shape is None or (len(equations) == 1 and not alone(equations[0])):
            yield from equations
        else:
            outputs = [v for e in equations for v in e.outputs if v in read]
            yield Region(equations, outputs, u.shape, len(u.shape) - (u.inner or 0), u.layout, u.terminal)


def _in_order(units: Sequence[_Unit]) -> list[_Unit]:
    """Every unit after those that it reads, but not before somebody waits for it or its own last equation has its turn: a region of the forward pass
    that took in equations of the backward one must not draw the rest of that forward. Not those that wait in a circle."""
    owner = {v: u for u in units for _, e in u.equations for v in e.outputs}
    reads = {u: dict.fromkeys(owner[a] for _, e in u.equations for a in e.inputs if isinstance(a, Var) and owner.get(a, u) is not u) for u in units}
    readers: dict[_Unit, list[_Unit]] = {}
    for u, before in reads.items():
        for r in before:
            readers.setdefault(r, []).append(u)
    count = {u: len(before) for u, before in reads.items()}
    possible = [u for u in units if not count[u]]
    for u in possible:
        for f in readers.get(u, ()):
            count[f] -= 1
            if not count[f]:
                possible.append(f)
    return demanded(sorted(possible, key=lambda u: u.last), reads.__getitem__)


def demanded(nodes: Iterable[T], reads: Callable[[T], Iterable[T]]) -> list[T]:
    """The nodes in order, each before its turn only where one that reads it comes before. Raises AssertionError where some wait in a circle.

    >>> demanded("abc", {"a": "c", "b": "", "c": ""}.__getitem__)
    ['c', 'a', 'b']
    """
    order: dict[T, None] = {}
    for node in nodes:
        stack, waiting = [(node, iter(reads(node)))], {node}
        while stack:
            top, rest = stack[-1]
            r = next((r for r in rest if r not in order), None)
            if r is None:
                order[top] = None
                stack.pop()
                waiting.discard(top)
            else:
                assert r not in waiting, f"demanded: what {r!r} reads waits for {r!r} itself, in a circle of {len(waiting)} nodes at most"
                waiting.add(r)
                stack.append((r, iter(reads(r))))
    return list(order)
