"""NumPy's functions that are compositions of minidl's: what leaves nan out, averages, interpolation, convolutions, histograms, differences.

Names, arguments and values are NumPy's (jax.numpy has the same); they differentiate, trace and batch as what they are made of. Integers become the
default float where NumPy's become float64.
"""

from __future__ import annotations

import math
from typing import Any

import minidl as md

Axis = int | tuple[int, ...] | None


def _as(value: Any, like: md.Tensor) -> md.Tensor:
    """A number, numbers or a tensor in the dtype of another tensor and where that is; a float is never rounded to another dtype on the way."""
    return value.to(like.dtype) if isinstance(value, md.Tensor) else md.asarray(value, dtype=like.dtype, backend=like.backend, device=like.device)


def _inexact(x: Any) -> md.Tensor:
    x = md.asarray(x)
    return x if x.dtype.inexact else x.to(md.get_default_dtype())


# ---- without nan ------------------------------------------------------------------------------------------------------------------------
def _extreme(name: str, instead: float) -> Any:
    def function(a: Any, axis: Axis = None, keepdims: bool = False) -> md.Tensor:
        x, of = md.asarray(a), getattr(md, name)
        if not x.dtype.inexact:
            return of(x, axis=axis, keepdims=keepdims)
        unknown = md.isnan(x)
        out = of(md.where(unknown, instead, x), axis=axis, keepdims=keepdims)
        return md.where(md.all(unknown, axis=axis, keepdims=keepdims), math.nan, out)

    function.__name__ = function.__qualname__ = f"nan{name}"
    function.__doc__ = f"md.{name} of what is not nan; nan where all is. Raises ValueError over nothing."
    return function


def _place(name: str, instead: float) -> Any:
    def function(a: Any, axis: int | None = None, keepdims: bool = False) -> md.Tensor:
        x = md.asarray(a)
        return getattr(md, name)(md.where(md.isnan(x), instead, x) if x.dtype.inexact else x, axis=axis, keepdims=keepdims)

    function.__name__ = function.__qualname__ = f"nan{name}"
    function.__doc__ = f"md.{name} of what is not nan; where all is, the first place, as an exception for that could not be traced."
    return function


nanmax, nanmin = _extreme("max", -math.inf), _extreme("min", math.inf)
nanargmax, nanargmin = _place("argmax", -math.inf), _place("argmin", math.inf)


def _filled(a: Any, value: float) -> md.Tensor:
    x = md.asarray(a)
    return md.where(md.isnan(x), value, x) if x.dtype.inexact else x


def nanprod(a: Any, axis: Axis = None, keepdims: bool = False) -> md.Tensor:
    """The product of what is not nan.

    >>> md.nanprod(md.tensor([2.0, md.nan, 3.0])).item()
    6.0
    """
    return md.prod(_filled(a, 1.0), axis=axis, keepdims=keepdims)


def nancumsum(a: Any, axis: int | None = None) -> md.Tensor:
    """The running sum of what is not nan, of the flattened elements without an axis."""
    x = _filled(a, 0.0)
    return md.cumulative_sum(md.reshape(x, (-1,)) if axis is None else x, axis=0 if axis is None else axis)


def nancumprod(a: Any, axis: int | None = None) -> md.Tensor:
    """The running product of what is not nan, of the flattened elements without an axis."""
    x = _filled(a, 1.0)
    return md.cumulative_prod(md.reshape(x, (-1,)) if axis is None else x, axis=0 if axis is None else axis)


def nanvar(a: Any, axis: Axis = None, ddof: float = 0, keepdims: bool = False) -> md.Tensor:
    """The mean squared distance from the mean of what is not nan, divided by its count less ddof; nan where that is not positive.

    >>> md.nanvar(md.tensor([1.0, md.nan, 3.0])).item()
    1.0
    """
    x = _inexact(a)
    there = ~md.isnan(x)
    count = md.sum(there, axis=axis, keepdims=True).to(x.dtype)
    known = md.where(there, x, 0.0)
    mean = md.sum(known, axis=axis, keepdims=True) / md.maximum(count, 1.0)
    d = md.where(there, known - mean, 0.0)
    total = md.sum(md.real(d * md.conj(d)), axis=axis, keepdims=keepdims)
    left = (count if keepdims else md.reshape(count, total.shape)) - ddof
    return md.where(left > 0, total / md.where(left > 0, left, 1.0), math.nan)


def nanstd(a: Any, axis: Axis = None, ddof: float = 0, keepdims: bool = False) -> md.Tensor:
    """The square root of nanvar, with derivative 0 where it is 0."""
    v = nanvar(a, axis, ddof, keepdims)
    still = v == 0
    return md.where(still, 0.0, md.sqrt(md.where(still, 1.0, v)))


def nanquantile(a: Any, q: Any, axis: Axis = None, keepdims: bool = False, *, method: str = "linear") -> md.Tensor:
    """md.quantile of what is not nan, with its methods; nan where all is. Raises ValueError for another method and over nothing.

    >>> md.nanquantile(md.tensor([1.0, md.nan, 3.0]), 0.5).item()
    2.0
    """
    x = _inexact(a)
    if method not in _BETWEEN:
        raise ValueError(f"nanquantile: method is one of {', '.join(_BETWEEN)}, not {method!r}")
    axes = md.extend.axes_tuple("nanquantile", axis, x.ndim)
    rest = tuple(v for v in range(x.ndim) if v not in axes)
    kept = tuple(x.shape[v] for v in rest)
    flat = md.reshape(md.permute_dims(x, (*rest, *axes)), (*kept, math.prod(x.shape[v] for v in axes)))
    if not x.size:
        raise ValueError(f"nanquantile: an array of shape {x.shape} is empty")
    ordered = md.take_along_axis(flat, md.argsort(flat, axis=-1), axis=-1)  # nan comes last
    count = md.sum(~md.isnan(flat), axis=-1, keepdims=True)
    levels = _as(q, x)
    place = _BETWEEN[method](md.reshape(levels, (-1,)) * md.maximum(count - 1, 0).to(x.dtype))
    low = md.stop_gradient(md.floor(place))
    ends = [md.take_along_axis(ordered, md.clip(e, 0, flat.shape[-1] - 1).to(md.int64), axis=-1) for e in (low, md.stop_gradient(md.ceil(place)))]
    part = place - low
    out = md.where(part > 0, ends[0] * (1 - part) + ends[1] * part, ends[0])
    shape = tuple(1 if v in axes else n for v, n in enumerate(x.shape)) if keepdims else kept
    return md.reshape(md.moveaxis(out, -1, 0), (*levels.shape, *shape))


_BETWEEN: dict[str, Any] = {
    "linear": lambda p: p, "lower": md.floor, "higher": md.ceil, "nearest": md.round, "midpoint": lambda p: (md.floor(p) + md.ceil(p)) * 0.5,
}  # fmt: skip


def nanpercentile(a: Any, q: Any, axis: Axis = None, keepdims: bool = False, *, method: str = "linear") -> md.Tensor:
    """nanquantile of q / 100."""
    return nanquantile(a, [v / 100 for v in q] if isinstance(q, (list, tuple)) else q / 100, axis, keepdims, method=method)


def nanmedian(a: Any, axis: Axis = None, keepdims: bool = False) -> md.Tensor:
    """md.median of what is not nan: of two in the middle their mean.

    >>> md.nanmedian(md.tensor([1.0, md.nan, 4.0])).item()
    2.5
    """
    return nanquantile(a, 0.5, axis, keepdims)


# ---- averages and samples ---------------------------------------------------------------------------------------------------------------
def average(a: Any, axis: Axis = None, weights: Any = None, returned: bool = False, *, keepdims: bool = False) -> Any:
    """The mean over axes by weights, of the shape of `a` or one for each place of one axis; returned: also the sum of the weights.

    Raises ValueError for weights of another shape.

    >>> md.average(md.tensor([1.0, 4.0]), weights=md.tensor([2.0, 1.0])).item()
    2.0
    """
    x = _inexact(a)
    w = md.ones_like(x) if weights is None else md.asarray(weights)
    if w.shape != x.shape:
        if not isinstance(axis, int) or w.shape != (x.shape[axis],):
            raise ValueError(f"average: weights of shape {w.shape} for {x.shape}: of its shape, or one for each place of the axis, are wanted")
        at = md.extend.axis_index("average", axis, x.ndim)
        w = md.reshape(w, tuple(n if v == at else 1 for v, n in enumerate(x.shape)))
    w = md.broadcast_to(w.to(md.result_type(x, w)), x.shape)
    total = md.sum(w, axis=axis, keepdims=keepdims)
    out = md.sum(x * w, axis=axis, keepdims=keepdims) / total
    return (out, total) if returned else out


def ptp(a: Any, axis: Axis = None, keepdims: bool = False) -> md.Tensor:
    """The largest less the smallest element over axes."""
    x = md.asarray(a)
    return md.max(x, axis=axis, keepdims=keepdims) - md.min(x, axis=axis, keepdims=keepdims)


def interp(x: Any, xp: Any, fp: Any, left: Any = None, right: Any = None, period: float | None = None) -> md.Tensor:
    """The piecewise linear function through the points (xp, fp), xp ascending, at x; outside it is left and right, by default the values at the
    ends. period: that of x and xp, which need no order then. Raises ValueError for points that are no two vectors of one length.

    >>> md.interp(md.tensor([0.5, 3.0]), md.tensor([0.0, 1.0]), md.tensor([10.0, 20.0])).tolist()
    [15.0, 20.0]
    """
    xp, fp = _inexact(xp), _inexact(fp)
    x = _inexact(x) if isinstance(x, md.Tensor) else _as(x, xp)
    if xp.ndim != 1 or xp.shape != fp.shape or not xp.size:
        raise ValueError(f"interp: xp of shape {xp.shape} and fp of shape {fp.shape}; two vectors of one length, at least 1, are wanted")
    dtype = md.result_type(x, xp)
    x, xp = x.to(dtype), xp.to(dtype)
    if period is not None:
        if period == 0:
            raise ValueError("interp: a period is not 0")
        period = abs(period)
        x, xp = md.remainder(x, period), md.remainder(xp, period)
        order = md.argsort(xp)
        xp, fp = md.take(xp, order), md.take(fp, order)
        xp = md.concat([xp[-1:] - period, xp, xp[:1] + period])
        fp = md.concat([fp[-1:], fp, fp[:1]])
    n = xp.shape[0]
    at = md.clip(md.searchsorted(md.stop_gradient(xp), md.stop_gradient(x), side="right"), 1, max(n - 1, 1))
    a, b = at - 1, md.minimum(at, n - 1)
    wide = md.take(xp, b.flatten()).reshape(x.shape) - (start := md.take(xp, a.flatten()).reshape(x.shape))
    low, high = (md.take(fp, v.flatten()).reshape(x.shape) for v in (a, b))
    jump = wide == 0
    out = md.where(jump, high, low + (x - start) / md.where(jump, 1.0, wide) * (high - low))
    if period is None:
        out = md.where(x < xp[0], fp[0] if left is None else left, out)
        out = md.where(x > xp[-1], fp[-1] if right is None else right, out)
        out = md.where(x == xp[-1], fp[-1], out)
    return md.where(md.isnan(x), math.nan, out)


def convolve(a: Any, v: Any, mode: str = "full") -> md.Tensor:
    """The sums over j of a[j] v[k - j] of two vectors, for all k where they meet ("full"), as many as the longer one has ("same"), or where the
    shorter one lies inside ("valid"). Raises ValueError for another mode, and for what is no vector or empty.

    >>> md.convolve(md.tensor([1.0, 2.0]), md.tensor([1.0, 1.0])).tolist()
    [1.0, 3.0, 2.0]
    """
    a, v = md.asarray(a), md.asarray(v)
    if a.ndim != 1 or v.ndim != 1 or not a.size or not v.size:
        raise ValueError(f"convolve: two vectors with elements are wanted, not shapes {a.shape} and {v.shape}")
    if mode not in ("full", "same", "valid"):
        raise ValueError(f'convolve: mode is "full", "same" or "valid", not {mode!r}')
    a, v = (v, a) if v.shape[0] > a.shape[0] else (a, v)
    dtype = md.result_type(a, v)
    a, v = a.to(dtype), v.to(dtype)
    n, m = a.shape[0], v.shape[0]
    before, after = {"full": (m - 1, m - 1), "same": (m // 2, m - 1 - m // 2), "valid": (0, 0)}[mode]
    if dtype.is_float:
        return md.conv(md.pad(a, ((before, after),))[None, None], md.flip(v, axis=0)[None, None])[0, 0]
    places = md.arange(n + before + after - m + 1, backend=a.backend, device=a.device)[:, None] + md.arange(m, backend=a.backend, device=a.device)
    return md.sum(md.take(md.pad(a, ((before, after),)), places.flatten()).reshape(places.shape) * md.flip(v, axis=0), axis=1)


def correlate(a: Any, v: Any, mode: str = "valid") -> md.Tensor:
    """The sums over j of a[j + k] conj(v[j]) of two vectors, with the modes of convolve.

    >>> md.correlate(md.tensor([1.0, 2.0, 3.0]), md.tensor([0.0, 1.0])).tolist()
    [2.0, 3.0]
    """
    a, v = md.asarray(a), md.asarray(v)
    if v.ndim == a.ndim == 1 and v.shape[0] > a.shape[0]:  # as if they were exchanged, and the result turned
        return md.flip(md.conj(correlate(v, a, mode)), axis=0)
    return convolve(a, md.conj(md.flip(v)), mode)


# ---- places and counts ------------------------------------------------------------------------------------------------------------------
def digitize(x: Any, bins: Any, right: bool = False) -> md.Tensor:
    """The number of the interval of each element between bounds that ascend or descend; right: an interval holds its right end, not the left.

    >>> md.digitize(md.tensor([0.5, 2.0]), md.tensor([0.0, 1.0, 2.0])).tolist()
    [1, 3]
    """
    x, bins = md.asarray(x), md.asarray(bins)
    up = md.searchsorted(bins, x, side="left" if right else "right")
    if bins.shape[0] < 2:
        return up
    down = bins.shape[0] - md.searchsorted(md.flip(bins), x, side="left" if right else "right")
    return md.where(bins[0] <= bins[-1], up, down)


def histogram(
    a: Any, bins: Any = 10, range: tuple[float, float] | None = None, *, weights: Any = None, density: bool = False
) -> tuple[md.Tensor, md.Tensor]:
    """How many elements lie in each interval, the last one with its right end, and the bounds: so many equal ones over `range` (of the elements
    where it is not given), or those in `bins`. weights: one number for each element, added up; density: of integral 1.

    Raises ValueError for fewer than one interval, a range that does not ascend, and weights of another shape.

    >>> md.histogram(md.tensor([0.0, 1.0, 1.5, 2.0]), 2)[0].tolist()
    [1, 3]
    """
    x = _inexact(a).reshape((-1,))
    if isinstance(bins, int):
        if bins < 1 or (range is not None and range[0] > range[1]):
            raise ValueError(f"histogram: {bins} bins over {range}; at least one, and a range that ascends, are wanted")
        if range is None:
            low, high = (md.min(x), md.max(x)) if x.size else (_as(0.0, x), _as(1.0, x))
        else:
            low, high = (_as(float(v), x) for v in range)
        alike = (low == high).to(x.dtype) * 0.5
        low, high = low - alike, high + alike
        share = md.arange(bins + 1, backend=x.backend, device=x.device).to(x.dtype) / bins
        edges = md.where(share == 1, high, low + share * (high - low))
    else:
        edges = md.asarray(bins)
        edges = edges.to(md.result_type(edges, x))
    n = edges.shape[0] - 1
    place = md.searchsorted(edges, x.to(edges.dtype), side="right") - 1
    place = md.where(x == edges[-1], n - 1, place)
    place = md.where(md.isnan(x) | (place < 0), n, place)
    w = md.ones_like(place) if weights is None else md.asarray(weights)
    if w.size != x.size:
        raise ValueError(f"histogram: {w.size} weights for {x.size} elements")
    out = md.zeros(n, dtype=w.dtype, backend=x.backend, device=x.device).at[place].add(w.reshape((-1,)), mode="drop")
    return (out / md.diff(edges) / md.sum(out) if density else out), edges


# ---- differences ------------------------------------------------------------------------------------------------------------------------
def gradient(f: Any, *varargs: Any, axis: Axis = None, edge_order: int = 1) -> Any:
    """Slopes of samples by second-order differences, at the ends of edge_order 1 or 2: one array, or one for each axis.

    varargs: the distance of the samples (1 by default) or their places, for all axes or one each. Raises ValueError for another number of them,
    for an edge_order that is not 1 or 2, and for too few samples.

    >>> md.gradient(md.tensor([1.0, 4.0, 9.0])).tolist()
    [3.0, 4.0, 5.0]
    """
    x = _inexact(f)
    axes = md.extend.axes_tuple("gradient", axis, x.ndim)
    spacing = varargs or (1.0,)
    spacing = spacing * len(axes) if len(spacing) == 1 and not getattr(spacing[0], "ndim", 0) else spacing
    if len(spacing) != len(axes) or edge_order not in (1, 2):
        raise ValueError(f"gradient: {len(varargs)} distances for {len(axes)} axes and edge_order {edge_order}; one for each, and 1 or 2, are wanted")
    outs = [_slope(x, a, h, edge_order) for a, h in zip(axes, spacing, strict=True)]
    return outs[0] if len(outs) == 1 else outs


def _slope(x: md.Tensor, axis: int, h: Any, order: int) -> md.Tensor:
    n = x.shape[axis]
    if n <= order:
        raise ValueError(f"gradient: {n} samples along axis {axis} of shape {x.shape}; at least {order + 1} are wanted")
    y = md.moveaxis(x, axis, 0)
    h = _as(h, x)
    if h.ndim:
        if h.shape != (n,):
            raise ValueError(f"gradient: places of shape {h.shape} for {n} samples")
        steps = md.reshape(md.diff(h), (n - 1, *(1,) * (y.ndim - 1)))
    else:
        steps = md.broadcast_to(h, (n - 1, *(1,) * (y.ndim - 1)))
    slopes = md.diff(y, axis=0) / steps
    if n == 2:
        ends, inner = (slopes[:1], slopes[-1:]), y[:0]
    else:
        a, b = steps[:-1], steps[1:]
        inner = (slopes[:-1] * b + slopes[1:] * a) / (a + b)
        bent = (slopes[1:] - slopes[:-1]) / (a + b)  # half the curvature
        ends = (slopes[:1] - bent[:1] * a[:1], slopes[-1:] + bent[-1:] * b[-1:]) if order == 2 else (slopes[:1], slopes[-1:])
    return md.moveaxis(md.concat([ends[0], inner, ends[1]]), 0, axis)


def polyval(p: Any, x: Any) -> md.Tensor:
    """The polynomial of these coefficients, that of the highest power first, at x.

    >>> md.polyval(md.tensor([1.0, 0.0, 2.0]), md.tensor(3.0)).item()
    11.0
    """
    p = md.asarray(p)
    x = x if isinstance(x, md.Tensor) else _as(x, p)
    out = md.zeros_like(x, dtype=md.result_type(p, x))
    for c in md.unstack(p):
        out = out * x + c
    return out


def append(arr: Any, values: Any, axis: int | None = None) -> md.Tensor:
    """The two joined along an axis, flattened first without one.

    >>> md.append(md.tensor([1, 2]), 3).tolist()
    [1, 2, 3]
    """
    arr = md.asarray(arr)
    values = values if isinstance(values, md.Tensor) else _as(values, arr)
    return md.concat([md.flatten(arr), md.flatten(values)]) if axis is None else md.concat([arr, values], axis=axis)


def array_split(ary: Any, indices_or_sections: int | list[int], axis: int = 0) -> list[md.Tensor]:
    """An axis in pieces of nearly equal size, or cut at these places.

    >>> [v.shape[0] for v in md.array_split(md.arange(5), 3)]
    [2, 2, 1]
    """
    return list(md.tensor_split(md.asarray(ary), indices_or_sections, dim=axis))


def copy(a: Any) -> md.Tensor:
    """The same numbers, in a tensor of their own.

    >>> x = md.ones(2)
    >>> md.copy(x) is x, md.copy(x).tolist()
    (False, [1.0, 1.0])
    """
    return md.positive(md.asarray(a))


def array_equal(a1: Any, a2: Any, equal_nan: bool = False) -> md.Tensor:
    """Whether two arrays have one shape and equal elements, as a 0-d bool.

    >>> bool(md.array_equal(md.ones(2), md.ones(3)))
    False
    """
    a, b = md.asarray(a1), md.asarray(a2)
    if a.shape != b.shape:
        return md.zeros((), dtype=md.bool, backend=a.backend, device=a.device)
    same = a == b
    return md.all(same | (md.isnan(a) & md.isnan(b)) if equal_nan and a.dtype.inexact and b.dtype.inexact else same)


def tri(N: int, M: int | None = None, k: int = 0, dtype: Any = None) -> md.Tensor:
    """Ones on and below the k-th diagonal.

    >>> md.tri(2, 3).tolist()
    [[1.0, 0.0, 0.0], [1.0, 1.0, 0.0]]
    """
    return md.tril(md.ones((N, N if M is None else M), dtype=dtype), k=k)


def vander(x: Any, N: int | None = None) -> md.Tensor:
    """Powers of x in columns, the highest first as in NumPy; md.linalg.vander has the lowest first, as PyTorch.

    >>> md.vander(md.tensor([2.0, 3.0]), 3).tolist()
    [[4.0, 2.0, 1.0], [9.0, 3.0, 1.0]]
    """
    return md.flip(md.linalg.vander(md.asarray(x), N), axis=-1)


#: Name -> what it is in md.
NAMES: dict[str, Any] = {
    f.__name__: f
    for f in (
        nanmax, nanmin, nanargmax, nanargmin, nanprod, nancumsum, nancumprod, nanvar, nanstd, nanquantile, nanpercentile, nanmedian, average, ptp,
        interp, convolve, correlate, digitize, histogram, gradient, polyval, append, array_split, copy, array_equal, tri, vander,
    )
} | {"rint": md.round}  # fmt: skip
