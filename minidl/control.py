"""Control flow: cond, switch, while_loop, fori_loop, scan and map, differentiable in both modes.

Eager, a loop is a Python loop over the user's function and the tape records what it does. While tracing or under vmap the body is traced once
and becomes one equation; its derivatives are loops over derived bodies.

The reverse of a while loop of n trips keeps a stack of at most 64 states and re-runs at most n*log2(n) steps, bisecting between stored states
(A. Griewank, Achieving logarithmic growth of temporal and spatial complexity in reverse automatic differentiation, 1992); n is data.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from minidl import tape, tree
from minidl.batching import LOOPS, Batched, Level
from minidl.context import grad_mode, interpreting, state
from minidl.dtypes import DType, bool_, int64
from minidl.graph import Atom, Equation, Graph, Literal, Var
from minidl.passes import dead_code
from minidl.primitives import table
from minidl.tensors import Tensor, bind, describe, ns
from minidl.tracing import Trace, asarray_here, finish, subgraph
from minidl.transforms import _push, alias, as_constant, here, with_node, zeros_like

SLOTS = 64
Aval = tuple[tuple[int, ...], DType]


def _aval(t: Any) -> Aval:
    return tuple(t.shape), t.dtype


def _tensors(x: Any) -> tuple[list[Tensor], tree.Structure]:
    leaves, structure = tree.flatten(x)
    return [asarray_here(v) if state.interpreter is not None else _eager(v) for v in leaves], structure


def _eager(v: Any) -> Any:
    if isinstance(v, Tensor) or state.interpreter is not None:
        return v
    from minidl.ops import asarray

    return asarray(v)


def run_graph(graph: Graph, args: Sequence[Tensor]) -> list[Tensor]:
    """A graph on Tensors, equation by equation, in the current context."""

    def apply(primitive: Any, inputs: list[Any], params: dict[str, Any]) -> Any:
        again = LOOPS.get(primitive.name)
        return again(inputs, params) if again is not None else bind(primitive, inputs, params)

    return graph.run(apply, list(args), lambda c: ns.full(shape=(), value=c.value, dtype=c.dtype))


def _derived(build: Callable[..., list[Any]], avals: Sequence[Aval]) -> Graph:
    """The graph of a function on Tensors; its outputs must all be Tensors."""
    graph, extra, _ = subgraph(lambda *xs: tuple(build(*xs)), avals)
    assert not extra, "a derived body reads nothing from outside"
    return graph


def _node(t: Tensor) -> Any:
    return here(t)[2]


def _call(name: str, operands: Sequence[Tensor], params: dict[str, Any], vjp: Callable[..., Any], jvp: Callable[..., Any]) -> list[Tensor]:
    """Apply a loop primitive; if an operand is tracked, give its outputs nodes with these derivatives.

    vjp(operands, outputs, cotangents) and jvp(operands, tangents) compute on Tensors; None stands for zero.
    """
    primitive = table[name]
    nodes = [_node(t) if t.dtype.inexact else None for t in operands]
    with grad_mode(state.grad):
        outs = list(bind(primitive, [as_constant(t) for t in operands], params))
    if not state.grad or all(n is None for n in nodes):
        return outs
    xp = outs[0].xp
    live = [i for i, n in enumerate(nodes) if n is not None]
    bare = [as_constant(t) for t in operands]
    kept = list(outs)

    def pull(cts: list[Any], tracked: bool) -> list[Any]:
        ins = [with_node(t, nodes[i]) if tracked else t for i, t in enumerate(bare)]
        with grad_mode(state.grad):
            found = vjp(ins, None if tracked else kept, cts)
        return [found[i] for i in live]

    def push(tangents: list[Any]) -> list[Any]:
        full: list[Any] = [None] * len(bare)
        for i, t in zip(live, tangents, strict=True):
            full[i] = t
        return jvp([with_node(t, nodes[i]) for i, t in enumerate(bare)], full)

    made = tape.opaque_nodes(xp, name, [nodes[i] for i in live], len(outs), pull, push)
    return [with_node(o, n) if o.dtype.inexact else o for o, n in zip(outs, made, strict=True)]


def _jvp_graph(graph: Graph, moving: Sequence[bool]) -> Graph:
    """(inputs, tangents of the moving inputs) → (outputs, tangents of the float outputs)."""
    key = ("jvp", tuple(moving), state.strong)
    if key not in graph.cache:
        n = len(graph.inputs)

        def build(*xs: Tensor) -> list[Tensor]:
            primals, tangents = list(xs[:n]), list(xs[n:])
            fresh = [alias(p) if m else p for p, m in zip(primals, moving, strict=True)]
            with grad_mode(True):
                outs = run_graph(graph, fresh)
            inexact = [o for o in outs if o.dtype.inexact]
            moved = _push(inexact, [f for f, m in zip(fresh, moving, strict=True) if m], tangents)
            return [o.detach() for o in outs] + moved

        graph.cache[key] = _derived(build, [_aval(v) for v in graph.inputs] + [_aval(v) for v, m in zip(graph.inputs, moving, strict=True) if m])
    return graph.cache[key]


def _vjp_graph(graph: Graph, wanted: Sequence[bool]) -> Graph:
    """(inputs, cotangents of the float outputs) → cotangents of the wanted inputs."""
    key = ("vjp", tuple(wanted), state.strong)
    if key not in graph.cache:
        n = len(graph.inputs)

        def build(*xs: Tensor) -> list[Tensor]:
            fresh = [alias(x) if w else x for x, w in zip(xs[:n], wanted, strict=True)]
            with grad_mode(True):
                outs = [o for o in run_graph(graph, fresh) if o.dtype.inexact]
            return _pull(outs, xs[n:], [f for f, w in zip(fresh, wanted, strict=True) if w])

        graph.cache[key] = _derived(build, [_aval(v) for v in graph.inputs] + [_aval(v) for v in graph.outputs if v.dtype.inexact])
    return graph.cache[key]


def _pull(outs: Sequence[Tensor], cts: Sequence[Tensor], aliases: Sequence[Tensor]) -> list[Tensor]:
    """Plain (unconjugated) cotangents of the aliases, zeros where nothing flows."""
    from minidl.autograd import pullback

    roots = [(o.node, c) for o, c in zip(outs, cts, strict=True) if o.node is not None]
    found = pullback("control flow", roots, [a.node for a in aliases], retain=True) if roots else [None] * len(aliases)
    return [zeros_like(a) if g is None else g for a, g in zip(aliases, found, strict=True)]


# ---- scan -------------------------------------------------------------------------------------------------------------------------------
class _Split(NamedTuple):
    """A scan's forward body, which also returns what is to be stacked of it, and its backward body.

    Backward body: (const residuals), (cotangents of carry, sums for constants), (cotangents of ys, stacked residuals, x residuals)
    → (cotangents of carry, sums), (cotangents of xs, what else is stacked). reads: the numbers of the constants, stacked residuals and xs among them.
    summed: the constants whose cotangents are carried sums. totals: how the others' are made behind the loop, of `stacks`: the xs, the stacked
    residuals, the cotangents of ys, and the ys of the backward loop.
    """

    forward: Graph
    backward: Graph
    reads: tuple[list[int], list[int], list[int]]
    summed: list[int]
    totals: dict[int, Callable[[dict[Atom, Tensor]], Tensor]]
    stacks: list[Atom]


def _split_body(body: Graph, n_consts: int, n_carry: int, live: Sequence[bool], several: bool) -> _Split:
    """The two bodies of a scan with a derivative. several: whether there are steps to add up."""
    t = Trace(state.interpreter)
    args = [Tensor(Var(v.shape, v.dtype), t, v.dtype, None) for v in body.inputs]
    for a, on in zip(args, live, strict=True):
        if on:
            a.node = tape.alias_node(t, None)
    wanted = [i for i, on in enumerate(live) if on]
    with interpreting(t), grad_mode(True):
        outs = run_graph(body, args)
        mark = len(t.equations)
        inexact = [o for o in outs if o.dtype.inexact]
        seeds: list[Any] = [Var(o.shape, o.dtype) for o in inexact]
        found: dict[int, Any] = dict.fromkeys(args[i].node[0] for i in wanted)
        roots = [(o.node, s) for o, s in zip(inexact, seeds, strict=True) if o.node is not None]
        tape.pull_raw(roots, found, None, True, lambda node, g: None)
        grads = [found[args[i].node[0]] for i in wanted]
        grads = [t.full(shape=args[i].shape, value=0, dtype=args[i].dtype) if g is None else g for i, g in zip(wanted, grads, strict=True)]
    t.closed = True
    inputs = [a.payload for a in args]
    consts, xs = inputs[:n_consts], inputs[n_consts + n_carry :]
    tail = finish(t.equations[mark:], (), grads, "backward")
    made: dict[Var, Any] = dict.fromkeys(seeds) | {v: e for e in tail.equations for v in e.outputs}
    n, m = sum(live[:n_consts]), sum(live[: n_consts + n_carry])
    own, carried, moved = dict(zip(wanted, tail.outputs[:n], strict=False)), tail.outputs[n:m], tail.outputs[m:]
    others = {*made, *consts, *xs}
    stacked = [v for v in _read(tail) if v not in others]
    stacks = [*xs, *stacked, *seeds[m - n :], *moved]
    totals, more = _totals(own, made, stacks) if several else ({}, [])
    summed = [i for i in own if i not in totals]
    adds = [Equation(table["add"], (Var(v.shape, v.dtype), own[i]), {}, (Var(v.shape, v.dtype),)) for i in summed for v in (inputs[i],)]
    tail = dead_code(Graph((), [*tail.equations, *adds], [*carried, *(e.outputs[0] for e in adds), *moved, *more]))
    read = _read(tail)
    reads = tuple([k for k, v in enumerate(values) if v in read] for values in (consts, stacked, xs))
    kept = [[values[k] for k in ks] for values, ks in zip((consts, stacked, xs), reads, strict=True)]
    given = [*kept[0], *seeds[: m - n], *(e.inputs[0] for e in adds), *seeds[m - n :], *kept[1], *kept[2]]
    backward = finish(tail.equations, given, tail.outputs, "backward")
    forward = finish(t.equations[:mark], inputs, [*(o.payload for o in outs), *stacked], "body")
    return _Split(forward, backward, reads, summed, totals, [*stacks, *more])  # type: ignore[arg-type]


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


def apply_scan(operands: Sequence[Tensor], params: dict[str, Any]) -> list[Tensor]:
    """The scan primitive on Tensors, with its derivatives."""
    body, n_consts, n_carry = params["body"], params["n_consts"], params["n_carry"]
    length, reverse = params["length"], params["reverse"]
    tracked = state.grad and any(_node(t) is not None and t.dtype.inexact for t in operands)
    if not tracked:
        return list(bind(table["scan"], operands, params))
    live = [t.dtype.inexact and (_node(t) is not None or n_consts <= i < n_consts + n_carry) for i, t in enumerate(operands)]

    def split() -> _Split:
        key = ("scan", tuple(live), n_consts, n_carry, length > 1, state.strong)
        if key not in body.cache:
            body.cache[key] = _split_body(body, n_consts, n_carry, live, length > 1)
        return body.cache[key]

    ran = split().forward
    n_out = len(body.outputs)
    carry = range(n_consts, n_consts + n_carry)
    float_carry = [i for i in carry if operands[i].dtype.inexact]
    x_live = [i for i in range(n_consts + n_carry, len(operands)) if live[i]]

    def vjp(ins: list[Tensor], outs: list[Tensor] | None, cts: list[Any]) -> list[Any]:
        forward, backward, (some_consts, some_stacked, some_xs), summed, totals, stacks = split()
        outs = outs if outs is not None and forward is ran else apply_scan(ins, {**params, "body": forward})
        cts = cts[:n_out]
        seeds = cts + [None] * (n_out - len(cts))
        full = [c if c is not None else zeros_like(o) for c, o in zip(seeds, outs[:n_out], strict=True) if o.dtype.inexact]
        k, xs, stacked = len(float_carry), ins[n_consts + n_carry :], outs[n_out:]
        given = [
            *(ins[i] for i in some_consts),
            *full[:k],
            *(zeros_like(ins[i]) for i in summed),
            *full[k:],
            *(stacked[i] for i in some_stacked),
            *(xs[i] for i in some_xs),
        ]
        more = {"body": backward, "length": length, "n_consts": len(some_consts), "n_carry": k + len(summed), "reverse": not reverse}
        found = apply_scan(given, more)
        ys = found[k + len(summed) :]
        stack = dict(zip(stacks, [*xs, *stacked, *full[k:], *ys], strict=True))
        result: list[Any] = [None] * len(ins)
        for i, g in zip([*float_carry, *summed, *x_live], [*found[: k + len(summed)], *ys[: len(x_live)]], strict=True):
            result[i] = g
        for i, total in totals.items():
            result[i] = total(stack)
        return result

    def jvp(ins: list[Tensor], tangents: list[Any]) -> list[Any]:
        moving = [t is not None or (i in carry and ins[i].dtype.inexact) for i, t in enumerate(tangents)]
        body2 = _jvp_graph(body, moving)
        n = len(ins)
        order = [*range(n), *(i for i in range(n) if moving[i])]
        ts = [tangents[i] if tangents[i] is not None else zeros_like(ins[i]) for i in range(n) if moving[i]]
        return _interleaved_scan(body, body2, ins, ts, order, moving, params)

    outs = _call("scan", operands, {**params, "body": ran}, vjp, jvp)
    return outs[:n_out]


def _interleaved_scan(
    body: Graph, body2: Graph, ins: list[Tensor], ts: list[Tensor], order: list[int], moving: list[bool], params: dict[str, Any]
) -> list[Any]:
    """Run the jvp body: its inputs and outputs are put in the order consts, carry, xs / carry, ys that scan wants."""
    n_consts, n_carry = params["n_consts"], params["n_carry"]

    def group(i: int) -> int:
        return 0 if i < n_consts else 1 if i < n_consts + n_carry else 2

    position = sorted(range(len(order)), key=lambda k: (group(order[k]), k))
    out_floats = [i for i, v in enumerate(body.outputs) if v.dtype.inexact]
    outs = [*range(len(body.outputs)), *out_floats]
    out_position = sorted(range(len(outs)), key=lambda k: (outs[k] >= n_carry, k))
    key = ("ordered", tuple(position), tuple(out_position))
    if key not in body2.cache:
        body2.cache[key] = Graph([body2.inputs[k] for k in position], body2.equations, [body2.outputs[k] for k in out_position], "body")
    given = [*ins, *ts]
    counts = [sum(group(order[k]) == g for k in range(len(order))) for g in (0, 1)]
    found = apply_scan([given[k] for k in position], {**params, "body": body2.cache[key], "n_consts": counts[0], "n_carry": counts[1]})
    place = {k: j for j, k in enumerate(out_position)}
    tangents: list[Any] = [None] * len(body.outputs)
    for j, i in enumerate(out_floats):
        tangents[i] = found[place[len(body.outputs) + j]]
    return tangents


def scan(f: Callable[..., Any], init: Any, xs: Any = None, length: int | None = None, reverse: bool = False) -> tuple[Any, Any]:
    """Carry a state through a sequence: f(carry, x) -> (carry, y); returns the last carry and the stacked ys.

    xs is a pytree of tensors with equal leading axes (or None, with length). The carry keeps its shapes and dtypes. Tracing takes the same time
    for any length. Raises TypeError where the carry changes, ValueError where lengths differ.

    >>> total, sums = md.scan(lambda c, x: (c + x, c + x), md.tensor(0.0), md.tensor([1.0, 2.0, 3.0]))
    >>> total.item(), sums.tolist()
    (6.0, [1.0, 3.0, 6.0])
    """
    carry, c_structure = _tensors(init)
    seq, x_structure = _tensors(xs)
    lengths = {t.shape[0] if t.shape else None for t in seq} | ({length} if length is not None else set())
    if len(lengths) != 1 or None in lengths:
        raise ValueError(f"scan: leading axes of xs and length must agree, got {', '.join(describe(t) for t in seq) or 'no xs'} and length={length}")
    (n,) = lengths
    if state.interpreter is None and n == 0:  # what one step would return says what no step returns
        graph, _, structure = subgraph(
            lambda *a: f(tree.unflatten(c_structure, a[: len(carry)]), tree.unflatten(x_structure, a[len(carry) :])),
            [_aval(t) for t in carry] + [(t.shape[1:], t.dtype) for t in seq],
        )
        ys = [ns.full(shape=(0, *v.shape), value=0, dtype=v.dtype) for v in graph.outputs[len(carry) :]]
        return init, tree.unflatten(structure.children[1], ys)
    if state.interpreter is None:
        return _python_scan(f, carry, c_structure, seq, x_structure, int(n), reverse)  # type: ignore[arg-type]
    k = len(carry)

    def body(*args: Tensor) -> Any:
        out = f(tree.unflatten(c_structure, args[:k]), tree.unflatten(x_structure, args[k:]))
        if not isinstance(out, tuple) or len(out) != 2:
            raise TypeError("scan: the function must return (carry, y)")
        return out

    traced = _traced("scan", body, [_aval(t) for t in carry] + [(t.shape[1:], t.dtype) for t in seq], carry)
    y_structure = traced.structure.children[1]
    w = len(traced.written)
    graph = Graph([*traced.extra_vars, *traced.written_vars, *traced.graph.inputs[: k + len(seq)]], traced.graph.equations, traced.outputs, "body")
    params = {"body": graph, "length": n, "n_consts": len(traced.extra), "n_carry": k + w, "reverse": reverse}
    outs = apply_scan([*traced.extra, *traced.written, *carry, *seq], params)
    traced.store(outs[:w])
    return tree.unflatten(c_structure, outs[w : w + k]), tree.unflatten(y_structure, outs[w + k :])


def _python_scan(f: Any, carry: list[Tensor], cs: Any, seq: list[Tensor], xs: Any, n: int, reverse: bool) -> tuple[Any, Any]:
    from minidl.ops import stack

    state_now, ys = tree.unflatten(cs, carry), []
    for i in reversed(range(n)) if reverse else range(n):
        state_now, y = f(state_now, tree.unflatten(xs, [t[i] for t in seq]))
        ys.append(y)
    _same("scan", carry, tree.leaves(state_now))
    if reverse:
        ys.reverse()
    return state_now, tree.map(lambda *row: stack([_eager(v) for v in row]), *ys)


def _same(name: str, before: Sequence[Tensor], after: Sequence[Any]) -> None:
    if len(before) != len(after):
        raise TypeError(f"{name}: the carry has {len(before)} tensors going in and {len(after)} coming out")
    for a, b in zip(before, after, strict=True):
        if tuple(a.shape) != tuple(b.shape) or a.dtype is not b.dtype:
            raise TypeError(f"{name}: the carry changes from {describe(a)} to {describe(b)}; it must keep its shape and dtype")


def _shortens(e: Equation) -> bool:
    return e.primitive.name == "cast" and e.outputs[0].dtype.inexact and e.outputs[0].dtype.bits < e.inputs[0].dtype.bits


class _traced:
    """A traced body: its graph, what it read from outside, and the outside tensors that it changed, which become part of the carry."""

    def __init__(self, name: str, f: Callable[..., Any], avals: Sequence[Aval], carry: Sequence[Tensor], loop: bool = True):
        from minidl.tracing import subgraph_writing

        self.graph, self.extra, self.structure, self.written = subgraph_writing(f, avals)
        n, w = len(avals), len(self.written)
        self.written_vars = self.graph.inputs[n : n + w]
        self.extra_vars = self.graph.inputs[n + w :]
        outs = self.graph.outputs
        split = len(outs) - w
        self.outputs = [*outs[split:], *outs[:split]]
        _same(name, carry, outs[: len(carry)])
        if loop:
            self._hoist()

    def _hoist(self) -> None:
        """Compute before the loop what every step would compute alike, unless it is larger than what it is made from: a step's residuals then
        hold no copies of it. Not the cast to a shorter float: the steps' cotangents are added up in the dtype of what they share."""
        fixed, moved, kept = set(self.extra_vars), [], []
        for e in self.graph.equations:
            reads = {a for a in e.inputs if isinstance(a, Var)}
            if reads and reads <= fixed and not _shortens(e) and sum(v.nbytes for v in e.outputs) <= sum(v.nbytes for v in reads):
                fixed.update(e.outputs)
                moved.append(e)
            else:
                kept.append(e)
        if not moved:
            return
        used = {a for e in kept for a in e.inputs} | set(self.outputs)
        needed = [v for v in (*self.extra_vars, *(v for e in moved for v in e.outputs)) if v in used]
        self.extra = run_graph(Graph(self.extra_vars, moved, needed), self.extra)
        self.extra_vars = tuple(needed)
        self.graph = Graph([*(v for v in self.graph.inputs if v not in fixed), *needed], kept, self.graph.outputs, "body")

    def store(self, values: Sequence[Tensor]) -> None:
        """Write the final values of the changed tensors."""
        for t, v in zip(self.written, values, strict=True):
            t.assign(v)


def map(f: Callable[..., Any], xs: Any) -> Any:
    """Apply f to each element along the leading axis, one after the other (scan without a carry; md.vmap does all at once).

    >>> md.map(lambda x: x * x, md.tensor([1.0, 2.0])).tolist()
    [1.0, 4.0]
    """
    return scan(lambda c, x: ((), f(x)), (), xs)[1]


# ---- while ------------------------------------------------------------------------------------------------------------------------------
def apply_while(operands: Sequence[Tensor], params: dict[str, Any]) -> list[Tensor]:
    """The while_loop primitive on Tensors, with its derivatives."""
    cond, body, n_cond, n_body = params["cond"], params["body"], params["n_cond"], params["n_body"]
    n = n_cond + n_body
    if not (state.grad and any(_node(t) is not None and t.dtype.inexact for t in operands)):
        return list(bind(table["while_loop"], operands, params))
    counting = _counting(cond, body, n_cond, n_body)
    k = len(operands) - n

    def vjp(ins: list[Tensor], outs: list[Tensor] | None, cts: list[Any]) -> list[Any]:
        outs = outs if outs is not None else list(_loop(ins, counting, n_cond, n_body))
        trips, carry, consts = outs[0], ins[n:], ins[n_cond:n]
        full = [c if c is not None else zeros_like(v) for c, v in zip(cts[1:], carry, strict=True) if v.dtype.inexact]
        const_live = [i for i, c in enumerate(consts) if c.dtype.inexact]
        found = _reverse_while(body, consts, carry, trips, full, const_live)
        result: list[Any] = [None] * len(ins)
        for i, g in zip([n + i for i, v in enumerate(carry) if v.dtype.inexact] + [n_cond + i for i in const_live], found, strict=True):
            result[i] = g
        return result

    def jvp(ins: list[Tensor], tangents: list[Any]) -> list[Any]:
        moving = [ins[i].dtype.inexact for i in range(n_cond, len(ins))]
        body2 = _jvp_graph(body, moving)
        ts = [tangents[n_cond + i] if tangents[n_cond + i] is not None else zeros_like(ins[n_cond + i]) for i, m in enumerate(moving) if m]
        tc = sum(moving[:n_body])
        floats = [i for i in range(k) if moving[n_body + i]]
        m = n_body + k
        inputs = [*body2.inputs[:n_body], *body2.inputs[m : m + tc], *body2.inputs[n_body:m], *body2.inputs[m + tc :]]
        both = Graph(inputs, body2.equations, body2.outputs, "body")
        spare = [Var(v.shape, v.dtype) for v in body2.inputs[m + tc :]]
        cond2 = Graph([*cond.inputs, *spare], cond.equations, cond.outputs, "condition")
        given = [*ins[:n_cond], *ins[n_cond:n], *ts[:tc], *ins[n:], *ts[tc:]]
        found = apply_while(given, {"cond": cond2, "body": both, "n_cond": n_cond, "n_body": n_body + tc})
        out: list[Any] = [None] * (k + 1)
        for j, i in enumerate(floats):
            out[i + 1] = found[k + j]
        return out

    given = [*operands[:n], ns.full(shape=(), value=0, dtype=int64), *operands[n:]]
    order = [*range(n), *range(n + 1, len(given))]

    def vjp_counting(ins: list[Tensor], outs: list[Tensor] | None, cts: list[Any]) -> list[Any]:
        found = vjp([ins[i] for i in order], outs, cts)
        return [*found[:n], None, *found[n:]]

    def jvp_counting(ins: list[Tensor], tangents: list[Any]) -> list[Any]:
        return jvp([ins[i] for i in order], [tangents[i] for i in order])

    outs = _call("while_loop", given, counting, vjp_counting, jvp_counting)
    return outs[1:]


def _loop(ins: Sequence[Tensor], counting: dict[str, Any], n_cond: int, n_body: int) -> list[Tensor]:
    n = n_cond + n_body
    return apply_while([*ins[:n], ns.full(shape=(), value=0, dtype=int64), *ins[n:]], counting)


def _counting(cond: Graph, body: Graph, n_cond: int, n_body: int) -> dict[str, Any]:
    """The same loop with the number of trips as its first carry."""
    key = ("counting", id(cond), n_cond)
    if key not in body.cache:
        count = Var((), int64)
        k = len(cond.inputs) - n_cond
        cond2 = Graph([*cond.inputs[:n_cond], Var((), int64), *cond.inputs[n_cond:]], cond.equations, cond.outputs, "condition")

        after = Var((), int64)
        step = Equation(table["add"], (count, Literal(1, int64)), {}, (after,))
        body2 = Graph(
            [*body.inputs[: len(body.inputs) - k], count, *body.inputs[len(body.inputs) - k :]],
            [*body.equations, step],
            [after, *body.outputs],
            "body",
        )
        body.cache[key] = ({"cond": cond2, "body": body2, "n_cond": n_cond, "n_body": n_body}, cond)
    return body.cache[key][0]


def _reverse_while(body: Graph, consts: list[Tensor], carry: list[Tensor], trips: Tensor, cts: list[Tensor], const_live: list[int]) -> list[Tensor]:
    """Cotangents of the float carry and of the live constants, by bisection between stored states."""
    b = len(consts)
    back = _vjp_graph(body, [*(i in const_live for i in range(b)), *(v.dtype.inexact for v in carry)])

    def put(buffer: Tensor, at: Tensor, value: Tensor) -> Tensor:
        return ns.scatter(buffer, ns.reshape(value, shape=(1, *value.shape)), ns.reshape(at, shape=(1,)), mode="set")

    def get(buffer: Tensor, at: Tensor) -> Tensor:
        return ns.gather(buffer, at)

    def go_on(s: Any) -> Tensor:
        return ns.ge(s["i"], 0)

    def step(s: Any) -> Any:
        at = get(s["index"], s["top"])
        here = [get(buf, s["top"]) for buf in s["states"]]

        def differentiate() -> Any:
            found = run_graph(back, [*consts, *here, *s["cts"]])
            sums = [ns.add(a, d) for a, d in zip(s["sums"], found[: len(const_live)], strict=True)]
            top = ns.maximum(ns.sub(s["top"], 1), 0)
            return {**s, "i": ns.sub(s["i"], 1), "top": top, "cts": found[len(const_live) :], "sums": sums}

        def advance() -> Any:
            middle = ns.floor_divide(ns.add(ns.add(at, s["i"]), 1), 2)
            _, moved = while_loop(lambda c: ns.lt(c[0], middle), lambda c: (ns.add(c[0], 1), run_graph(body, [*consts, *c[1]])), (at, here))
            top = ns.add(s["top"], 1)
            return {
                **s,
                "top": top,
                "index": put(s["index"], top, middle),
                "states": [put(buf, top, v) for buf, v in zip(s["states"], moved, strict=True)],
            }

        return cond(ns.eq(at, s["i"]), differentiate, advance)

    zero = ns.full(shape=(), value=0, dtype=int64)
    buffers = [
        ns.unslice(
            ns.reshape(v, shape=(1, *v.shape)), shape=(SLOTS, *v.shape), start=(0,) * (v.ndim + 1), stop=(1, *v.shape), step=(1,) * (v.ndim + 1)
        )
        for v in carry
    ]
    start = {
        "i": ns.sub(trips, 1), "top": zero, "index": ns.full(shape=(SLOTS,), value=0, dtype=int64), "states": buffers,
        "cts": list(cts), "sums": [zeros_like(consts[i]) for i in const_live],
    }  # fmt: skip
    end = while_loop(go_on, step, start)
    return [*end["cts"], *end["sums"]]


def _one_bool(what: str, x: Tensor, integers: bool = False) -> None:
    if x.shape != () or not (x.dtype is bool_ or (integers and x.dtype.is_integer)):
        raise TypeError(f"{what} must be one bool, not {describe(x)}")


def _holds(what: str, x: Any, integers: bool = False) -> bool:
    """Eager: whether a condition holds; it is refused where a trace would refuse it."""
    if isinstance(x, Tensor):
        _one_bool(what, x, integers)
    return bool(x)


def while_loop(cond_fun: Callable[[Any], Any], body_fun: Callable[[Any], Any], init: Any) -> Any:
    """Repeat body_fun(state) while cond_fun(state) is true; returns the last state, whose shapes and dtypes stay the same.

    Differentiable in both modes without a bound on the trips; in reverse, under jit, with a stack of 64 states and O(n log n) steps.
    Raises TypeError for a condition that is not one bool, RuntimeError where it changes a tensor.

    >>> md.while_loop(lambda x: x < 100.0, lambda x: x * 2.0, md.tensor(3.0)).item()
    192.0
    """
    carry, structure = _tensors(init)
    if state.interpreter is None:
        value = tree.unflatten(structure, carry)
        while _holds("while_loop: the condition", cond_fun(value)):
            value = body_fun(value)
            _same("while_loop", carry, [_eager(v) for v in tree.leaves(value)])
        return value
    avals = [_aval(t) for t in carry]
    body = _traced("while_loop", lambda *c: body_fun(tree.unflatten(structure, c)), avals, carry)
    test = _traced("while_loop", lambda *c: cond_fun(tree.unflatten(structure, c)), avals, ())
    if test.written:
        raise RuntimeError("while_loop: the condition changed a tensor; only the body may")
    if len(test.graph.outputs) != 1 or test.graph.outputs[0].shape != () or test.graph.outputs[0].dtype is not bool_:
        raise TypeError(f"while_loop: the condition must be one bool, not {', '.join(describe(v) for v in test.graph.outputs)}")
    k, w = len(carry), len(body.written)
    spare = [Var(v.shape, v.dtype) for v in body.written_vars]
    cond_graph = Graph([*test.extra_vars, *spare, *test.graph.inputs[:k]], test.graph.equations, test.graph.outputs, "condition")
    body_graph = Graph([*body.extra_vars, *body.written_vars, *body.graph.inputs[:k]], body.graph.equations, body.outputs, "body")
    params = {"cond": cond_graph, "body": body_graph, "n_cond": len(test.extra), "n_body": len(body.extra)}
    outs = apply_while([*test.extra, *body.extra, *body.written, *carry], params)
    body.store(outs[:w])
    return tree.unflatten(structure, outs[w:])


def fori_loop(lower: int, upper: Any, body_fun: Callable[[Any, Any], Any], init: Any) -> Any:
    """state = body_fun(i, state) for i from lower to upper - 1; i is on the backend of the first tensor among lower, upper and init.

    >>> md.fori_loop(0, 4, lambda i, s: s + i, md.tensor(0)).item()
    6
    """
    from minidl.ops import arange, asarray

    like = next((t for t in tree.leaves((lower, upper, init)) if isinstance(t, Tensor)), None)
    place: Any = {} if like is None else {"backend": like.backend, "device": like.device}
    if isinstance(lower, int) and isinstance(upper, int):
        return scan(lambda c, i: (body_fun(i, c), ()), init, arange(lower, upper, **place))[0] if upper > lower else init
    start = asarray_here(lower) if state.interpreter is not None else asarray(lower, **place)
    return while_loop(lambda s: s[0] < upper, lambda s: (s[0] + 1, body_fun(s[0], s[1])), (start, init))[1]


# ---- branches ---------------------------------------------------------------------------------------------------------------------------
def apply_cond(operands: Sequence[Tensor], params: dict[str, Any]) -> list[Tensor]:
    """The cond primitive on Tensors, with its derivatives."""
    branches = params["branches"]
    if not (state.grad and any(_node(t) is not None and t.dtype.inexact for t in operands)):
        return list(bind(table["cond"], operands, params))

    def vjp(ins: list[Tensor], outs: list[Tensor] | None, cts: list[Any]) -> list[Any]:
        wanted = [t.dtype.inexact for t in ins[1:]]
        backs = tuple(_vjp_graph(b, wanted) for b in branches)
        full = [c if c is not None else zeros_like(v) for c, v in zip(cts, branches[0].outputs, strict=True) if v.dtype.inexact]
        found = iter(apply_cond([*ins, *full], {"branches": backs}))
        return [None] + [next(found) if w else None for w in wanted]

    def jvp(ins: list[Tensor], tangents: list[Any]) -> list[Any]:
        moving = [t is not None for t in tangents[1:]]
        both = tuple(_jvp_graph(b, moving) for b in branches)
        found = apply_cond([*ins, *(t for t in tangents[1:] if t is not None)], {"branches": both})
        rest = iter(found[len(branches[0].outputs) :])
        return [next(rest) if v.dtype.inexact else None for v in branches[0].outputs]

    return _call("cond", operands, params, vjp, jvp)


def switch(index: Any, branches: Sequence[Callable[..., Any]], *operands: Any) -> Any:
    """Call branches[index](*operands), index being clipped to the valid range.

    Raises TypeError where branches return different structures, shapes or dtypes.

    >>> md.switch(1, [lambda x: x, lambda x: x * 10.0], md.tensor(2.0)).item()
    20.0
    """
    if state.interpreter is None:
        i = int(index)
        return branches[min(max(i, 0), len(branches) - 1)](*operands)
    return _switch("switch", asarray_here(index), branches, operands)


def _switch(name: str, index: Tensor, branches: Sequence[Callable[..., Any]], operands: Sequence[Any]) -> Any:
    given, structure = _tensors(tuple(operands))
    avals = [_aval(t) for t in given]
    traced = [_traced(name, lambda *xs, f=f: f(*tree.unflatten(structure, xs)), avals, (), loop=False) for f in branches]
    first = traced[0]
    changed = list({id(t): t for tr in traced for t in tr.written}.values())
    extra = list({id(t): t for tr in traced for t in (*tr.extra, *changed)}.values())
    graphs = []
    for tr in traced:
        if tr.structure != first.structure:
            raise TypeError(f"{name}: branches return different structures")
        plain = tr.outputs[len(tr.written) :]
        head = first.outputs[len(first.written) :]
        for a, b in zip(plain, head, strict=True):
            if tuple(a.shape) != tuple(b.shape) or a.dtype is not b.dtype:
                raise TypeError(f"{name}: branches return {describe(b)} and {describe(a)}; shapes and dtypes must agree")
        places = {id(t): v for t, v in zip((*tr.written, *tr.extra), (*tr.written_vars, *tr.extra_vars), strict=True)}
        rest = [places.get(id(t)) or Var(t.shape, t.dtype) for t in extra]
        final = {id(t): v for t, v in zip(tr.written, tr.outputs, strict=False)}
        after = [final.get(id(t), rest[[id(e) for e in extra].index(id(t))]) for t in changed]
        graphs.append(Graph([*tr.graph.inputs[: len(given)], *rest], tr.graph.equations, [*after, *plain], "branch"))
    outs = apply_cond([ns.cast(index, dtype=int64), *given, *extra], {"branches": tuple(graphs)})
    for t, v in zip(changed, outs, strict=False):
        t.assign(v)
    return tree.unflatten(first.structure, outs[len(changed) :])


def cond(pred: Any, true_fun: Callable[..., Any], false_fun: Callable[..., Any], *operands: Any) -> Any:
    """true_fun(*operands) if pred else false_fun(*operands), as part of the graph when traced.

    Raises TypeError for a predicate that is not one bool, and for branches whose results differ in structure, shapes or dtypes.

    >>> md.cond(md.tensor(True), lambda x: x + 1.0, lambda x: x - 1.0, md.tensor(1.0)).item()
    2.0
    """
    if state.interpreter is None:
        return true_fun(*operands) if _holds("cond: the predicate", pred, integers=True) else false_fun(*operands)
    flag = asarray_here(pred)
    _one_bool("cond: the predicate", flag, integers=True)
    return _switch("cond", flag, [false_fun, true_fun], operands)


# ---- batching ---------------------------------------------------------------------------------------------------------------------------
def _batched_graph(graph: Graph, size: int, batched: Sequence[bool], force: Sequence[bool]) -> tuple[Graph, list[bool]]:
    """The graph over a leading batch axis on the flagged inputs; outputs flagged in `force` are batched in any case."""
    t = Trace(state.interpreter)
    args = [Tensor(Var((size, *v.shape) if b else v.shape, v.dtype), t, v.dtype) for v, b in zip(graph.inputs, batched, strict=True)]
    with interpreting(t):
        level = Level(size, t, t.home)
        inside = [Tensor(Batched(a, b), level, a.dtype) for a, b in zip(args, batched, strict=True)]
        with interpreting(level), grad_mode(False):
            outs = [level.lift(o)[0] for o in run_graph(graph, inside)]
        flags = [o.mapped for o in outs]
        wide = []
        for o, f, must in zip(outs, flags, force, strict=True):
            inner = o.inner
            if must and not f:
                inner = ns.broadcast_to(inner, shape=(size, *inner.shape))
            wide.append(t.lift(inner)[0])
    t.closed = True
    return finish(t.equations, [a.payload for a in args], wide, graph.name), [f or m for f, m in zip(flags, force, strict=True)]


def _widen(call: Any, size: int, x: Any, batched: bool) -> Any:
    return x if batched else call("broadcast_to", x, shape=(size, *x.shape))


def _batch_scan(primitive: Any, call: Any, size: int, xs: Any, batched: Any, params: Any) -> Any:
    c, k = params["n_consts"], params["n_carry"]
    flags = [*batched[:c], *([True] * k), *batched[c + k :]]
    body, _ = _batched_graph(params["body"], size, flags, [True] * len(params["body"].outputs))
    given = []
    for i, (x, b) in enumerate(zip(xs, batched, strict=True)):
        if c <= i < c + k:
            x = _widen(call, size, x, b)
        elif b and i >= c + k:  # [B, T, ...] -> [T, B, ...]
            x = call("permute", x, axes=(1, 0, *range(2, len(x.shape))))
        given.append(x)
    outs = apply_scan(given, {**params, "body": body})
    return [o if i < k else call("permute", o, axes=(1, 0, *range(2, len(o.shape)))) for i, o in enumerate(outs)]


def _batch_while(primitive: Any, call: Any, size: int, xs: Any, batched: Any, params: Any) -> Any:
    """All lanes run until the last is done; a finished lane keeps its state."""
    a, b = params["n_cond"], params["n_body"]
    k = len(xs) - a - b
    test, _ = _batched_graph(params["cond"], size, [*batched[:a], *([True] * k)], [True])
    body, _ = _batched_graph(params["body"], size, [*batched[a : a + b], *([True] * k)], [True] * k)
    consts = list(xs[: a + b])

    def go_on(s: Any) -> Tensor:
        return ns.any(run_graph(test, [*consts[:a], *s])[0], axis=(0,), keepdims=False)

    def step(s: Any) -> Any:
        alive = run_graph(test, [*consts[:a], *s])[0]
        new = run_graph(body, [*consts[a:], *s])
        return [ns.where(ns.reshape(alive, shape=(size,) + (1,) * (v.ndim - 1)), n, v) for n, v in zip(new, s, strict=True)]

    start = [_widen(call, size, x, f) for x, f in zip(xs[a + b :], batched[a + b :], strict=True)]
    return while_loop(go_on, step, start)


def _batch_cond(primitive: Any, call: Any, size: int, xs: Any, batched: Any, params: Any) -> Any:
    force = [True] * len(params["branches"][0].outputs)
    wide = [_batched_graph(b, size, batched[1:], force)[0] for b in params["branches"]]
    if not batched[0]:
        return apply_cond(xs, {"branches": tuple(wide)})
    results = [run_graph(b, xs[1:]) for b in wide]  # lanes differ: compute every branch and select
    index = call("clip", xs[0], 0, len(wide) - 1)
    out = results[0]
    for i, r in enumerate(results[1:], 1):
        pick = call("eq", index, i)
        out = [call("where", call("reshape", pick, shape=(size,) + (1,) * (n.ndim - 1)), n, o) for n, o in zip(r, out, strict=True)]
    return out


LOOPS.update(scan=apply_scan, while_loop=apply_while, cond=apply_cond)
table["scan"].batch, table["while_loop"].batch, table["cond"].batch = _batch_scan, _batch_while, _batch_cond
