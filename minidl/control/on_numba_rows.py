"""numba: the rows of a loop, and whether each of what it carries is computed from the same row of what it reads, so that parts of a batch run by
themselves.

Rows lie along the first axis, as batches do. Promises: `fewer` returns a body that computes, of the rows that it is given, what the whole body
computes of them; a body in which rows meet, or in which that cannot be told, has none.
"""

from __future__ import annotations

from typing import Any

from minidl.graph import Equation, Graph, Var


def fewer(body: Graph, n_consts: int, n_carry: int, parts: int, least: int) -> tuple[Graph, list[bool], list[bool]] | None:
    """The body on one of so many equal parts of its rows, of at least so many each, and which of its inputs and outputs have rows; None where it
    cannot be divided."""
    carry = body.inputs[n_consts : n_consts + n_carry]
    for n in sorted({v.shape[0] for v in carry if v.shape and v.shape[0] >= parts * least and v.shape[0] % parts == 0}):
        on = {v for v in body.inputs[n_consts:] if v.shape[:1] == (n,)}
        while (found := _spread(body, on, n)) is not None:
            if found is on:  # nobody asks for more
                ins, outs = [v in on for v in body.inputs], [v in on for v in body.outputs]
                if ins[n_consts : n_consts + n_carry] != outs[:n_carry]:
                    break
                return _smaller(body, on, n // parts), ins, outs
            on = found
    return None


def _spread(body: Graph, start: set[Var], n: int) -> set[Var] | None:
    """What has rows where these have: the same set, grown, or what it must start with besides; None where rows meet."""
    on, free = {*start}, {*body.inputs, *(e.outputs[0] for e in body.equations if _alike(e))}
    for e in body.equations:
        if not any(a in on for a in e.inputs):
            continue
        wants = _wants(e, n)
        if wants is None or any(a in on and not w for a, w in zip(e.inputs, wants, strict=True)):
            return None
        missing = {a for a, w in zip(e.inputs, wants, strict=True) if w and a not in on}
        if missing:
            return start | missing if missing <= free else None  # type: ignore[operator]
        on.update(e.outputs)
    start.update(on)
    return start


def _alike(e: Equation) -> bool:
    """Whether any number of rows can be made, one like the other."""
    if e.primitive.name == "broadcast_to":
        (x,), shape = e.inputs, e.params["shape"]
        return len(x.shape) < len(shape) or x.shape[0] == 1
    return e.primitive.name == "full"


def _wants(e: Equation, n: int) -> list[bool] | None:
    """Which operands have rows where the result's rows are theirs, n of them; None where they are not, or that is not known."""
    (out, *more), p, name, first = e.outputs, e.params, e.primitive.name, (n,)
    if more or out.shape[:1] != first:
        return None
    every = [True] * len(e.inputs) if all(a.shape[:1] == first for a in e.inputs) else None
    if e.primitive.elementwise or name in ("broadcast_to", "copy", "barrier"):
        return [len(a.shape) == len(out.shape) and a.shape[:1] == first for a in e.inputs]
    if name == "dot_general":
        (cx, _), (bx, by) = p["contract"], p["batch"]
        return every if bx and bx[0] == by[0] == 0 else [True, False] if not bx and 0 not in cx else None
    if name == "pad":
        return every if tuple(p["widths"][0]) == (0, 0) else None
    if name in ("slice", "unslice"):
        return every if (p["start"][0], p["stop"][0], p["step"][0]) == (0, n, 1) else None
    if name == "permute":
        return every if p["axes"][0] == 0 else None
    if name == "reshape":
        return every
    axis = p.get("axis", 0)  # each other axis stays what it was
    return every if 0 not in (axis if isinstance(axis, tuple) else (axis,)) else None


def _smaller(body: Graph, on: set[Var], n: int) -> Graph:
    """The body with n rows in what has rows."""
    new: dict[Any, Any] = {v: Var((n, *v.shape[1:]), v.dtype) for v in on}
    get = lambda atoms: tuple(new.get(a, a) for a in atoms)
    equations = []
    for e in body.equations:
        params: dict[str, Any] = e.params
        if e.outputs[0] in on:
            params = {k: (n, *v[1:]) if k in ("shape", "stop") else v for k, v in params.items()}
        equations.append(Equation(e.primitive, get(e.inputs), params, get(e.outputs), e.where))
    return Graph(get(body.inputs), equations, get(body.outputs), body.name)


def transposed(body: Graph, consts: int) -> tuple[Graph, list[bool]]:
    """The body with the transposes of those constants that it reads as the second matrix of products alone, by columns, and which these are."""
    reads: dict[Any, list[bool]] = {v: [] for v in body.inputs[:consts] if len(v.shape) == 2}
    for e in body.equations:
        by_columns = e.primitive.name == "dot_general" and e.params["contract"][1] == (1,) and not e.params["batch"][0]
        for k, a in enumerate(e.inputs):
            if a in reads:
                reads[a].append(by_columns and k == 1)
    new = {v: Var(v.shape[::-1], v.dtype) for v, found in reads.items() if found and all(found) and v not in body.outputs}
    equations = []
    for e in body.equations:
        if len(e.inputs) == 2 and e.inputs[1] in new:
            x, y = e.inputs
            e = Equation(e.primitive, (x, new[y]), {**e.params, "contract": (e.params["contract"][0], (0,))}, e.outputs, e.where)  # type: ignore[index]
        equations.append(e)
    return Graph([new.get(v, v) for v in body.inputs], equations, body.outputs, body.name), [v in new for v in body.inputs[:consts]]
