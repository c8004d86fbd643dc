"""cond and switch, and their derivatives: a branch over derived branches."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import minidl as md
from minidl.control.bodies import Traced, holds, one_bool, own, tensor, tensors
from minidl.extend import Primitive, Var, aval, batched_graph, define, describe, jvp_graph, ns, traced, vjp_graph, with_modules


def _derive(operands: Sequence[md.Tensor], live: Sequence[bool], params: dict[str, Any]) -> tuple[Any, ...]:
    branches, wanted = params["branches"], live[1:]

    def vjp(ins: list[md.Tensor], outs: list[md.Tensor] | None, cts: list[Any]) -> list[Any]:
        backs = tuple(vjp_graph(b, wanted, [c is not None for c in cts]) for b in branches)
        found = iter(_cond(*ins, *(c for c in cts if c is not None), branches=backs))
        return [None] + [next(found) if w else None for w in wanted]

    def jvp(ins: list[md.Tensor], tangents: list[Any]) -> list[Any]:
        moving = [t is not None for t in tangents[1:]]
        inexact = [v.dtype.inexact for v in branches[0].outputs]
        both = tuple(jvp_graph(b, moving, inexact) for b in branches)
        found = _cond(*ins, *(t for t in tangents[1:] if t is not None), branches=both)
        rest = iter(found[len(branches[0].outputs) :])
        return [next(rest) if i else None for i in inexact]

    return operands, params, vjp, jvp


def _batch(primitive: Primitive, call: Any, size: int, xs: Any, batched: Any, params: dict[str, Any]) -> Any:
    force = [True] * len(params["branches"][0].outputs)
    wide = [batched_graph(b, size, batched[1:], force)[0] for b in params["branches"]]
    if not batched[0]:
        made, n = [t for b in wide for t in b.captured], len(xs) - 1
        spare = [v for b in wide for v in b.inputs[n:]]
        return _cond(*xs, *made, branches=tuple(md.Graph([*b.inputs[:n], *spare], b.equations, b.outputs, b.name) for b in wide))
    results = [b(*xs[1:], *b.captured) for b in wide]  # lanes differ: compute every branch and select
    index = call("clip", xs[0], 0, len(wide) - 1)
    out = results[0]
    for i, r in enumerate(results[1:], 1):
        pick = call("eq", index, i)
        out = tuple(call("where", call("reshape", pick, shape=(size,) + (1,) * (n.ndim - 1)), n, o) for n, o in zip(r, out, strict=True))
    return out


_cond = define(
    Primitive(
        "cond", "*operands", "branches",
        infer=lambda *ops, branches: tuple((v.shape, v.dtype) for v in branches[0].outputs), batch=_batch, multiple=True, promote="none",
    ),
    "minidl.control", _derive,
)  # fmt: skip


def switch(index: Any, branches: Sequence[Callable[..., Any]], *operands: Any) -> Any:
    """Call branches[index](*operands), index being clipped to the valid range. A Module among the operands is itself, as one that a branch finds.

    Raises TypeError where branches return different structures, shapes or dtypes.

    >>> md.switch(1, [lambda x: x, lambda x: x * 10.0], md.tensor(2.0)).item()
    20.0
    """
    if not traced():
        i = int(index)
        f, operands = with_modules(branches[min(max(i, 0), len(branches) - 1)], operands)
        return own(f(*own(operands)))
    return _switch("switch", tensor(index), branches, operands)


def _switch(name: str, index: md.Tensor, branches: Sequence[Callable[..., Any]], operands: tuple[Any, ...]) -> Any:
    branches, (*_, rest) = zip(*(with_modules(f, operands) for f in branches), strict=True)
    given, structure = tensors(rest)
    avals = [aval(t) for t in given]
    bodies = [Traced(name, lambda *xs, f=f: f(*md.tree.unflatten(structure, xs)), avals, (), loop=False) for f in branches]
    first = bodies[0]
    changed = list({id(t): t for tr in bodies for t in tr.written}.values())
    extra = list({id(t): t for tr in bodies for t in (*tr.extra, *changed)}.values())
    graphs = []
    for tr in bodies:
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
        graphs.append(md.Graph([*tr.graph.inputs[: len(given)], *rest], tr.graph.equations, [*after, *plain], "branch"))
    outs = _cond(ns.cast(index, dtype=md.int64), *given, *extra, branches=tuple(graphs))
    first.body.store(outs[: len(changed)], *(tr.body for tr in bodies[1:]))
    return md.tree.unflatten(first.structure, outs[len(changed) :])


def cond(pred: Any, true_fun: Callable[..., Any], false_fun: Callable[..., Any], *operands: Any) -> Any:
    """true_fun(*operands) if pred else false_fun(*operands), as part of the graph when traced. A Module among the operands is itself.

    Raises TypeError for a predicate that is not one bool, and for branches whose results differ in structure, shapes or dtypes.

    >>> md.cond(md.tensor(True), lambda x: x + 1.0, lambda x: x - 1.0, md.tensor(1.0)).item()
    2.0
    """
    if not traced():
        f, operands = with_modules(true_fun if holds("cond: the predicate", pred, integers=True) else false_fun, operands)
        return own(f(*own(operands)))
    flag = tensor(pred)
    one_bool("cond: the predicate", flag, integers=True)
    return _switch("cond", flag, [false_fun, true_fun], operands)
