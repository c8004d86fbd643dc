"""gelu and layer normalisation: compositions that libraries have fast kernels for, each with its derivative as a primitive of its own.

The decompositions are the definitions, in plain primitives; a backend without a kernel runs them. At infinity they follow the convention table:
gelu(-inf) is 0, as its derivative is. float16 and bfloat16 are computed in float32.

Where a derivative takes what the forward pass has found (a mean), it is a cached value of the other arguments: rules of second order differentiate
through it, by computing it anew.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from minidl import DType, bfloat16, float16, float32
from minidl.extend import Primitive, define, describe, elementwise, table

HOME = "minidl.arrays.composites"

def statistics_dtype(dtype: DType) -> DType:
    """What is computed in, and what statistics are kept in."""
    return float32 if dtype is float16 or dtype is bfloat16 else dtype


def wide(xp: Any, *xs: Any) -> list[Any]:
    """Half precision as float32."""
    return [x if not hasattr(x, "shape") or (d := xp.dtype_of(x)) is statistics_dtype(d) else xp.cast(x, dtype=float32) for x in xs]


def narrow(xp: Any, x: Any, like: Any) -> Any:
    """x in the dtype of another array."""
    dtype = xp.dtype_of(like)
    return x if xp.dtype_of(x) is dtype else xp.cast(x, dtype=dtype)


def in_float32(rule: Any) -> Any:
    """A derivative rule that computes half precision in float32 and rounds its result once."""

    def widened(xp: Any, g: Any, *values: Any) -> Any:
        return narrow(xp, rule(xp, *wide(xp, g, *values)), g)

    widened.parameters = rule.__code__.co_varnames[: rule.__code__.co_argcount]  # type: ignore[attr-defined]
    return widened


def only_floats(name: str, *xs: Any) -> None:
    """Raise TypeError for another dtype."""
    for x in xs:
        if not x.dtype.is_float:
            raise TypeError(f"{name}: dtype {x.dtype.short} is not supported; it wants a float dtype")


# ---- gelu -----------------------------------------------------------------------------------------------------------------------------
_FAR, _FAR_TANH = 100.0, 30.0  # from here on gelu is x or 0 to the last bit; no product of what lies nearer overflows
_SLOPE, _CUBIC = math.sqrt(2 / math.pi), 0.044715


def _low(xp: Any, x: Any, tanh: bool) -> Any:
    """x but for what gelu takes to 0, so that -inf * 0 never arises."""
    return xp.clip(x, -(_FAR_TANH if tanh else _FAR), math.inf)


def _inside(xp: Any, y: Any, tanh: bool) -> Any:
    """gelu is y (1 + this) / 2; in the derivative it has the same text, so that a graph with both computes it once."""
    return xp.tanh((y * y * (_SLOPE * _CUBIC) + _SLOPE) * y) if tanh else xp.erf(y * math.sqrt(0.5))


def _gelu(xp: Any, x: Any, *, tanh: bool) -> Any:
    (y,) = wide(xp, x)
    y = _low(xp, y, tanh)
    return narrow(xp, (_inside(xp, y, tanh) + 1.0) * 0.5 * y, x)  # in this order the largest x is no infinity


def _parts(xp: Any, x: Any, tanh: bool) -> tuple[Any, Any, Any, Any]:
    """For gelu's derivatives: x where these are not constant; t = `_inside`; and of the tanh form 1 - t², u'."""
    y = _low(xp, x, tanh)
    t = _inside(xp, y, tanh)
    y = xp.clip(y, -math.inf, _FAR_TANH if tanh else _FAR)
    return (y, t, 1.0 - t * t, y * y * (3 * _CUBIC * _SLOPE) + _SLOPE) if tanh else (y, t, None, None)


def _gelu_dx(xp: Any, g: Any, x: Any, *, tanh: bool) -> Any:
    h, y = wide(xp, g, x)
    y, t, rest, slope = _parts(xp, y, tanh)
    d = (t + 1.0) * 0.5 + (y * rest * slope * 0.5 if tanh else y * xp.exp(y * y * -0.5) * (0.5 * _SLOPE))
    return narrow(xp, h * d, x)


@in_float32
def _gelu_dx_x(xp: Any, c: Any, g: Any, x: Any, tanh: bool) -> Any:
    """c g gelu''(x)."""
    y, t, rest, slope = _parts(xp, x, tanh)
    if not tanh:
        return c * g * ((2.0 - y * y) * xp.exp(y * y * -0.5) * (0.5 * _SLOPE))
    return c * g * (rest * (slope + y * (y * (3 * _CUBIC * _SLOPE) - t * slope * slope)))


gelu = define(elementwise(
    "gelu", "x", lambda xp, g, x, tanh: xp.gelu_dx(g, x, tanh=tanh), params="tanh", only="float", promote="float", decompose=_gelu,
), HOME)  # fmt: skip
gelu_dx = define(elementwise(
    "gelu_dx", "g x", lambda xp, c, x, tanh: xp.gelu_dx(c, x, tanh=tanh), _gelu_dx_x, params="tanh", only="float", promote="float",
    decompose=_gelu_dx,
), HOME)  # fmt: skip


# ---- layer normalisation: x over its last axes, as many as the weight has -------------------------------------------------------------------
def _mean(xp: Any, x: Any, rank: int) -> Any:
    axes = tuple(range(len(x.shape) - rank, len(x.shape)))
    return xp.sum(x, axis=axes, keepdims=True) * (1.0 / max(1, math.prod(x.shape[a] for a in axes)))


def _over_lead(xp: Any, x: Any, rank: int) -> Any:
    """The sum over all but the last axes."""
    lead = tuple(range(len(x.shape) - rank))
    return xp.sum(x, axis=lead, keepdims=False) if lead else x


def _normal(xp: Any, x: Any, rank: int, eps: float) -> tuple[Any, Any, Any]:
    """x with zero mean and unit variance, the mean, and 1 / (standard deviation)."""
    mean = _mean(xp, x, rank)
    centred = x - mean
    rstd = xp.rsqrt(_mean(xp, centred * centred, rank) + eps)
    return centred * rstd, mean, rstd


def _back(xp: Any, h: Any, normal: Any, rstd: Any, rank: int) -> Any:
    """The Jacobian of the normalisation, a symmetric matrix, times h."""
    return rstd * (h - _mean(xp, h, rank) - normal * _mean(xp, h * normal, rank))


def _layer_norm(xp: Any, x: Any, w: Any, b: Any, *, eps: float) -> tuple[Any, Any, Any]:
    y, w, b = wide(xp, x, w, b)
    normal, mean, rstd = _normal(xp, y, len(w.shape), eps)
    return narrow(xp, normal * w + b, x), mean, rstd


def _layer_norm_dx(xp: Any, g: Any, x: Any, w: Any, mean: Any, rstd: Any, *, eps: float) -> Any:
    h, y, w = wide(xp, g, x, w)
    return narrow(xp, _back(xp, h * w, (y - mean) * rstd, rstd, len(w.shape)), x)


def _layer_norm_dw(xp: Any, g: Any, x: Any, mean: Any, rstd: Any, *, rank: int, eps: float) -> Any:
    h, y = wide(xp, g, x)
    return narrow(xp, _over_lead(xp, h * ((y - mean) * rstd), rank), x)


def _infer_layer_norm(x: Any, w: Any, b: Any, *, eps: float) -> Any:
    only_floats("layer_norm", x)
    n = len(x.shape) - len(w.shape)
    if n < 0 or not w.shape or tuple(x.shape[n:]) != tuple(w.shape) or w.shape != b.shape:
        raise ValueError(f"layer_norm: weight {describe(w)} and bias {describe(b)} must have the shape of the last axes of {describe(x)}")
    statistics = (*x.shape[:n], *(1,) * len(w.shape)), statistics_dtype(x.dtype)
    return (x.shape, x.dtype), statistics, statistics


def full_batch(call: Any, size: int, xs: Any, batched: Any) -> list[Any]:
    """All arrays with the batch axis in front."""
    return [x if b else call("broadcast_to", x, shape=(size, *x.shape)) for x, b in zip(xs, batched, strict=True)]


def _scale(call: Any, w: Any, rank: int, ndim: int) -> Any:
    """Weights of all lanes [B, *last], to multiply [B, ..., *last] with."""
    return call("reshape", w, shape=(w.shape[0], *(1,) * (ndim - 1 - rank), *w.shape[1:]))


def _batch_layer_norm(primitive: Primitive, call: Any, size: int, xs: Any, batched: Any, params: Any) -> Any:
    x, w, b = xs
    (x,) = full_batch(call, size, [x], batched[:1])
    if not batched[1] and not batched[2]:
        return call("layer_norm", x, w, b, **params)
    w, b = full_batch(call, size, [w, b], batched[1:])
    rank = len(w.shape) - 1
    one, zero = (call("full", shape=tuple(w.shape[1:]), value=v, dtype=w.dtype) for v in (1.0, 0.0))
    out, mean, rstd = call("layer_norm", x, one, zero, **params)
    ndim = len(x.shape)
    return call("add", call("mul", out, _scale(call, w, rank, ndim)), _scale(call, b, rank, ndim)), mean, rstd


def _batch_layer_norm_dx(primitive: Primitive, call: Any, size: int, xs: Any, batched: Any, params: Any) -> Any:
    g, x, w, mean, rstd = xs
    g, x, mean, rstd = full_batch(call, size, [g, x, mean, rstd], [batched[i] for i in (0, 1, 3, 4)])
    if batched[2]:
        g = call("mul", g, _scale(call, w, len(w.shape) - 1, len(g.shape)))
        w = call("full", shape=tuple(w.shape[1:]), value=1.0, dtype=w.dtype)
    return call("layer_norm_dx", g, x, w, mean, rstd, **params)


def _batch_layer_norm_dw(primitive: Primitive, call: Any, size: int, xs: Any, batched: Any, params: Any) -> Any:
    g, x, mean, rstd = full_batch(call, size, xs, batched)
    each = call("mul", g, call("mul", call("sub", x, mean), rstd))
    out = call("sum", each, axis=tuple(range(1, len(x.shape) - params["rank"])), keepdims=False)
    return out if out.dtype is x.dtype else call("cast", out, dtype=x.dtype)


def _ones(xp: Any, like: Any) -> Any:
    return xp.full(shape=tuple(like.shape), value=1.0, dtype=xp.dtype_of(like))


layer_norm = define(Primitive(
    "layer_norm", "x w b", "eps", infer=_infer_layer_norm, batch=_batch_layer_norm, decompose=_layer_norm, promote="float", multiple=True,
    check_first=True,
    vjps=(
        lambda xp, g, x, w, out1, out2, eps: xp.layer_norm_dx(g, x, w, out1, out2, eps=eps),
        lambda xp, g, x, w_shape, out1, out2, eps: xp.layer_norm_dw(g, x, out1, out2, rank=len(w_shape), eps=eps),
        lambda xp, g, b_shape: _over_lead(xp, g, len(b_shape)),
    ),
    jvps=(
        lambda xp, t, x, w, out1, out2, eps: xp.layer_norm_dx(t, x, _ones(xp, w), out1, out2, eps=eps) * w,
        lambda xp, t, x, w, eps: xp.layer_norm(x, t, _ones(xp, w) * 0.0, eps=eps)[0],
        lambda xp, t, x_shape: xp.broadcast_to(t, shape=x_shape),
    ),
), HOME)  # fmt: skip


def _living(xp: Any, g: Any, names: Sequence[str], args: Sequence[Any], values: dict[str, Any]) -> Sequence[Any]:
    """Residuals with 0 in the rows whose cotangents are all 0, which other rows are summed with."""
    if "x" not in names:
        return args
    n, rank = len(g.shape), len(values["w"].shape)
    dead = xp.all(xp.eq(g, 0.0), axis=tuple(range(n - rank, n)), keepdims=True)
    return [xp.where(dead, 0.0, a) if k in ("x", "out1", "out2") else a for k, a in zip(names, args, strict=True)]


table["layer_norm"].strong = _living


@in_float32
def _dx_g(xp: Any, c: Any, x: Any, w: Any, eps: float) -> Any:
    normal, _, rstd = _normal(xp, x, len(w.shape), eps)
    return w * _back(xp, c, normal, rstd, len(w.shape))


@in_float32
def _dx_w(xp: Any, c: Any, g: Any, x: Any, w_shape: Any, eps: float) -> Any:
    normal, _, rstd = _normal(xp, x, len(w_shape), eps)
    return _over_lead(xp, g * _back(xp, c, normal, rstd, len(w_shape)), len(w_shape))


@in_float32
def _dx_x(xp: Any, c: Any, g: Any, x: Any, w: Any, eps: float) -> Any:
    """The gradient of <c, J(x) h> for h = g w: through 1/sigma, and through the normalised x in either factor."""
    rank, h = len(w.shape), g * w
    normal, _, rstd = _normal(xp, x, rank, eps)
    along_c, along_h = _mean(xp, c * normal, rank), _mean(xp, h * normal, rank)
    inner = _mean(xp, c * h, rank) - _mean(xp, c, rank) * _mean(xp, h, rank) - along_c * along_h
    both = along_h * _back(xp, c, normal, rstd, rank) + along_c * _back(xp, h, normal, rstd, rank)
    return -(rstd * (rstd * normal * inner + both))


@in_float32
def _dx_x_jvp(xp: Any, t: Any, g: Any, x: Any, w: Any, eps: float) -> Any:
    rank, h = len(w.shape), g * w
    normal, _, rstd = _normal(xp, x, rank, eps)
    moved = _back(xp, t, normal, rstd, rank)
    first = _mean(xp, normal * t, rank) * _back(xp, h, normal, rstd, rank)
    return -(rstd * (first + moved * _mean(xp, h * normal, rank) + normal * _mean(xp, h * moved, rank)))


layer_norm_dx = define(Primitive(
    "layer_norm_dx", "g x w mean rstd", "eps", infer=lambda g, x, w, mean, rstd, *, eps: (x.shape, x.dtype), batch=_batch_layer_norm_dx,
    decompose=_layer_norm_dx, joins=(0, 1, 2), vjps=(_dx_g, _dx_x, _dx_w, None, None), jvps=("linear", _dx_x_jvp, "linear", None, None),
), HOME)  # fmt: skip


@in_float32
def _dw_g(xp: Any, c: Any, x: Any, rank: int, eps: float) -> Any:
    return c * _normal(xp, x, rank, eps)[0]


@in_float32
def _dw_x(xp: Any, c: Any, g: Any, x: Any, rank: int, eps: float) -> Any:
    normal, _, rstd = _normal(xp, x, rank, eps)
    return _back(xp, c * g, normal, rstd, rank)


@in_float32
def _dw_x_jvp(xp: Any, t: Any, g: Any, x: Any, rank: int, eps: float) -> Any:
    normal, _, rstd = _normal(xp, x, rank, eps)
    return _over_lead(xp, g * _back(xp, t, normal, rstd, rank), rank)


layer_norm_dw = define(Primitive(
    "layer_norm_dw", "g x mean rstd", "rank eps", infer=lambda g, x, mean, rstd, *, rank, eps: (x.shape[len(x.shape) - rank :], x.dtype),
    batch=_batch_layer_norm_dw, decompose=_layer_norm_dw, joins=(0, 1), vjps=(_dw_g, _dw_x, None, None), jvps=("linear", _dw_x_jvp, None, None),
), HOME)  # fmt: skip
