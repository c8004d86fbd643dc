"""Reductions, cumulative operations, softmax and ordering.

Ties of max, min, cummax and cummin are split evenly; argsort is stable. Products and cumulative products differentiate without division, so zeros
are no special case.
"""

from __future__ import annotations

import math
from typing import Any

from minidl import shapes
from minidl.dtypes import bool_, int64
from minidl.primitives.core import Primitive, batch_along, batch_reduction, expand, index_dtype, reduction


def _sum_vjp(xp: Any, g: Any, x_shape: Any, axis: Any, keepdims: bool) -> Any:
    return xp.broadcast_to(expand(xp, g, x_shape, axis, keepdims), shape=x_shape)


sum = reduction("sum", vjp=_sum_vjp, jvp="linear")


def _extreme(xp: Any, g: Any, x: Any, out: Any, x_dtype: Any, axis: Any) -> Any:
    chosen = xp.logical_or(xp.eq(x, out), xp.isnan(x))
    count = xp.sum(xp.cast(chosen, dtype=x_dtype), axis=axis, keepdims=True)
    return xp.where(chosen, g / count, 0.0)


max = reduction("max", _extreme, only="real", identity=False)
min = reduction("min", _extreme, only="real", identity=False)


def _bool(_: Any) -> Any:
    return bool_


reduction("any", only="bool", out=_bool)
reduction("all", only="bool", out=_bool)


def _infer_arg(name: str) -> Any:
    def infer(x: Any, *, axis: int, keepdims: bool) -> Any:
        if x.dtype.is_complex:
            raise TypeError(f"{name}: dtype {x.dtype.short} has no order; take abs or real first")
        if x.shape[axis] == 0:
            raise ValueError(f"{name}: axis {axis} of {shapes.show(x)} is empty")
        return shapes.reduced(x.shape, (axis,), keepdims), index_dtype(x.dtype)

    return infer


for _name in ("argmax", "argmin"):
    Primitive(_name, "x", "axis keepdims", infer=_infer_arg(_name), batch=batch_reduction, promote="none", check_first=True)


# ---- along one axis -------------------------------------------------------------------------------------------------------------------
def edge(xp: Any, x: Any, axis: int, n: int, reverse: bool, fill: Any) -> Any:
    """x shifted by n places along axis (towards higher places, or lower if reverse), filled with a scalar."""
    size = x.shape[axis]
    n = n if n < size else size
    start, stop = [0] * len(x.shape), list(x.shape)
    if reverse:
        start[axis] = n
    else:
        stop[axis] = size - n
    widths = tuple(((0, n) if reverse else (n, 0)) if i == axis else (0, 0) for i in range(len(x.shape)))
    return xp.pad(xp.slice(x, start=tuple(start), stop=tuple(stop), step=(1,) * len(x.shape)), widths=widths, value=fill)


def affine_scan(xp: Any, a: Any, b: Any, axis: int, reverse: bool) -> Any:
    """y[i] = b[i] + a[i] * y[i-1] along axis (y[i+1] if reverse), in log2(n) vector steps.

    Source: W. D. Hillis and G. L. Steele, Data parallel algorithms (CACM 1986): affine maps are combined by doubling.
    """
    n = 1
    while n < b.shape[axis]:
        b = b + a * edge(xp, b, axis, n, reverse, 0.0)
        a = a * edge(xp, a, axis, n, reverse, 0.0)
        n *= 2
    return b


def _along(name: str, vjp: Any, jvp: Any, only: str = "number", promote: str = "same") -> Primitive:
    from minidl.primitives.core import _ONLY

    check, want = _ONLY[only]

    def infer(x: Any, *, axis: int, reverse: bool) -> Any:
        if check is not None and not check(x.dtype):
            raise TypeError(f"{name}: dtype {x.dtype.short} is not supported; it wants {want}")
        return x.shape, x.dtype

    primitive = Primitive(name, "x", "axis reverse", infer=infer, vjps=(vjp,), jvps=(jvp,), batch=batch_reduction, promote=promote)
    primitive.accepts = check
    return primitive


_along("cumsum", lambda xp, g, axis, reverse: xp.cumsum(g, axis=axis, reverse=not reverse), "linear")


def _before(xp: Any, x: Any, axis: int, reverse: bool) -> Any:
    """The product of all elements before each one."""
    return edge(xp, xp.cumprod(x, axis=axis, reverse=reverse), axis, 1, reverse, 1.0)


def _cumprod_vjp(xp: Any, g: Any, x: Any, axis: int, reverse: bool) -> Any:
    later = edge(xp, x, axis, 1, not reverse, 0.0)
    return _before(xp, x, axis, reverse) * affine_scan(xp, later, g, axis, not reverse)


def _cumprod_jvp(xp: Any, t: Any, x: Any, axis: int, reverse: bool) -> Any:
    return affine_scan(xp, x, _before(xp, x, axis, reverse) * t, axis, reverse)


_along("cumprod", _cumprod_vjp, _cumprod_jvp)


def _prod_weight(xp: Any, g: Any, x: Any, axis: tuple[int, ...]) -> Any:
    (a,) = axis  # the array function makes one axis of several
    return g * (_before(xp, x, a, False) * _before(xp, x, a, True))


prod = reduction("prod", _prod_weight)


def _runs(xp: Any, x: Any, out: Any, axis: int, reverse: bool) -> tuple[Any, Any, Any]:
    """For a running extreme: which elements attain it, whether the run goes on from the element before, and how many share it so far."""
    dtype = xp.dtype_of(x)
    nan = xp.logical_and(xp.isnan(x), xp.isnan(out))
    attains = xp.cast(xp.logical_or(xp.eq(x, out), nan), dtype=dtype)
    before = edge(xp, out, axis, 1, reverse, 0.0)
    same = xp.logical_or(xp.eq(out, before), xp.logical_and(xp.isnan(out), xp.isnan(before)))
    goes_on = xp.cast(same, dtype=dtype)
    return attains, goes_on, affine_scan(xp, goes_on * edge(xp, goes_on * 0.0 + 1.0, axis, 1, reverse, 0.0), attains, axis, reverse)


def _cumextreme_vjp(xp: Any, g: Any, x: Any, out: Any, axis: int, reverse: bool) -> Any:
    attains, goes_on, count = _runs(xp, x, out, axis, reverse)
    return attains * affine_scan(xp, edge(xp, goes_on, axis, 1, not reverse, 0.0), g / count, axis, not reverse)


def _cumextreme_jvp(xp: Any, t: Any, x: Any, out: Any, axis: int, reverse: bool) -> Any:
    attains, goes_on, count = _runs(xp, x, out, axis, reverse)
    first = edge(xp, goes_on * 0.0 + 1.0, axis, 1, reverse, 0.0)
    return affine_scan(xp, goes_on * first, attains * t, axis, reverse) / count


_along("cummax", _cumextreme_vjp, _cumextreme_jvp, only="real")
_along("cummin", _cumextreme_vjp, _cumextreme_jvp, only="real")


def _exp_gap(xp: Any, low: Any, high: Any) -> Any:
    """exp(low - high), which is 1 where they are equal, infinities included."""
    tie = xp.eq(low, high)
    return xp.exp(xp.where(tie, 0.0, low - high))


def _cumlogsumexp_vjp(xp: Any, g: Any, x: Any, out: Any, axis: int, reverse: bool) -> Any:
    step = edge(xp, _exp_step(xp, out, axis, reverse), axis, 1, not reverse, 0.0)
    return _exp_gap(xp, x, out) * affine_scan(xp, step, g, axis, not reverse)


def _cumlogsumexp_jvp(xp: Any, t: Any, x: Any, out: Any, axis: int, reverse: bool) -> Any:
    return affine_scan(xp, _exp_step(xp, out, axis, reverse), _exp_gap(xp, x, out) * t, axis, reverse)


def _exp_step(xp: Any, out: Any, axis: int, reverse: bool) -> Any:
    """exp(out[i-1] - out[i]); 0 before the first element, and where nothing but -inf came before."""
    before = edge(xp, out, axis, 1, reverse, float("-inf"))
    return xp.where(xp.eq(before, float("-inf")), 0.0, _exp_gap(xp, before, out))


_along("cumlogsumexp", _cumlogsumexp_vjp, _cumlogsumexp_jvp, only="float", promote="float")

# ---- softmax and its kin --------------------------------------------------------------------------------------------------------------
def exponentials(xp: Any, x: Any, axis: tuple[int, ...]) -> tuple[Any, Any, Any, Any]:
    """x less the maximum, the exponentials of that, their sum along the axes, and the maximum, axes kept. A row with +inf gives it all, evenly."""
    high = xp.max(x, axis=axis, keepdims=True)
    low = xp.where(xp.eq(high, -math.inf), 0.0, high)
    shifted = xp.where(xp.eq(x, low), 0.0, xp.sub(x, low))  # never inf - inf
    e = xp.exp(shifted)
    return shifted, e, xp.sum(e, axis=axis, keepdims=True), high


def _logsumexp(xp: Any, x: Any, *, axis: tuple[int, ...], keepdims: bool) -> Any:
    _, _, total, high = exponentials(xp, x, axis)
    out = xp.add(xp.log(total), high)
    return out if keepdims else xp.reshape(out, shape=shapes.reduced(x.shape, axis, False))


logsumexp = reduction(
    "logsumexp", lambda xp, g, x, axis: g * xp.softmax(x, axis=axis[0]), only="float", promote="float", decompose=_logsumexp
)


def _infer_axis(name: str) -> Any:
    def infer(x: Any, *, axis: int) -> Any:
        if not x.dtype.is_float:
            raise TypeError(f"{name}: dtype {x.dtype.short} is not supported; it wants a float dtype")
        return x.shape, x.dtype

    return infer


def _softmax_rule(xp: Any, g: Any, out: Any, axis: int) -> Any:
    return out * (g - xp.sum(g * out, axis=(axis,), keepdims=True))


def _alive(xp: Any, p: Any, axis: int) -> Any:
    """1 for each row, 0 for a row of -inf, which has no softmax."""
    return xp.sum(p, axis=(axis,), keepdims=True) > 0.5


def _log_softmax_vjp(xp: Any, g: Any, out: Any, axis: int) -> Any:
    p = xp.exp(out)
    d = g - p * xp.sum(g, axis=(axis,), keepdims=True)
    return xp.where(_alive(xp, p, axis), d, 0.0)


def _log_softmax_jvp(xp: Any, t: Any, out: Any, axis: int) -> Any:
    p = xp.exp(out)
    d = t - xp.sum(t * p, axis=(axis,), keepdims=True)
    return xp.where(_alive(xp, p, axis), d, 0.0)


def _softmax(xp: Any, x: Any, *, axis: int) -> Any:
    _, e, total, _ = exponentials(xp, x, (axis,))
    return xp.div(e, xp.where(xp.eq(total, 0.0), 1.0, total))


def _log_softmax(xp: Any, x: Any, *, axis: int) -> Any:
    shifted, _, total, _ = exponentials(xp, x, (axis,))
    return xp.sub(shifted, xp.log(xp.where(xp.eq(total, 0.0), 1.0, total)))


softmax = Primitive(
    "softmax", "x", "axis", infer=_infer_axis("softmax"), vjps=(_softmax_rule,), jvps=(_softmax_rule,), batch=batch_reduction, promote="float",
    decompose=_softmax,
)  # fmt: skip
log_softmax = Primitive(
    "log_softmax", "x", "axis", infer=_infer_axis("log_softmax"), vjps=(_log_softmax_vjp,), jvps=(_log_softmax_jvp,), batch=batch_reduction,
    promote="float", decompose=_log_softmax,
)  # fmt: skip
softmax.accepts = log_softmax.accepts = lambda dtype: dtype.is_float


def _infer_at(x: Any, i: Any, *, axis: int) -> Any:
    if not x.dtype.is_float:
        raise TypeError(f"log_softmax: dtype {x.dtype.short} is not supported; it wants a float dtype")
    if i.shape != (*x.shape[:axis], *x.shape[axis + 1 :]) or not x.shape[axis]:
        raise ValueError(f"log_softmax: places {shapes.show(i)} for axis {axis} of {shapes.show(x)}; they want its shape without that axis")
    return i.shape, x.dtype


def _inside(xp: Any, x: Any, i: Any, axis: int) -> Any:
    return xp.logical_and(xp.ge(i, 0), xp.lt(i, x.shape[axis]))


def _hot(xp: Any, x: Any, i: Any, axis: int) -> Any:
    """Whether an element is the one at the place i of its row."""
    n, rank = x.shape[axis], len(x.shape)
    numbers = xp.reshape(xp.iota(size=n, dtype=int64), shape=tuple(n if a == axis else 1 for a in range(rank)))
    return xp.eq(xp.reshape(i, shape=tuple(1 if a == axis else s for a, s in enumerate(x.shape))), numbers)


def _log_softmax_at(xp: Any, x: Any, i: Any, *, axis: int) -> Any:
    row = tuple(1 if a == axis else s for a, s in enumerate(x.shape))
    _, _, total, high = exponentials(xp, x, (axis,))
    inside = _inside(xp, x, i, axis)
    mine = xp.take_along(x, xp.reshape(xp.where(inside, i, 0), shape=row), axis=axis)
    d = xp.where(xp.eq(mine, high), 0.0, xp.sub(mine, high))  # never inf - inf
    out = xp.where(xp.eq(total, 0.0), -math.inf, xp.sub(d, xp.log(total)))
    return xp.where(inside, xp.reshape(out, shape=i.shape), 0.0)


def _there(xp: Any, x: Any, i: Any, axis: int) -> Any:
    """Whether a row has the place, and a softmax."""
    return xp.logical_and(_inside(xp, x, i, axis), xp.ne(xp.max(x, axis=(axis,), keepdims=False), -math.inf))


def _at_dx(xp: Any, g: Any, x: Any, i: Any, *, axis: int) -> Any:
    g = xp.reshape(xp.where(_there(xp, x, i, axis), g, 0.0), shape=tuple(1 if a == axis else s for a, s in enumerate(x.shape)))
    return xp.where(_hot(xp, x, i, axis), g, 0.0) - xp.softmax(x, axis=axis) * g


def _at_jvp(xp: Any, t: Any, x: Any, i: Any, axis: int) -> Any:
    d = xp.where(_hot(xp, x, i, axis), t, 0.0) - t * xp.softmax(x, axis=axis)
    return xp.where(_there(xp, x, i, axis), xp.sum(d, axis=(axis,), keepdims=False), 0.0)


#: log_softmax(x) at one place of each row. Its derivative is known without a sum over the row of what is 0 at all places but one.
log_softmax_at = Primitive(
    "log_softmax_at", "x i", "axis", infer=_infer_at, batch=batch_along, promote="float",
    vjps=(lambda xp, g, x, i, axis: xp.log_softmax_at_dx(g, x, i, axis=axis), None), jvps=(_at_jvp, None),
    joins=(0,), others=int64, decompose=_log_softmax_at, check_first=True,
)  # fmt: skip


#: Its derivative in a few passes, where a library has the means.
log_softmax_at_dx = Primitive(
    "log_softmax_at_dx", "g x i", "axis", infer=lambda g, x, i, *, axis: (x.shape, x.dtype), decompose=_at_dx, joins=(0, 1), others=int64,
    inline=True,
)  # fmt: skip


def _infer_order(name: str) -> Any:
    def infer(x: Any, *, axis: int, k: int | None = None, **how: bool) -> Any:
        if x.dtype.is_complex:
            raise TypeError(f"{name}: dtype {x.dtype.short} has no order; take abs or real first")
        return (*x.shape[:axis], x.shape[axis] if k is None else k, *x.shape[axis + 1 :]), index_dtype(x.dtype)

    return infer


def _argtopk(xp: Any, x: Any, *, axis: int, k: int, largest: bool) -> Any:
    stop = tuple(k if a == axis else n for a, n in enumerate(x.shape))
    return xp.slice(xp.argsort(x, axis=axis, descending=largest), start=(0,) * len(stop), stop=stop, step=(1,) * len(stop))


_order: dict[str, Any] = {"batch": batch_reduction, "promote": "none", "check_first": True}
argsort = Primitive("argsort", "x", "axis descending", infer=_infer_order("argsort"), **_order)
#: The first k of argsort, for which no library need sort the rest.
Primitive("argtopk", "x", "axis k largest", infer=_infer_order("topk"), decompose=_argtopk, **_order)
