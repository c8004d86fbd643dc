"""cond and switch, and their derivatives: a branch over derived branches."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from minidl import tree
from minidl.context import state
from minidl.control.bodies import Traced, applied, aval, bound, holds, jvp_graph, node_of, one_bool, own, tensors, vjp_graph
from minidl.dtypes import int64
from minidl.graph import Graph, Var
from minidl.tensors import Tensor, assign_alone, describe, ns
from minidl.tracing import asarray_here
from minidl.transforms import with_modules


def apply_cond(operands: Sequence[Tensor], params: dict[str, Any]) -> list[Tensor]:
    """The cond primitive on Tensors, with its derivatives."""
    branches = params["branches"]
    wanted = [t.dtype.inexact and node_of(t) is not None for t in operands[1:]]
    if not (state.grad and any(wanted)):
        return bound("cond", operands, params)

    def vjp(ins: list[Tensor], outs: list[Tensor] | None, cts: list[Any]) -> list[Any]:
        backs = tuple(vjp_graph(b, wanted, [c is not None for c in cts]) for b in branches)
        found = iter(apply_cond([*ins, *(c for c in cts if c is not None)], {"branches": backs}))
        return [None] + [next(found) if w else None for w in wanted]

    def jvp(ins: list[Tensor], tangents: list[Any]) -> list[Any]:
        moving = [t is not None for t in tangents[1:]]
        inexact = [v.dtype.inexact for v in branches[0].outputs]
        both = tuple(jvp_graph(b, moving, inexact) for b in branches)
        found = apply_cond([*ins, *(t for t in tangents[1:] if t is not None)], {"branches": both})
        rest = iter(found[len(branches[0].outputs) :])
        return [next(rest) if i else None for i in inexact]

    return applied("cond", operands, params, vjp, jvp)


def switch(index: Any, branches: Sequence[Callable[..., Any]], *operands: Any) -> Any:
    """Call branches[index](*operands), index being clipped to the valid range. A Module among the operands is itself, as one that a branch finds.

    Raises TypeError where branches return different structures, shapes or dtypes.

    >>> md.switch(1, [lambda x: x, lambda x: x * 10.0], md.tensor(2.0)).item()
    20.0
    """
    if state.interpreter is None:
        i = int(index)
        f, operands = with_modules(branches[min(max(i, 0), len(branches) - 1)], operands)
        return own(f(*own(operands)))
    return _switch("switch", asarray_here(index), branches, operands)


def _switch(name: str, index: Tensor, branches: Sequence[Callable[..., Any]], operands: tuple[Any, ...]) -> Any:
    branches, (*_, rest) = zip(*(with_modules(f, operands) for f in branches), strict=True)
    given, structure = tensors(rest)
    avals = [aval(t) for t in given]
    traced = [Traced(name, lambda *xs, f=f: f(*tree.unflatten(structure, xs)), avals, (), loop=False) for f in branches]
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
    moved = {id(t) for tr in traced for t in tr.written if id(t) not in tr.still()}
    for t, v in zip(changed, outs, strict=False):
        assign_alone(t, v if id(t) in moved else v.detach())
    return tree.unflatten(first.structure, outs[len(changed) :])


def cond(pred: Any, true_fun: Callable[..., Any], false_fun: Callable[..., Any], *operands: Any) -> Any:
    """true_fun(*operands) if pred else false_fun(*operands), as part of the graph when traced. A Module among the operands is itself.

    Raises TypeError for a predicate that is not one bool, and for branches whose results differ in structure, shapes or dtypes.

    >>> md.cond(md.tensor(True), lambda x: x + 1.0, lambda x: x - 1.0, md.tensor(1.0)).item()
    2.0
    """
    if state.interpreter is None:
        f, operands = with_modules(true_fun if holds("cond: the predicate", pred, integers=True) else false_fun, operands)
        return own(f(*own(operands)))
    flag = asarray_here(pred)
    one_bool("cond: the predicate", flag, integers=True)
    return _switch("cond", flag, [false_fun, true_fun], operands)
