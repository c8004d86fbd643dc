"""while_loop and fori_loop, and their derivatives.

The reverse of a while loop of n trips keeps a stack of at most 64 states and re-runs at most n*log2(n) steps, bisecting between stored states
(A. Griewank, Achieving logarithmic growth of temporal and spatial complexity in reverse automatic differentiation, 1992); n is data.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import minidl as md
from minidl import Graph, Tensor, int64, tree
from minidl.control.bodies import Traced, holds, own, same, tensor, tensors, widened
from minidl.control.branches import cond
from minidl.control.reach import asked, moved
from minidl.control.scans import scan
from minidl.extend import Equation, Literal, Primitive, Var, aval, batched_graph, define, describe, jvp_graph, ns, operand, table, traced, vjp_graph

SLOTS = 64


def _derive(operands: Sequence[Tensor], live: Sequence[bool], params: dict[str, Any]) -> tuple[Any, ...]:
    """The derivatives are those of the loop that counts its trips besides, in the last place of its carry."""
    cond, body, n_cond, n_body = params["cond"], params["body"], params["n_cond"], params["n_body"]
    n, k = n_cond + n_body, len(operands) - n_cond - n_body
    live = moved(body, n_body, k, live[n_cond:])
    counting = _counting(cond, body, n_cond, n_body)

    def vjp(ins: list[Tensor], outs: list[Tensor] | None, cts: list[Any]) -> list[Any]:
        trips, carry, consts = (outs or _while(*ins, **counting))[k], ins[n : n + k], ins[n_cond:n]
        used = asked(body, n_body, k, live, cts, idle=True)
        full = [c if c is not None else md.zeros_like(v) for c, v, u in zip(cts, carry, used, strict=True) if u]
        const_live = [i for i in range(n_body) if live[i]]
        found = _reverse_while(body, consts, carry, trips, full, const_live, used)
        result: list[Any] = [None] * len(ins)
        for i, g in zip([n + i for i in range(k) if used[i]] + [n_cond + i for i in const_live], found, strict=True):
            result[i] = g
        return result

    def jvp(ins: list[Tensor], tangents: list[Any]) -> list[Any]:
        moving = moved(body, n_body, k, [t is not None for t in tangents[n_cond : n + k]])
        body2 = jvp_graph(body, moving, moving[n_body:])
        ts = [tangents[n_cond + i] if tangents[n_cond + i] is not None else md.zeros_like(ins[n_cond + i]) for i, m in enumerate(moving) if m]
        tc = sum(moving[:n_body])
        floats = [i for i in range(k) if moving[n_body + i]]
        m = n_body + k
        inputs = [*body2.inputs[:n_body], *body2.inputs[m : m + tc], *body2.inputs[n_body:m], *body2.inputs[m + tc :]]
        both = Graph(inputs, body2.equations, body2.outputs, "body")
        spare = [Var(v.shape, v.dtype) for v in body2.inputs[m + tc :]]
        cond2 = Graph([*cond.inputs, *spare], cond.equations, cond.outputs, "condition")
        found = _while(*ins[:n], *ts[:tc], *ins[n : n + k], *ts[tc:], cond=cond2, body=both, n_cond=n_cond, n_body=n_body + tc)
        out: list[Any] = [None] * k
        for j, i in enumerate(floats):
            out[i] = found[k + j]
        return out

    return [*operands, ns.full(shape=(), value=0, dtype=int64)], counting, vjp, jvp


def _counting(cond: Graph, body: Graph, n_cond: int, n_body: int) -> dict[str, Any]:
    """The same loop with the number of trips as its last carry."""
    key = ("counting", id(cond), n_cond)
    if key not in body.cache:
        count, after = Var((), int64), Var((), int64)
        step = Equation(table["add"], (count, Literal(1, int64)), {}, (after,))
        cond2 = Graph([*cond.inputs, Var((), int64)], cond.equations, cond.outputs, "condition")
        body2 = Graph([*body.inputs, count], [*body.equations, step], [*body.outputs, after], "body")
        body.cache[key] = ({"cond": cond2, "body": body2, "n_cond": n_cond, "n_body": n_body}, cond)
    return body.cache[key][0]


def _batch(primitive: Primitive, call: Any, size: int, xs: Any, batched: Any, params: dict[str, Any]) -> Any:
    """All lanes run until the last is done; a finished lane keeps its state."""
    a, b = params["n_cond"], params["n_body"]
    k = len(xs) - a - b
    test, _ = batched_graph(params["cond"], size, [*batched[:a], *([True] * k)], [True])
    body, _ = batched_graph(params["body"], size, [*batched[a : a + b], *([True] * k)], [True] * k)
    consts = list(xs[: a + b])

    def go_on(s: Any) -> Tensor:
        return ns.any(test(*consts[:a], *s, *test.captured)[0], axis=(0,), keepdims=False)

    def step(s: Any) -> Any:
        alive = test(*consts[:a], *s, *test.captured)[0]
        new = body(*consts[a:], *s, *body.captured)
        return [ns.where(ns.reshape(alive, shape=(size,) + (1,) * (v.ndim - 1)), n, v) for n, v in zip(new, s, strict=True)]

    start = [widened(call, size, x, f) for x, f in zip(xs[a + b :], batched[a + b :], strict=True)]
    return while_loop(go_on, step, start)


_while = define(
    Primitive(
        "while_loop", "*operands", "cond body n_cond n_body",
        infer=lambda *ops, cond, body, n_cond, n_body: tuple((v.shape, v.dtype) for v in body.outputs), batch=_batch, multiple=True, promote="none",
    ),
    "minidl.control", _derive,
)  # fmt: skip


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
            found = list(back(*consts, *here, *s["cts"]))
            sums = [ns.add(a, d) for a, d in zip(s["sums"], found[: len(const_live)], strict=True)]
            top = ns.maximum(ns.sub(s["top"], 1), 0)
            return {**s, "i": ns.sub(s["i"], 1), "top": top, "cts": found[len(const_live) :], "sums": sums}

        def advance() -> Any:
            middle = ns.floor_divide(ns.add(ns.add(at, s["i"]), 1), 2)
            _, moved = while_loop(lambda c: ns.lt(c[0], middle), lambda c: (ns.add(c[0], 1), list(body(*consts, *c[1]))), (at, here))
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
        "cts": list(cts), "sums": [md.zeros_like(consts[i]) for i in const_live],
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
    if not traced():
        now = own(tuple(carry))
        while holds("while_loop: the condition", cond_fun(tree.unflatten(structure, own(now)))):
            found, structure = tree.flatten(body_fun(tree.unflatten(structure, now)))
            now = own(tuple([tensor(v) for v in found]))
            same("while_loop", carry, now)
        return tree.unflatten(structure, now)
    avals = [aval(t) for t in carry]
    body = Traced("while_loop", lambda *c: body_fun(tree.unflatten(structure, c)), avals, carry)
    test = Traced("while_loop", lambda *c: cond_fun(tree.unflatten(structure, c)), avals, ())
    if test.written:
        raise RuntimeError("while_loop: the condition changed a tensor; only the body may")
    if len(test.graph.outputs) != 1 or test.graph.outputs[0].shape != () or test.graph.outputs[0].dtype is not md.bool:
        raise TypeError(f"while_loop: the condition must be one bool, not {', '.join(describe(v) for v in test.graph.outputs)}")
    k, w = len(carry), len(body.written)
    spare = [Var(v.shape, v.dtype) for v in body.written_vars]
    cond_graph = Graph([*test.extra_vars, *spare, *test.graph.inputs[:k]], test.graph.equations, test.graph.outputs, "condition")
    body_graph = Graph([*body.extra_vars, *body.written_vars, *body.graph.inputs[:k]], body.graph.equations, body.outputs, "body")
    params = {"cond": cond_graph, "body": body_graph, "n_cond": len(test.extra), "n_body": len(body.extra)}
    outs = _while(*test.extra, *body.extra, *body.written, *carry, **params)
    body.body.store(outs[:w])
    return tree.unflatten(structure, outs[w:])


def fori_loop(lower: int, upper: Any, body_fun: Callable[[Any, Any], Any], init: Any, *, unroll: Any = None) -> Any:
    """state = body_fun(i, state) for i from lower to upper - 1; i is on the backend of the first tensor among lower, upper and init.
    unroll is accepted and changes nothing.

    >>> md.fori_loop(0, 4, lambda i, s: s + i, md.tensor(0)).item()
    6
    """
    like = next((t for t in tree.leaves((lower, upper, init)) if isinstance(t, Tensor)), None)
    place: Any = {} if like is None else {"backend": like.backend, "device": like.device}
    if isinstance(lower, int) and isinstance(upper, int):
        if upper <= lower:
            return init if traced() else own(init)
        return scan(lambda c, i: (body_fun(i, c), ()), init, md.arange(lower, upper, **place))[0]
    start = operand(lower) if traced() else md.asarray(lower, **place)
    return while_loop(lambda s: s[0] < upper, lambda s: (s[0] + 1, body_fun(s[0], s[1])), (start, init))[1]
