"""A scan's body cut in two: the forward half, which also returns residuals, and the backward half, which reads them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from minidl import Graph, Tensor
from minidl.extend import Equation, Literal, Var, bind, dead_code, halves, ns, subgraphs, table

Atom = Var | Literal


class Split(NamedTuple):
    """A scan's forward body, which also returns what is to be stacked of it, and its backward body.

    Backward body: (const residuals), (cotangents of carry, sums for constants), (cotangents of ys, stacked residuals, x residuals)
    → (cotangents of carry, sums), (cotangents of xs, what else is stacked). reads: the numbers of the constants, stacked residuals and xs among them.
    summed: the constants whose cotangents are carried sums. totals: how the others' are made behind the loop, of `stacks`: the xs, the stacked
    residuals, the cotangents of ys, and the ys of the backward loop. used: the outputs that get cotangents. wanted: the inputs that do. places:
    which values of the body are stacked.
    """

    forward: Graph
    backward: Graph
    reads: tuple[list[int], list[int], list[int]]
    summed: list[int]
    totals: dict[int, Callable[[dict[Atom, Tensor]], Tensor]]
    stacks: list[Atom]
    used: Sequence[bool]
    wanted: Sequence[bool]
    places: list[int]


def split_body(
    body: Graph, n_consts: int, n_carry: int, live: Sequence[bool], used: Sequence[bool], several: bool, whole: Split | None
) -> Split:
    """The two bodies of a scan with a derivative. several: whether there are steps to add up. whole: another one, whose forward body ran already and
    is taken where it stacks what this one reads."""
    wanted = [on and (not n_consts <= i < n_consts + n_carry or used[i - n_consts]) for i, on in enumerate(live)]
    first, tail = halves(body, wanted, used)
    inputs, seeds, values = first.inputs, tail.inputs, [*first.variables()]
    consts, xs = inputs[:n_consts], inputs[n_consts + n_carry :]
    made: dict[Var, Any] = dict.fromkeys(seeds) | {v: e for e in tail.equations for v in e.outputs}
    n, m = sum(wanted[:n_consts]), sum(wanted[: n_consts + n_carry])
    targets = [i for i, on in enumerate(wanted) if on]
    own, carried, moved = dict(zip(targets, tail.outputs[:n], strict=False)), tail.outputs[n:m], tail.outputs[m:]
    others = {*made, *consts, *xs}
    stacked = [v for v in _read(tail) if v not in others]
    if whole is not None and wanted != whole.wanted and any(True for e in first.equations for _ in subgraphs(e.params)):
        whole = None  # loops and branches inside run otherwise where other inputs are wanted, and a value has another place then
    if whole is not None and {*stacked} <= {*(there := [values[i] for i in whole.places])}:
        stacked = there
    else:
        whole = None
    stacks = [*xs, *stacked, *seeds[m - n :], *moved]
    totals, more = _totals(own, made, stacks) if several else ({}, [])
    summed = [i for i in own if i not in totals]
    adds = [Equation(table["add"], (Var(v.shape, v.dtype), own[i]), {}, (Var(v.shape, v.dtype),)) for i in summed for v in (inputs[i],)]
    tail = dead_code(Graph(seeds, [*tail.equations, *adds], [*carried, *(e.outputs[0] for e in adds), *moved, *more]))
    read = _read(tail)
    reads = tuple([k for k, v in enumerate(group) if v in read] for group in (consts, stacked, xs))
    kept = [[group[k] for k in ks] for group, ks in zip((consts, stacked, xs), reads, strict=True)]
    given = [*kept[0], *seeds[: m - n], *(e.inputs[0] for e in adds), *seeds[m - n :], *kept[1], *kept[2]]
    backward = Graph(given, tail.equations, tail.outputs, "backward")  # type: ignore[arg-type]
    forward = dead_code(Graph(inputs, first.equations, [*first.outputs, *stacked], "body")) if whole is None else whole.forward
    places = [values.index(v) for v in stacked]
    return Split(forward, backward, reads, summed, totals, [*stacks, *more], used, wanted, places)  # type: ignore[arg-type]


def _read(graph: Graph) -> dict[Var, None]:
    """What a graph reads or returns."""
    return dict.fromkeys(a for a in (*(a for e in graph.equations for a in e.inputs), *graph.outputs) if isinstance(a, Var))


def _totals(values: dict[int, Atom], made: dict[Var, Equation | None], stacks: Sequence[Atom]) -> tuple[dict[int, Any], list[Var]]:
    """For which of the values the sum over the steps is made behind the loop, and how; and what has to be stacked for that besides.

    A weight's cotangent is a product of what a step read and of another cotangent. Adding it up in the loop goes over the memory of the weight twice
    more in every step; in a product whose sum runs over the steps, too, the sum is the library's own, and no step is rounded by itself. Its operands
    must be stacked anyway, or cost less traffic than they save, and not more than double what is stacked.
    """
    there: set[Atom] = set(stacks)
    room = sum(v.nbytes for v in there)
    totals, more = {}, list[Var]()
    for i, v in values.items():
        total = _total(v, made, there)
        if total is None:
            continue
        new = list(dict.fromkeys(a for a in total[0] if a not in there))
        cost = sum(a.nbytes for a in new)
        if cost <= room and cost + total[1] <= 2 * v.nbytes:
            totals[i] = total[2]
            more += new
            there.update(new)
            room -= cost
    return totals, more


#: What the sum over the steps may be drawn through.
_LINEAR = frozenset("add sub neg permute reshape".split())


def _total(v: Atom, made: dict[Var, Equation | None], there: set[Atom]) -> tuple[list[Var], int, Callable[[dict[Atom, Tensor]], Tensor]] | None:
    """The sum of a value over the steps as a product over them: what of all steps it reads, how many bytes a step it copies, and how it is made of
    the stacks; None for what is no product, nor made of such."""
    e = made.get(v) if isinstance(v, Var) else None
    if e is None or not all(isinstance(a, Var) and (a in there or a in made) for a in e.inputs):
        return None
    if e.primitive.name in _LINEAR and all(math.prod(a.shape) == math.prod(v.shape) for a in e.inputs):
        parts = [p for a in e.inputs if (p := _total(a, made, there)) is not None]
        if len(parts) < len(e.inputs):
            return None
        sums = [p[2] for p in parts]
        leaves = [a for p in parts for a in p[0]]
        return leaves, sum(p[1] for p in parts), lambda stack: bind(e.primitive, [s(stack) for s in sums], e.params)
    if e.primitive.name != "dot_general":
        return None
    (x, y), (c, d), (b, f) = e.inputs, e.params["contract"], e.params["batch"]
    copied = sum(a.nbytes for a, axes in ((x, c), (y, d)) if b or axes != tuple(range(len(axes))))
    cs, ds, bs, fs = (tuple(a + 1 for a in axes) for axes in (c, d, b, f))
    return [x, y], copied, lambda stack: ns.dot_general(stack[x], stack[y], contract=((0, *cs), (0, *ds)), batch=(bs, fs))  # type: ignore[list-item, index]
