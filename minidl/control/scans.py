"""scan and map, and the derivatives of scan, which are scans themselves."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from itertools import compress
from typing import Any

import minidl as md
from minidl import Graph, Tensor, tree
from minidl.control.bodies import Traced, own, same, tensor, tensors, widened
from minidl.control.halves import Split, split_body
from minidl.control.reach import asked, moved
from minidl.extend import Body, Primitive, at_once, aval, batched_graph, define, describe, jvp_graph, ns, settings, traced, using


def _pair(out: Any) -> tuple[Any, Any]:
    """What a step returned, if it is two things."""
    if not isinstance(out, tuple) or len(out) != 2:
        raise TypeError("scan: the function must return (carry, y)")
    return out


def _derive(operands: Sequence[Tensor], live: Sequence[bool], params: dict[str, Any]) -> tuple[Any, ...]:
    body, n_consts, n_carry = params["body"], params["n_consts"], params["n_carry"]
    length, reverse = params["length"], params["reverse"]
    live = moved(body, n_consts, n_carry, live)
    n_out = len(body.outputs)

    def split(cts: Sequence[Any], first: Split | None = None) -> Split:
        used = asked(body, n_consts, n_carry, live, cts, idle=not length)
        key = ("scan", tuple(live), tuple(used), n_consts, n_carry, length > 1, settings())
        if key not in body.cache:
            body.cache[key] = split_body(body, n_consts, n_carry, live, used, length > 1, first)
        return body.cache[key]

    *_, transposing = settings()
    whole = None if transposing is None else split(body.outputs)  # then first, when functions of rules have another derivative
    x_live = [i for i in range(n_consts + n_carry, len(operands)) if live[i]]

    def vjp(ins: list[Tensor], outs: list[Tensor] | None, cts: list[Any]) -> list[Any]:
        forward, backward, (some_consts, some_stacked, some_xs), summed, totals, stacks, used, *_ = split(cts, whole)
        outs = outs if outs is not None and whole is not None and forward is whole.forward else _scan(*ins, **{**params, "body": forward})
        full = [c if c is not None else md.zeros_like(o) for c, o, u in zip(cts, outs[:n_out], used, strict=True) if u]
        carry = [n_consts + i for i in range(n_carry) if used[i]]
        k, xs, stacked = len(carry), ins[n_consts + n_carry :], outs[n_out:]
        given = [
            *(ins[i] for i in some_consts),
            *full[:k],
            *(md.zeros_like(ins[i]) for i in summed),
            *full[k:],
            *(stacked[i] for i in some_stacked),
            *(xs[i] for i in some_xs),
        ]
        more = {"body": backward, "length": length, "n_consts": len(some_consts), "n_carry": k + len(summed), "reverse": not reverse}
        found = _scan(*given, **more)
        ys = found[k + len(summed) :]
        stack = dict(zip(stacks, [*xs, *stacked, *full[k:], *ys], strict=True))
        result: list[Any] = [None] * len(ins)
        for i, g in zip([*carry, *summed, *x_live], [*found[: k + len(summed)], *ys[: len(x_live)]], strict=True):
            result[i] = g
        for i, total in totals.items():
            result[i] = total(stack)
        return result

    def jvp(ins: list[Tensor], tangents: list[Any]) -> list[Any]:
        n = len(ins)
        moving = moved(body, n_consts, n_carry, [t is not None for t in tangents])
        out = [*moving[n_consts : n_consts + n_carry], *(v.dtype.inexact for v in body.outputs[n_carry:])]
        body2 = jvp_graph(body, moving, out)
        order = [*range(n), *(i for i in range(n) if moving[i])]
        ts = [tangents[i] if tangents[i] is not None else md.zeros_like(ins[i]) for i in range(n) if moving[i]]
        return _interleaved_scan(body, body2, ins, ts, order, out, params)

    return operands, params if whole is None else {**params, "body": whole.forward}, vjp, jvp


def _interleaved_scan(
    body: Graph, body2: Graph, ins: list[Tensor], ts: list[Tensor], order: list[int], out: list[bool], params: dict[str, Any]
) -> list[Any]:
    """Run the jvp body: its inputs and outputs are put in the order consts, carry, xs / carry, ys that scan wants."""
    n_consts, n_carry = params["n_consts"], params["n_carry"]

    def group(i: int) -> int:
        return 0 if i < n_consts else 1 if i < n_consts + n_carry else 2

    position = sorted(range(len(order)), key=lambda k: (group(order[k]), k))
    out_floats = [*compress(range(len(out)), out)]
    outs = [*range(len(body.outputs)), *out_floats]
    out_position = sorted(range(len(outs)), key=lambda k: (outs[k] >= n_carry, k))
    key = ("ordered", tuple(position), tuple(out_position))
    if key not in body2.cache:
        body2.cache[key] = Graph([body2.inputs[k] for k in position], body2.equations, [body2.outputs[k] for k in out_position], "body")
    given = [*ins, *ts]
    counts = [sum(group(order[k]) == g for k in range(len(order))) for g in (0, 1)]
    found = _scan(*(given[k] for k in position), **{**params, "body": body2.cache[key], "n_consts": counts[0], "n_carry": counts[1]})
    place = {k: j for j, k in enumerate(out_position)}
    tangents: list[Any] = [None] * len(body.outputs)
    for j, i in enumerate(out_floats):
        tangents[i] = found[place[len(body.outputs) + j]]
    return tangents


def _batch(primitive: Primitive, call: Any, size: int, xs: Any, batched: Any, params: dict[str, Any]) -> Any:
    c, k = params["n_consts"], params["n_carry"]
    flags = [*batched[:c], *([True] * k), *batched[c + k :]]
    body, _ = batched_graph(params["body"], size, flags, [True] * len(params["body"].outputs))
    made, given = body.captured, list[Any]()
    for i, (x, b) in enumerate(zip(xs, batched, strict=True)):
        if c <= i < c + k:
            x = widened(call, size, x, b)
        elif b and i >= c + k:  # [B, T, ...] -> [T, B, ...]
            x = call("permute", x, axes=(1, 0, *range(2, len(x.shape))))
        given.append(x)
    inputs, n = body.inputs, len(xs)
    body = Graph([*inputs[:c], *inputs[n:], *inputs[c:n]], body.equations, body.outputs, body.name)
    outs = _scan(*given[:c], *made, *given[c:], **{**params, "body": body, "n_consts": c + len(made)})
    return [o if i < k else call("permute", o, axes=(1, 0, *range(2, len(o.shape)))) for i, o in enumerate(outs)]


def _infer(*operands: Any, body: Any, length: int, n_consts: int, n_carry: int, reverse: bool) -> Any:
    carry = tuple((v.shape, v.dtype) for v in body.outputs[:n_carry])
    return (*carry, *(((length, *v.shape), v.dtype) for v in body.outputs[n_carry:]))


_scan = define(
    Primitive("scan", "*operands", "body length n_consts n_carry reverse", infer=_infer, batch=_batch, multiple=True, promote="none"),
    "minidl.control", _derive,
)  # fmt: skip


def scan(f: Callable[..., Any], init: Any, xs: Any = None, length: int | None = None, reverse: bool = False, unroll: Any = 1) -> tuple[Any, Any]:
    """Carry a state through a sequence: f(carry, x) -> (carry, y); returns the last carry and the stacked ys.

    xs is a pytree of tensors with equal leading axes (or None, with length). The carry keeps its shapes and dtypes. Tracing takes the same time
    for any length; unroll, by which JAX trades that for speed, changes nothing.
    Raises TypeError where the carry changes, ValueError where lengths differ.

    >>> total, sums = md.scan(lambda c, x: (c + x, c + x), md.tensor(0.0), md.tensor([1.0, 2.0, 3.0]))
    >>> total.item(), sums.tolist()
    (6.0, [1.0, 3.0, 6.0])
    """
    carry, c_structure = tensors(init)
    seq, x_structure = tensors(xs)
    lengths = {t.shape[0] if t.shape else None for t in seq} | ({length} if length is not None else set())
    if len(lengths) != 1 or None in lengths:
        raise ValueError(f"scan: leading axes of xs and length must agree, got {', '.join(describe(t) for t in seq) or 'no xs'} and length={length}")
    (n,) = lengths
    if not traced() and n == 0:  # what one step would return says what no step returns
        step = Body(
            lambda *a: f(tree.unflatten(c_structure, a[: len(carry)]), tree.unflatten(x_structure, a[len(carry) :])),
            [aval(t) for t in carry] + [(t.shape[1:], t.dtype) for t in seq],
        )
        with using(given[0].xp) if (given := carry + seq) else contextlib.nullcontext():
            ys = [ns.full(shape=(0, *v.shape), value=0, dtype=v.dtype) for v in step.graph.outputs[len(carry) :]]
        return tree.unflatten(c_structure, own(tuple(carry))), tree.unflatten(step.structure.children[1], ys)
    if not traced():
        return _python_scan(f, carry, c_structure, seq, x_structure, int(n), reverse)  # type: ignore[arg-type]
    k = len(carry)

    def body(*args: Tensor) -> Any:
        return _pair(f(tree.unflatten(c_structure, args[:k]), tree.unflatten(x_structure, args[k:])))

    made = Traced("scan", body, [aval(t) for t in carry] + [(t.shape[1:], t.dtype) for t in seq], carry)
    y_structure = made.structure.children[1]
    w = len(made.written)
    graph = Graph([*made.extra_vars, *made.written_vars, *made.graph.inputs[: k + len(seq)]], made.graph.equations, made.outputs, "body")
    params = {"body": graph, "length": n, "n_consts": len(made.extra), "n_carry": k + w, "reverse": reverse}
    outs = _scan(*made.extra, *made.written, *carry, *seq, **params)
    made.body.store(outs[:w])
    return tree.unflatten(c_structure, outs[w : w + k]), tree.unflatten(y_structure, outs[w + k :])


def loop(step: Callable[[Any, Any, Any], tuple[Any, Any]]) -> Callable[..., tuple[Any, Any]]:
    """md.scan of `step(constants, carry, x) -> (carry, y)`, which reads nothing but its arguments, as `run(constants, init, xs, reverse=False)`.

    Nobody's Python is in such a step, so it is traced once for each kind of arguments in eager code too, where the backend compiles at once; the loop
    is then one node of the tape. xs has at least one tensor. Indices from data are not checked in the step, as under jit. Raises as md.scan does,
    ValueError for xs without a tensor.

    >>> run = md.control.loop(lambda decay, total, x: (total * decay + x, total))
    >>> last, before = run(md.tensor(0.5), md.tensor(0.0), md.tensor([1.0, 2.0, 3.0]))
    >>> last.item(), before.tolist()
    (4.25, [0.0, 1.0, 2.5])
    """
    bodies: dict[Any, tuple[Graph, Any] | None] = {}

    def run(constants: Any, init: Any, xs: Any, reverse: bool = False) -> tuple[Any, Any]:
        parts = [tree.flatten(v) for v in (constants, init, xs)]
        (consts, _), (carry, c_structure), (seq, _) = parts
        operands = [*consts, *carry, *seq]
        if not seq:
            raise ValueError("loop: xs has no tensor, whose leading axis says how many steps there are; md.scan takes a length")
        xp = getattr(seq[0], "xp", None)
        usual = at_once() and all(isinstance(t, Tensor) and t.xp is xp for t in operands)
        if usual and hasattr(xp, "asarray") and len({t.shape[:1] for t in seq}) == 1 and all(seq[0].shape[:1]):
            fixed = operands[: len(consts) + len(carry)]
            key = xp, md.is_grad_enabled(), settings(), *(s for _, s in parts), *(aval(t) for t in fixed), *((t.shape[1:], t.dtype) for t in seq)
            if key not in bodies:
                if len(bodies) > 255:
                    bodies.clear()
                bodies[key] = _body(step, parts, xp)
            found = bodies[key]
            if found is not None:
                n = {"length": seq[0].shape[0], "n_consts": len(consts), "n_carry": len(carry)}
                outs = _scan(*operands, body=found[0], **n, reverse=reverse)
                return tree.unflatten(c_structure, outs[: len(carry)]), tree.unflatten(found[1], outs[len(carry) :])
        return scan(lambda now, x: step(constants, now, x), init, xs, reverse=reverse)

    return run


def _body(step: Any, parts: list[tuple[list[Tensor], Any]], xp: Any) -> tuple[Graph, Any] | None:
    """A step of loop as a graph, and the structure of what it gives besides the carry; None where it runs in Python."""
    ends = len(parts[0][0]), len(parts[0][0]) + len(parts[1][0])

    def body(*args: Tensor) -> Any:
        given = args[: ends[0]], args[ends[0] : ends[1]], args[ends[1] :]
        return _pair(step(*(tree.unflatten(s, list(g)) for (_, s), g in zip(parts, given, strict=True))))

    avals = [*(aval(t) for leaves, _ in parts[:2] for t in leaves), *((t.shape[1:], t.dtype) for t in parts[2][0])]
    with using(xp):
        made = Traced("scan", body, avals, parts[1][0], loop=False)
    if made.extra or made.written or xp.expected(made.graph):
        return None
    return made.graph, made.structure.children[1]


def _python_scan(f: Any, carry: list[Tensor], cs: Any, seq: list[Tensor], xs: Any, n: int, reverse: bool) -> tuple[Any, Any]:
    state_now, ys, rows = tree.unflatten(cs, own(tuple(carry))), [], [own(md.unstack(t)) for t in seq]
    for i in reversed(range(n)) if reverse else range(n):
        after, y = _pair(f(state_now, tree.unflatten(xs, [row[i] for row in rows])))
        state_now = own(after)
        ys.append(own(y))
    same("scan", carry, tree.leaves(state_now))
    if reverse:
        ys.reverse()
    return state_now, tree.map(lambda *row: md.stack([tensor(v) for v in row]), *ys)


def map(f: Callable[..., Any], xs: Any) -> Any:
    """Apply f to each element along the leading axis, one after the other (scan without a carry; md.vmap does all at once).

    >>> md.map(lambda x: x * x, md.tensor([1.0, 2.0])).tolist()
    [1.0, 4.0]
    """
    return scan(lambda c, x: ((), f(x)), (), xs)[1]
