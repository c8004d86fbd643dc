"""Attention, softmax(q kᵀ scale + mask) v over [..., length, width], and the gradient of q, k and v as one primitive.

The decompositions are the definitions. A row of the mask that is -inf all over gives 0 and passes no gradient, as softmax does; a mask without axes
is no mask. The second result is the log-sum-exp of each row of scores: for the gradient, which takes it and the first result as cached values of
the other arguments, so rules of second order compute them anew.

Sources: A. Vaswani et al., Attention is all you need (NeurIPS 2017); T. Dao et al., FlashAttention (NeurIPS 2022), for a gradient that keeps one
number a row instead of the weights.
"""

from __future__ import annotations

import math
from typing import Any

import minidl as md
from minidl import int64
from minidl.arrays.composites.primitives import HOME, full_batch, narrow, only_floats, statistics_dtype, wide
from minidl.extend import Primitive, define, describe


def _mm(xp: Any, x: Any, y: Any, contract: str) -> Any:
    """Products of the last two axes: "rows" of x with rows of y (x yᵀ), "columns" with columns (xᵀ y), or x y."""
    n = len(x.shape) - 2
    axes = {"rows": ((n + 1,), (n + 1,)), "columns": ((n,), (n,)), "": ((n + 1,), (n,))}[contract]
    return xp.dot_general(x, y, contract=axes, batch=(tuple(range(n)),) * 2)


def _rows(xp: Any, x: Any) -> Any:
    return xp.sum(x, axis=(len(x.shape) - 1,), keepdims=True)


def _scores(xp: Any, q: Any, k: Any, mask: Any, scale: float, causal: bool) -> Any:
    s = _mm(xp, q, k, "rows") * scale
    if getattr(mask, "shape", ()):
        s = s + mask
    if causal:
        rows, columns = s.shape[-2:]
        seen = xp.ge(xp.reshape(xp.iota(size=rows, dtype=int64), shape=(rows, 1)), xp.iota(size=columns, dtype=int64))
        s = xp.where(seen, s, -math.inf)
    return s


def _weights(xp: Any, q: Any, k: Any, mask: Any, scale: float, causal: bool) -> Any:
    s = _scores(xp, q, k, mask, scale, causal)
    return xp.softmax(s, axis=len(s.shape) - 1)


def _attention(xp: Any, q: Any, k: Any, v: Any, mask: Any, *, scale: float, causal: bool) -> tuple[Any, Any]:
    a, b, c, m = wide(xp, q, k, v, mask)
    s = _scores(xp, a, b, m, scale, causal)
    out = _mm(xp, xp.softmax(s, axis=len(s.shape) - 1), c, "")
    return narrow(xp, out, q), xp.logsumexp(s, axis=(len(s.shape) - 1,), keepdims=False)


def _softmax_moved(xp: Any, p: Any, t: Any) -> Any:
    """The Jacobian of softmax, a symmetric matrix, times t."""
    return p * (t - _rows(xp, p * t))


def _joined(xp: Any, *parts: Any) -> Any:
    """Arrays [..., m, n] side by side as one [..., sum of m n]."""
    return xp.concat(*(xp.reshape(x, shape=(*x.shape[:-2], x.shape[-2] * x.shape[-1])) for x in parts), axis=len(parts[0].shape) - 2)


def _parted(xp: Any, flat: Any, i: int, *like: Any) -> Any:
    """Number i of what _joined has joined."""
    lead, at = len(flat.shape) - 1, sum(shape[-2] * shape[-1] for shape in like[:i])
    start, stop = (*(0,) * lead, at), (*flat.shape[:-1], at + like[i][-2] * like[i][-1])
    return xp.reshape(xp.slice(flat, start=start, stop=stop, step=(1,) * (lead + 1)), shape=(*flat.shape[:-1], *like[i][-2:]))


def _attention_grad(xp: Any, g: Any, q: Any, k: Any, v: Any, mask: Any, o: Any, lse: Any, *, scale: float, causal: bool) -> Any:
    d, a, b, c, m = wide(xp, g, q, k, v, mask)
    p = _weights(xp, a, b, m, scale, causal)
    ds = _softmax_moved(xp, p, _mm(xp, d, c, "rows")) * scale
    return narrow(xp, _joined(xp, _mm(xp, ds, b, ""), _mm(xp, ds, a, "columns"), _mm(xp, p, d, "columns")), q)


def _infer_attention(q: Any, k: Any, v: Any, mask: Any, *, scale: float, causal: bool) -> Any:
    only_floats("attention", q)
    lead, rows, width = tuple(q.shape[:-2]), q.shape[-2], q.shape[-1]
    fits = len(q.shape) == len(k.shape) == len(v.shape) >= 2 and k.shape[:-1] == v.shape[:-1]
    if not (fits and k.shape[:-2] == lead and k.shape[-1] == width):
        came = ", ".join(map(describe, (q, k, v)))
        raise ValueError(f"attention: q, k, v {came}; [..., L, E], [..., S, E] and [..., S, V] with equal leading axes are wanted")
    if md.broadcast_shapes(tuple(mask.shape), (*lead, rows, k.shape[-2])) != (*lead, rows, k.shape[-2]):
        raise ValueError(f"attention: mask {describe(mask)} does not broadcast to {(*lead, rows, k.shape[-2])}")
    return ((*lead, rows, v.shape[-1]), q.dtype), ((*lead, rows), statistics_dtype(q.dtype))


def _batch_attention(primitive: Primitive, call: Any, size: int, xs: Any, batched: Any, params: Any) -> Any:
    """Leading axes are free, so the batch axis is one more; a mask without it broadcasts."""
    at = primitive.args.index("mask")
    full = full_batch(call, size, xs[:at], batched[:at])
    mask = xs[at]
    if batched[at]:
        mask = call("reshape", mask, shape=(size, *(1,) * (len(full[0].shape) - len(mask.shape)), *mask.shape[1:]))
    return call(primitive.name, *full, mask, *full_batch(call, size, xs[at + 1 :], batched[at + 1 :]), **params)


def _tangent(
    xp: Any, q: Any, k: Any, v: Any, mask: Any, scale: float, causal: bool, dq: Any = None, dk: Any = None, dv: Any = None, dm: Any = None
) -> Any:
    p = _weights(xp, q, k, mask, scale, causal)
    if dv is not None:
        return _mm(xp, p, dv, "")
    return _mm(xp, _softmax_moved(xp, p, _scores_moved(xp, q, k, scale, dq, dk, dm)), v, "")


def _scores_moved(xp: Any, q: Any, k: Any, scale: float, dq: Any = None, dk: Any = None, dm: Any = None) -> Any:
    parts = [] if dq is None else [_mm(xp, dq, k, "rows") * scale]
    parts += [] if dk is None else [_mm(xp, q, dk, "rows") * scale]
    parts += [] if dm is None else [dm]
    return parts[0] if len(parts) == 1 else parts[0] + parts[1]


def _mask_grad(xp: Any, g: Any, q: Any, k: Any, v: Any, mask: Any, mask_shape: Any, scale: float, causal: bool) -> Any:
    ds = _softmax_moved(xp, _weights(xp, q, k, mask, scale, causal), _mm(xp, g, v, "rows"))
    return _of_mask(xp, ds, mask_shape)


def _of_mask(xp: Any, scores: Any, shape: Any) -> Any:
    """The cotangent of a mask of this shape: that of the scores, summed over the axes along which it was broadcast."""
    lead = len(scores.shape) - len(shape)
    axes = (*range(lead), *(lead + i for i, n in enumerate(shape) if n == 1 != scores.shape[lead + i]))
    summed = xp.sum(scores, axis=axes, keepdims=False) if axes else scores
    return summed if tuple(summed.shape) == tuple(shape) else xp.reshape(summed, shape=tuple(shape))


def _part(i: int) -> Any:
    return lambda xp, g, shared, q_shape, k_shape, v_shape: _parted(xp, shared, i, q_shape, k_shape, v_shape)


attention = define(Primitive(
    "attention", "q k v mask", "scale causal", infer=_infer_attention, batch=_batch_attention, decompose=_attention, promote="float", multiple=True,
    check_first=True,
    shared=lambda xp, g, q, k, v, mask, out0, out1, scale, causal: xp.attention_grad(g, q, k, v, mask, out0, out1, scale=scale, causal=causal),
    vjps=(_part(0), _part(1), _part(2), _mask_grad),
    jvps=(
        lambda xp, t, q, k, v, mask, scale, causal: _tangent(xp, q, k, v, mask, scale, causal, dq=t),
        lambda xp, t, q, k, v, mask, scale, causal: _tangent(xp, q, k, v, mask, scale, causal, dk=t),
        lambda xp, t, q, k, v, mask, scale, causal: _tangent(xp, q, k, v, mask, scale, causal, dv=t),
        lambda xp, t, q, k, v, mask, scale, causal: _tangent(xp, q, k, v, mask, scale, causal, dm=t),
    ),
), HOME)  # fmt: skip


def _attention_second(xp: Any, c: Any, g: Any, q: Any, k: Any, v: Any, mask: Any, scale: float, causal: bool) -> tuple[Any, ...]:
    """Cotangents of g, q, k, v and of the scores: with c = (dq, dk, dv), <c, attention_grad> is <g, the tangent of attention along c>."""
    dq, dk, dv = (_parted(xp, c, i, q.shape, k.shape, v.shape) for i in range(3))
    p = _weights(xp, q, k, mask, scale, causal)
    along = _scores_moved(xp, q, k, scale, dq, dk)
    moved, back = _softmax_moved(xp, p, along), _mm(xp, g, v, "rows")
    through = along * (back - _rows(xp, p * back)) - _rows(xp, p * along) * back + _mm(xp, g, dv, "rows")
    first, second = _softmax_moved(xp, p, back), _softmax_moved(xp, p, through)
    return (
        _mm(xp, moved, v, "") + _mm(xp, p, dv, ""),
        (_mm(xp, second, k, "") + _mm(xp, first, dk, "")) * scale,
        (_mm(xp, second, q, "columns") + _mm(xp, first, dq, "columns")) * scale,
        _mm(xp, moved, g, "columns"),
        second,
    )


def _picked(i: int) -> Any:
    return lambda xp, c, shared: shared[i]


def _grad_moved(which: str) -> Any:
    """The tangent of attention_grad when one of q, k, v and the mask moves."""

    def rule(xp: Any, t: Any, g: Any, q: Any, k: Any, v: Any, mask: Any, scale: float, causal: bool) -> Any:
        p, back = _weights(xp, q, k, mask, scale, causal), _mm(xp, g, v, "rows")
        zero = q * 0.0, k * 0.0
        if which == "v":
            ds = _softmax_moved(xp, p, _mm(xp, g, t, "rows")) * scale
            return _joined(xp, _mm(xp, ds, k, ""), _mm(xp, ds, q, "columns"), v * 0.0)
        moved = _softmax_moved(xp, p, _scores_moved(xp, q, k, scale, **{f"d{which}": t}))
        ds = (moved * (back - _rows(xp, p * back)) - p * _rows(xp, moved * back)) * scale
        first = _softmax_moved(xp, p, back) * scale
        dq = _mm(xp, ds, k, "") + (_mm(xp, first, t, "") if which == "k" else zero[0])
        dk = _mm(xp, ds, q, "columns") + (_mm(xp, first, t, "columns") if which == "q" else zero[1])
        return _joined(xp, dq, dk, _mm(xp, moved, g, "columns"))

    return rule


attention_grad = define(Primitive(
    "attention_grad", "g q k v mask o lse", "scale causal",
    infer=lambda g, q, k, v, mask, o, lse, *, scale, causal: (
        (*q.shape[:-2], q.shape[-2] * q.shape[-1] + k.shape[-2] * k.shape[-1] + v.shape[-2] * v.shape[-1]), q.dtype),
    batch=_batch_attention, decompose=_attention_grad, joins=(0, 1, 2, 3, 4, 5), shared=_attention_second,
    vjps=(
        *map(_picked, range(4)),
        lambda xp, c, shared, mask_shape: _of_mask(xp, shared[4], mask_shape), None, None,
    ),
    jvps=("linear", _grad_moved("q"), _grad_moved("k"), _grad_moved("v"), _grad_moved("m"), None, None),
), HOME)  # fmt: skip
