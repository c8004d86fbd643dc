"""Spread, norms, quantiles and differences. Statistics of integers are of the default float; 16-bit floats are summed in float32; norms have
derivative 0 at 0."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import minidl as md
from minidl import Tensor
from minidl.extend import axes_tuple, axis_index, cast, check_all, cut, describe, expect, ns, operand, seen

__all__ = ["count_nonzero", "diff", "median", "norm", "quantile", "std", "var", "vector_norm"]

Axis = int | tuple[int, ...] | None


def _floating(x: Tensor) -> Tensor:
    return x if x.dtype.inexact else cast(x, md.get_default_dtype())


def _sum(x: Tensor, axes: tuple[int, ...], keepdims: bool) -> Tensor:
    return ns.sum(x, axis=axes, keepdims=keepdims) if axes else x


def var(x: Any, /, axis: Axis = None, *, correction: float = 0.0, keepdims: bool = False) -> Tensor:
    """The mean squared distance from the mean over axes, divided by (count - correction): 0 as in the Array API, 1 for the unbiased estimate
    that PyTorch has by default.

    >>> md.var(md.tensor([1.0, 3.0]), correction=1).item()
    2.0
    """
    x = _floating(operand(x))
    axes = axes_tuple("var", axis, x.ndim)
    wide = cast(x, md.float32) if x.dtype.bits == 16 else x
    count = math.prod(x.shape[a] for a in axes)
    total = _sum(_squares(ns.sub(wide, ns.div(_sum(wide, axes, True), float(count)))), axes, keepdims)
    n = count - correction
    return cast(ns.div(total, float(n if n > 0 else 0)), x.dtype.real)


def std(x: Any, /, axis: Axis = None, *, correction: float = 0.0, keepdims: bool = False) -> Tensor:
    """The square root of var, with derivative 0 where it is 0.

    >>> md.std(md.tensor([1.0, 3.0])).item()
    1.0
    """
    return ns.root(var(x, axis, correction=correction, keepdims=keepdims), p=2)


def _squares(x: Tensor) -> Tensor:
    return ns.add(ns.square(ns.real(x)), ns.square(ns.imag(x))) if x.dtype.is_complex else ns.square(x)


def vector_norm(x: Any, /, ord: float = 2, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """The norm of the elements over axes: ord 2, 1, inf, -inf, 0 (how many are not 0), or any other p, the pth root of the sum of pth powers.

    Derivative 0 at 0, and for p < 0, where one 0 makes the norm 0, at any 0. 16-bit floats are summed in float32.

    >>> md.vector_norm(md.tensor([3.0, 4.0])).item()
    5.0
    """
    x = _floating(operand(x))
    if x.dtype.bits == 16:
        return cast(vector_norm(cast(x, md.float32), axis=axis, keepdims=keepdims, ord=ord), x.dtype)
    if ord == 2:
        return ns.root(_sum(_squares(x), axes_tuple("vector_norm", axis, x.ndim), keepdims), p=2)
    if ord == 0:
        return md.sum(cast(ns.ne(x, 0), x.dtype.real), axis, keepdims)
    size = ns.abs(x)
    if ord == 1:
        return md.sum(size, axis, keepdims)
    if math.isinf(ord):
        return (md.max if ord > 0 else md.min)(size, axis, keepdims)
    if ord < 0:
        # no 0, or what is no number whatever else there is
        none = ns.logical_or(md.all(ns.ne(size, 0.0), axis, True), md.any(ns.isnan(size), axis, True))
        powers = md.sum(ns.pow(ns.where(none, size, 1.0), float(ord)), axis, keepdims)
        return ns.where(none if keepdims else ns.reshape(none, shape=powers.shape), ns.pow(powers, 1.0 / ord), 0.0)
    if ord < 1:  # the slope at 0 is infinite on both sides; 0 lies between
        zero = ns.eq(size, 0.0)
        powers = ns.where(zero, 0.0, ns.pow(ns.where(zero, 1.0, size), float(ord)))
    else:
        powers = ns.pow(size, float(ord))
    return ns.root(md.sum(powers, axis, keepdims), p=float(ord))


def norm(x: Any, /, ord: Any = None, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """vector_norm under its short name; ord None or "fro" is 2.

    >>> md.norm(md.tensor([3.0, 4.0])).item()
    5.0
    """
    return vector_norm(x, axis=axis, keepdims=keepdims, ord=2 if ord in (None, "fro") else ord)


def count_nonzero(x: Any, /, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """How many elements over axes are not 0, as int64.

    >>> md.count_nonzero(md.tensor([0, 3, 4])).item()
    2
    """
    return md.sum(cast(ns.ne(operand(x), 0), md.int64), axis, keepdims)


def diff(x: Any, /, *, axis: int = -1, n: int = 1, prepend: Any = None, append: Any = None) -> Tensor:
    """The differences x[i + 1] - x[i] along an axis, n times over; prepend and append are joined to x first (they differ along the axis alone).

    Raises ValueError for a negative n, and TypeError for bools.

    >>> md.diff(md.tensor([1, 4, 9, 16]), n=2).tolist()
    [2, 2]
    """
    x = operand(x)
    a = axis_index("diff", axis, x.ndim)
    if n < 0:
        raise ValueError(f"diff: n is {n}; it counts differences, so at least 0")
    parts = [operand(v, x) for v in (prepend, x, append) if v is not None]
    x = md.concat(parts, axis=a) if len(parts) > 1 else md.positive(x)
    while n and x.shape[a]:  # of nothing, nothing
        n -= 1
        size = x.shape[a]
        x = ns.sub(cut(x, a, 1, size), cut(x, a, 0, size - 1))
    return x


#: What a method of quantile makes of a place between two elements.
_PLACES: dict[str, Callable[[Any, Any, Any, Any], Any]] = {
    "linear": lambda p, floor, ceil, nearest: p, "lower": lambda p, floor, ceil, nearest: floor(p), "higher": lambda p, floor, ceil, nearest: ceil(p),
    "nearest": lambda p, floor, ceil, nearest: nearest(p), "midpoint": lambda p, floor, ceil, nearest: (floor(p) + ceil(p)) * 0.5,
}  # fmt: skip


def quantile(x: Any, q: Any, /, axis: Axis = None, keepdims: bool = False, *, method: str = "linear") -> Tensor:
    """The q-quantiles over axes, interpolated linearly between the two nearest elements; nan if there is one. q: a number in [0, 1], or several,
    which become the first axis of the result. The gradient goes to the elements at these places in stable order, and to a q that is a float Tensor.
    method: "linear", or of the two elements the "lower", the "higher", the "nearest", or their mean, "midpoint".

    Raises ValueError for another method, an empty axis, or q outside [0, 1], where it can be looked at (elsewhere it is clipped, see
    md.out_of_bounds).

    >>> md.quantile(md.tensor([1.0, 2.0, 3.0, 4.0]), 0.5).item()
    2.5
    """
    if method not in _PLACES:
        raise ValueError(f"quantile: method is one of {', '.join(_PLACES)}, not {method!r}")
    x, between = _floating(operand(x)), _PLACES[method]
    many = (q.ndim == 1) if isinstance(q, Tensor) else hasattr(q, "__len__")
    looked = seen(q) if isinstance(q, Tensor) else None
    symbolic = isinstance(q, Tensor) and q.ndim <= 1 and (q.node is not None or looked is None)
    levels = [] if symbolic else [float(v) for v in (q if many else (q,))]
    if symbolic and looked is None:
        expect(lambda: ns.logical_not(ns.logical_and(ns.ge(q, 0), ns.le(q, 1))), ValueError, "quantile: a q is not between 0 and 1")
    elif symbolic:
        levels = [float(v) for v in looked[0].reshape(-1)]  # type: ignore[index]
    if not math.prod(x.shape) or not (symbolic or levels):
        raise ValueError(f"quantile: {describe(x)} is empty" if levels or symbolic else "quantile: no q came")
    for v in levels:
        if not 0 <= v <= 1:
            raise ValueError(f"quantile: q is {v}; it lies between 0 and 1")

    axes = axes_tuple("quantile", axis, x.ndim)
    shape = tuple(1 if a in axes else n for a, n in enumerate(x.shape) if keepdims or a not in axes)
    if len(axes) != 1:  # they are made one first, the last
        rest = tuple(a for a in range(x.ndim) if a not in axes)
        size = math.prod(x.shape[a] for a in axes)
        x, axes = ns.reshape(ns.permute(x, axes=(*rest, *axes)), shape=(*(x.shape[a] for a in rest), size)), (len(rest),)
    (a,) = axes
    n = x.shape[a]
    ordered = ns.take_along(x, ns.argsort(x, axis=a, descending=False), axis=a)
    last = cut(ordered, a, n - 1, n)  # nan sorts last
    if symbolic:
        place = ns.mul(ns.reshape(ns.clip(cast(q, x.dtype), 0, 1), shape=(int(q.size), *(1,) * (x.ndim - a - 1))), n - 1)
        place = between(place, ns.floor, ns.ceil, ns.round)
        low, part = ns.floor(place), ns.sub(place, ns.floor(place))
        ends = [md.take(ordered, ns.reshape(cast(e, md.int64), shape=(int(q.size),)), axis=a) for e in (low, ns.ceil(place))]
        mixed = ns.add(ns.mul(ends[0], ns.sub(1, part)), ns.mul(ends[1], part))
        out = ns.where(ns.isnan(last), last, ns.where(ns.gt(part, 0), mixed, ends[0]))
        out = ns.permute(out, axes=(a, *(i for i in range(x.ndim) if i != a)))
        return ns.reshape(out, shape=(int(q.size), *shape) if many else shape)
    outs = []
    for level in levels:
        place = between(level * (n - 1), math.floor, math.ceil, round)
        low = int(place)
        part = place - low
        out = cut(ordered, a, low, low + 1)
        if part:
            out = ns.add(ns.mul(out, 1 - part), ns.mul(cut(ordered, a, low + 1, low + 2), part))
        outs.append(ns.reshape(ns.where(ns.isnan(last), last, out), shape=(1, *shape) if many else shape))
    return ns.concat(*outs, axis=0) if many else outs[0]


def median(x: Any, /, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """The middle element over axes in sorted order, or the mean of the two middle ones; nan if there is one.

    >>> md.median(md.tensor([4.0, 1.0, 3.0, 2.0])).item()
    2.5
    """
    return quantile(x, 0.5, axis, keepdims)


check_all(globals(), __all__)
