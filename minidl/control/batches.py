"""The batching rules of loops and branches: the same ones, over bodies with a batch axis."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from minidl.batching import Batched, Level
from minidl.context import grad_mode, interpreting, state
from minidl.control.bodies import run_graph
from minidl.control.branches import apply_cond
from minidl.control.loops import while_loop
from minidl.control.scans import apply_scan
from minidl.graph import Graph, Var
from minidl.tensors import Tensor, ns
from minidl.tracing import Trace, finish


def batched_graph(graph: Graph, size: int, batched: Sequence[bool], force: Sequence[bool]) -> tuple[Graph, list[bool]]:
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


def batch_scan(primitive: Any, call: Any, size: int, xs: Any, batched: Any, params: Any) -> Any:
    c, k = params["n_consts"], params["n_carry"]
    flags = [*batched[:c], *([True] * k), *batched[c + k :]]
    body, _ = batched_graph(params["body"], size, flags, [True] * len(params["body"].outputs))
    given = []
    for i, (x, b) in enumerate(zip(xs, batched, strict=True)):
        if c <= i < c + k:
            x = _widen(call, size, x, b)
        elif b and i >= c + k:  # [B, T, ...] -> [T, B, ...]
            x = call("permute", x, axes=(1, 0, *range(2, len(x.shape))))
        given.append(x)
    outs = apply_scan(given, {**params, "body": body})
    return [o if i < k else call("permute", o, axes=(1, 0, *range(2, len(o.shape)))) for i, o in enumerate(outs)]


def batch_while(primitive: Any, call: Any, size: int, xs: Any, batched: Any, params: Any) -> Any:
    """All lanes run until the last is done; a finished lane keeps its state."""
    a, b = params["n_cond"], params["n_body"]
    k = len(xs) - a - b
    test, _ = batched_graph(params["cond"], size, [*batched[:a], *([True] * k)], [True])
    body, _ = batched_graph(params["body"], size, [*batched[a : a + b], *([True] * k)], [True] * k)
    consts = list(xs[: a + b])

    def go_on(s: Any) -> Tensor:
        return ns.any(run_graph(test, [*consts[:a], *s])[0], axis=(0,), keepdims=False)

    def step(s: Any) -> Any:
        alive = run_graph(test, [*consts[:a], *s])[0]
        new = run_graph(body, [*consts[a:], *s])
        return [ns.where(ns.reshape(alive, shape=(size,) + (1,) * (v.ndim - 1)), n, v) for n, v in zip(new, s, strict=True)]

    start = [_widen(call, size, x, f) for x, f in zip(xs[a + b :], batched[a + b :], strict=True)]
    return while_loop(go_on, step, start)


def batch_cond(primitive: Any, call: Any, size: int, xs: Any, batched: Any, params: Any) -> Any:
    force = [True] * len(params["branches"][0].outputs)
    wide = [batched_graph(b, size, batched[1:], force)[0] for b in params["branches"]]
    if not batched[0]:
        return apply_cond(xs, {"branches": tuple(wide)})
    results = [run_graph(b, xs[1:]) for b in wide]  # lanes differ: compute every branch and select
    index = call("clip", xs[0], 0, len(wide) - 1)
    out = results[0]
    for i, r in enumerate(results[1:], 1):
        pick = call("eq", index, i)
        out = [call("where", call("reshape", pick, shape=(size,) + (1,) * (n.ndim - 1)), n, o) for n, o in zip(r, out, strict=True)]
    return out
