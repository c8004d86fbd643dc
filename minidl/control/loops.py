"""while_loop and fori_loop, and their derivatives.

The reverse of a while loop of n trips keeps a stack of at most 64 states and re-runs at most n*log2(n) steps, bisecting between stored states
(A. Griewank, Achieving logarithmic growth of temporal and spatial complexity in reverse automatic differentiation, 1992); n is data.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from minidl import tree
from minidl.context import state
from minidl.control.bodies import Traced, applied, aval, bound, eager, holds, jvp_graph, node_of, own, run_graph, same, tensors, vjp_graph
from minidl.control.branches import cond
from minidl.control.reach import asked, moved
from minidl.control.scans import scan
from minidl.dtypes import bool_, int64
from minidl.graph import Equation, Graph, Literal, Var
from minidl.primitives import table
from minidl.tensors import Tensor, describe, ns
from minidl.tracing import asarray_here
from minidl.transforms import zeros_like

SLOTS = 64


def apply_while(operands: Sequence[Tensor], params: dict[str, Any]) -> list[Tensor]:
    """The while_loop primitive on Tensors, with its derivatives."""
    cond, body, n_cond, n_body = params["cond"], params["body"], params["n_cond"], params["n_body"]
    n = n_cond + n_body
    if not (state.grad and any(node_of(t) is not None and t.dtype.inexact for t in operands)):
        return bound("while_loop", operands, params)
    counting = _counting(cond, body, n_cond, n_body)
    k = len(operands) - n
    live = moved(body, n_body, k, [t.dtype.inexact and node_of(t) is not None for t in operands[n_cond:]])

    def vjp(ins: list[Tensor], outs: list[Tensor] | None, cts: list[Any]) -> list[Any]:
        outs = outs if outs is not None else list(_loop(ins, counting, n_cond, n_body))
        trips, carry, consts = outs[0], ins[n:], ins[n_cond:n]
        used = asked(body, n_body, k, live, cts[1:], idle=True)
        full = [c if c is not None else zeros_like(v) for c, v, u in zip(cts[1:], carry, used, strict=True) if u]
        const_live = [i for i in range(n_body) if live[i]]
        found = _reverse_while(body, consts, carry, trips, full, const_live, used)
        result: list[Any] = [None] * len(ins)
        for i, g in zip([n + i for i in range(k) if used[i]] + [n_cond + i for i in const_live], found, strict=True):
            result[i] = g
        return result

    def jvp(ins: list[Tensor], tangents: list[Any]) -> list[Any]:
        moving = moved(body, n_body, k, [t is not None for t in tangents[n_cond:]])
        body2 = jvp_graph(body, moving, moving[n_body:])
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

    outs = applied("while_loop", given, counting, vjp_counting, jvp_counting)
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


def _reverse_while(
    body: Graph, consts: list[Tensor], carry: list[Tensor], trips: Tensor, cts: list[Tensor], const_live: list[int], used: list[bool]
) -> list[Tensor]:
    """Cotangents of the used carry and of the live constants, by bisection between stored states."""
    b = len(consts)
    back = vjp_graph(body, [*(i in const_live for i in range(b)), *used], used)

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


def while_loop(cond_fun: Callable[[Any], Any], body_fun: Callable[[Any], Any], init: Any) -> Any:
    """Repeat body_fun(state) while cond_fun(state) is true; returns the last state, whose shapes and dtypes stay the same.

    Differentiable in both modes without a bound on the trips; in reverse, under jit, with a stack of 64 states and O(n log n) steps.
    Raises TypeError for a condition that is not one bool, RuntimeError where it changes a tensor.

    >>> md.while_loop(lambda x: x < 100.0, lambda x: x * 2.0, md.tensor(3.0)).item()
    192.0
    """
    carry, structure = tensors(init)
    if state.interpreter is None:
        now = own(tuple(carry))
        while holds("while_loop: the condition", cond_fun(tree.unflatten(structure, own(now)))):
            found, structure = tree.flatten(body_fun(tree.unflatten(structure, now)))
            now = own(tuple([eager(v) for v in found]))
            same("while_loop", carry, now)
        return tree.unflatten(structure, now)
    avals = [aval(t) for t in carry]
    body = Traced("while_loop", lambda *c: body_fun(tree.unflatten(structure, c)), avals, carry)
    test = Traced("while_loop", lambda *c: cond_fun(tree.unflatten(structure, c)), avals, ())
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


def fori_loop(lower: int, upper: Any, body_fun: Callable[[Any, Any], Any], init: Any, *, unroll: Any = None) -> Any:
    """state = body_fun(i, state) for i from lower to upper - 1; i is on the backend of the first tensor among lower, upper and init.
    unroll is accepted and changes nothing.

    >>> md.fori_loop(0, 4, lambda i, s: s + i, md.tensor(0)).item()
    6
    """
    from minidl.ops import arange, asarray

    like = next((t for t in tree.leaves((lower, upper, init)) if isinstance(t, Tensor)), None)
    place: Any = {} if like is None else {"backend": like.backend, "device": like.device}
    if isinstance(lower, int) and isinstance(upper, int):
        if upper <= lower:
            return own(init) if state.interpreter is None else init
        return scan(lambda c, i: (body_fun(i, c), ()), init, arange(lower, upper, **place))[0]
    start = asarray_here(lower) if state.interpreter is not None else asarray(lower, **place)
    return while_loop(lambda s: s[0] < upper, lambda s: (s[0] + 1, body_fun(s[0], s[1])), (start, init))[1]
