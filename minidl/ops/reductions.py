"""Reductions, cumulative operations, softmax and norms.

`axis` is None (all axes), an integer or a tuple. Sums and products of integers and bools are int64 (uint64 for unsigned); statistics of integers are
of the default float. Ties of max, min and their running forms share the gradient; norms have derivative 0 at 0; a row of -inf has softmax 0.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from minidl import later, shapes
from minidl.dtypes import canonical
from minidl.errors import contract, refused
from minidl.ops.common import Tensor, cast, describe, dtypes, eager_on_cpu, fresh, ns, operand, permuted, reshaped, table, values

__all__ = [
    "all", "any", "argmax", "argmin", "count_nonzero", "cumulative_logsumexp", "cumulative_max", "cumulative_min", "cumulative_prod",
    "cumulative_sum", "diff", "log_softmax", "logsumexp", "max", "mean", "median", "min", "norm", "prod", "quantile", "softmax", "std", "sum", "var",
    "vector_norm",
]  # fmt: skip

Axis = int | tuple[int, ...] | None


def _in(name: str, x: Tensor, dtype: Any) -> Tensor:
    if canonical(dtype) is dtypes.bool_:
        raise TypeError(f"{name}: dtype bool is no number dtype; any and all are what sums and products of bools would be")
    return cast(x, canonical(dtype))


def _wide(name: str, x: Tensor, dtype: Any) -> Tensor:
    if dtype is not None:
        return _in(name, x, dtype)
    if x.dtype.inexact:
        return x
    return cast(x, dtypes.uint64 if x.dtype.kind == "uint" else dtypes.int64)


def _floating(x: Tensor) -> Tensor:
    return x if x.dtype.inexact else cast(x, dtypes.Defaults.floating)


def _one_axis(name: str, x: Tensor, axis: Axis, keepdims: bool, f: Callable[[Tensor, int, bool], Tensor]) -> Tensor:
    """f(x, axis, keepdims) for a function of one axis, over several: they are made one first."""
    axes = shapes.axes_tuple(name, axis, x.ndim)
    if len(axes) == 1:
        return f(x, axes[0], keepdims)
    rest = tuple(a for a in range(x.ndim) if a not in axes)
    kept = tuple(x.shape[a] for a in rest)
    flat = ns.reshape(permuted(x, (*rest, *axes)), shape=(*kept, shapes.prod(x.shape[a] for a in axes)))
    out = f(flat, len(rest), False)
    return reshaped(out, shapes.reduced(x.shape, axes, True)) if keepdims else out


def sum(x: Any, /, axis: Axis = None, keepdims: bool = False, *, dtype: Any = None) -> Tensor:
    """The sum over axes; 0 over none. dtype: computed in it. Raises TypeError for dtype bool.

    >>> md.sum(md.tensor(True)).dtype
    minidl.int64
    """
    try:
        x = operand(x)
        x = x if dtype is None and x.dtype.inexact else _wide("sum", x, dtype)
        axes = shapes.axes_tuple("sum", axis, x.ndim)
        if keepdims is not False and keepdims is not True:
            contract(sum).look("keepdims", keepdims)
        return ns.sum(x, axis=axes, keepdims=keepdims) if axes else fresh(x)
    except Exception as error:
        raise refused(sum, error, x, axis, keepdims, dtype=dtype) from None


def prod(x: Any, /, axis: Axis = None, keepdims: bool = False, *, dtype: Any = None) -> Tensor:
    """The product over axes; 1 over none. Its derivative divides by nothing, so zeros are no special case. Raises TypeError for dtype bool.

    >>> md.prod(md.tensor([2, 3, 4])).item()
    24
    """
    return _one_axis("prod", _wide("prod", operand(x), dtype), axis, keepdims, lambda v, a, keep: ns.prod(v, axis=(a,), keepdims=keep))


def _example(call: str, result: object) -> str:
    return f"\n\n>>> md.{call}\n{result}\n".replace("'", "")


def _extreme(name: str, text: str) -> Any:
    primitive = getattr(ns, name)

    def function(x: Any, /, axis: Axis = None, keepdims: bool = False) -> Tensor:
        try:
            x = operand(x)
            axes = shapes.axes_tuple(name, axis, x.ndim)
            if keepdims is not False and keepdims is not True:
                contract(function).look("keepdims", keepdims)
            if 0 in x.shape:
                table[name].infer(x, axis=axes, keepdims=keepdims)  # some backends have an answer for the maximum of nothing
            return primitive(x, axis=axes, keepdims=keepdims) if axes else fresh(x)
        except Exception as error:
            if isinstance(axis, Tensor) and isinstance(x, Tensor):
                return getattr(ns, f"{name}imum")(x, axis)
            raise refused(function, error, x, axis, keepdims) from None

    function.__name__ = function.__qualname__ = name
    function.__doc__ = f"The {text} element over axes; nan if there is one; ties share the gradient. Raises ValueError over nothing."
    function.__doc__ += f" Of two tensors: md.{name}imum."
    function.__doc__ += _example(f"{name}(md.tensor([[1, 5], [7, 2]]), axis=0).tolist()", [7, 5] if name == "max" else [1, 2])
    return function


def _test(name: str, text: str) -> Any:
    primitive = getattr(ns, name)

    def function(x: Any, /, axis: Axis = None, keepdims: bool = False) -> Tensor:
        x = operand(x)
        x = x if x.dtype is dtypes.bool_ else ns.ne(x, 0)
        axes = shapes.axes_tuple(name, axis, x.ndim)
        return primitive(x, axis=axes, keepdims=keepdims) if axes else fresh(x)

    function.__name__ = function.__qualname__ = name
    function.__doc__ = f"Whether {text} over axes is true (not 0). The result is bool."
    function.__doc__ += _example(f"{name}(md.tensor([0, 3])).item()", name == "any")
    return function


def _place(name: str, text: str) -> Any:
    primitive = getattr(ns, name)

    def function(x: Any, /, axis: int | None = None, keepdims: bool = False) -> Tensor:
        try:
            x = operand(x)
            if keepdims is not False and keepdims is not True:
                contract(function).look("keepdims", keepdims)
            if 0 in x.shape:
                given = 0 if axis is None else shapes.axis_index(name, axis, x.ndim)
                table[name].infer(x if axis is not None else reshaped(x, (int(x.size),)), axis=given, keepdims=keepdims)
            if axis is None:
                out = primitive(ns.reshape(x, shape=(int(x.size),)), axis=0, keepdims=False)
                return ns.reshape(out, shape=(1,) * x.ndim) if keepdims else out
            return primitive(x, axis=shapes.axis_index(name, axis, x.ndim), keepdims=keepdims)
        except Exception as error:
            raise refused(function, error, x, axis, keepdims) from None

    function.__name__ = function.__qualname__ = name
    function.__doc__ = f"The int64 position of the first {text} element along an axis (or in the flattened array); nan counts as the {text}."
    function.__doc__ += _example(f"{name}(md.tensor([3, 9, 1])).item()", 1 if name == "argmax" else 2)
    return function


max, min = _extreme("max", "largest"), _extreme("min", "smallest")
any, all = _test("any", "anything"), _test("all", "everything")
argmax, argmin = _place("argmax", "largest"), _place("argmin", "smallest")


def _count(x: Tensor, axes: tuple[int, ...]) -> int:
    return shapes.prod(x.shape[a] for a in axes)


def mean(x: Any, /, axis: Axis = None, keepdims: bool = False, *, dtype: Any = None) -> Tensor:
    """The mean over axes; nan over none. 16-bit floats are summed in float32. Raises TypeError for dtype bool.

    >>> md.mean(md.tensor([[1.0, 2.0], [3.0, 6.0]]), axis=0).tolist()
    [2.0, 4.0]
    """
    try:
        x = operand(x)
        x = _floating(x) if dtype is None else _in("mean", x, dtype)
        axes = shapes.axes_tuple("mean", axis, x.ndim)
        if keepdims is not False and keepdims is not True:
            contract(mean).look("keepdims", keepdims)
        if not axes:
            return fresh(x)
        total = ns.sum(cast(x, dtypes.float32) if x.dtype.bits == 16 else x, axis=axes, keepdims=keepdims)
        return cast(ns.div(total, float(_count(x, axes))), x.dtype)
    except Exception as error:
        raise refused(mean, error, x, axis, keepdims, dtype=dtype) from None


def var(x: Any, /, axis: Axis = None, *, correction: float = 0.0, keepdims: bool = False) -> Tensor:
    """The mean squared distance from the mean over axes, divided by (count - correction): 0 as in the Array API, 1 for the unbiased estimate
    that PyTorch has by default.

    >>> md.var(md.tensor([1.0, 3.0]), correction=1).item()
    2.0
    """
    x = _floating(operand(x))
    axes = shapes.axes_tuple("var", axis, x.ndim)
    wide = cast(x, dtypes.float32) if x.dtype.bits == 16 else x
    total = sum(_squares(ns.sub(wide, mean(wide, axes, True))), axes, keepdims)
    n = _count(x, axes) - correction
    return cast(ns.div(total, float(n if n > 0 else 0)), x.dtype.real)


def std(x: Any, /, axis: Axis = None, *, correction: float = 0.0, keepdims: bool = False) -> Tensor:
    """The square root of var, with derivative 0 where it is 0.

    >>> md.std(md.tensor([1.0, 3.0])).item()
    1.0
    """
    return ns.root(var(x, axis, correction=correction, keepdims=keepdims), p=2)


def _squares(x: Tensor) -> Tensor:
    return ns.add(ns.square(ns.real(x)), ns.square(ns.imag(x))) if x.dtype.is_complex else ns.square(x)


def vector_norm(x: Any, /, *, axis: Axis = None, keepdims: bool = False, ord: float = 2) -> Tensor:
    """The norm of the elements over axes: ord 2, 1, inf, -inf, 0 (how many are not 0), or any other p, the pth root of the sum of pth powers.

    Derivative 0 at 0, and for p < 0, where one 0 makes the norm 0, at any 0. 16-bit floats are summed in float32.

    >>> md.vector_norm(md.tensor([3.0, 4.0])).item()
    5.0
    """
    x = _floating(operand(x))
    if x.dtype.bits == 16:
        return cast(vector_norm(cast(x, dtypes.float32), axis=axis, keepdims=keepdims, ord=ord), x.dtype)
    if ord == 2:
        return ns.root(sum(_squares(x), axis, keepdims), p=2)
    if ord == 0:
        return sum(cast(ns.ne(x, 0), x.dtype.real), axis, keepdims)
    size = ns.abs(x)
    if ord == 1:
        return sum(size, axis, keepdims)
    if math.isinf(ord):
        return (max if ord > 0 else min)(size, axis, keepdims)
    if ord < 0:
        none = ns.logical_or(all(ns.ne(size, 0.0), axis, True), any(ns.isnan(size), axis, True))  # no 0, or what is no number whatever else there is
        powers = sum(ns.pow(ns.where(none, size, 1.0), float(ord)), axis, keepdims)
        return ns.where(none if keepdims else ns.reshape(none, shape=powers.shape), ns.pow(powers, 1.0 / ord), 0.0)
    if ord < 1:  # the slope at 0 is infinite on both sides; 0 lies between
        zero = ns.eq(size, 0.0)
        powers = ns.where(zero, 0.0, ns.pow(ns.where(zero, 1.0, size), float(ord)))
    else:
        powers = ns.pow(size, float(ord))
    return ns.root(sum(powers, axis, keepdims), p=float(ord))


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
    return sum(cast(ns.ne(operand(x), 0), dtypes.int64), axis, keepdims)


def logsumexp(x: Any, /, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """log(sum(exp(x))) over axes without overflow; -inf (with derivative 0) where all elements are -inf.

    >>> round(md.logsumexp(md.tensor([1000.0, 1000.0])).item(), 2)
    1000.69
    """
    return _one_axis("logsumexp", _floating(operand(x)), axis, keepdims, lambda v, a, keep: ns.logsumexp(v, axis=(a,), keepdims=keep))


def softmax(x: Any, /, axis: int = -1) -> Tensor:
    """exp(x) / sum(exp(x)), 0 where all elements are -inf, along an axis; integers become the default float.

    >>> md.softmax(md.tensor([0.0, 0.0])).tolist()
    [0.5, 0.5]
    """
    try:
        x = operand(x)
        return ns.softmax(x, axis=shapes.axis_index("softmax", axis, x.ndim))
    except Exception as error:
        raise refused(softmax, error, x, axis) from None


def log_softmax(x: Any, /, axis: int = -1, *, at: Any = None) -> Tensor:
    """The logarithm of softmax, -inf where all elements are -inf, along an axis; integers become the default float.

    at: integers of x's shape without that axis; the result has that shape, the element at each place, and 0 where there is no such place. It
    is what a cross-entropy wants, and no array of x's shape is made for it.

    >>> md.log_softmax(md.tensor([[0.0, 0.0], [1.0, -1.0]]), at=md.asarray([1, 5])).tolist()
    [-0.693..., 0.0]

    Raises ValueError for places of another shape.
    """
    try:
        x = operand(x)
        axis = shapes.axis_index("log_softmax", axis, x.ndim)
        return ns.log_softmax(x, axis=axis) if at is None else ns.log_softmax_at(x, operand(at, x), axis=axis)
    except Exception as error:
        raise refused(log_softmax, error, x, axis, at=at) from None


def _cumulative(name: str, primitive: str, text: str, start: float | None, wide: bool, shown: list[Any]) -> Any:
    def function(x: Any, /, *, axis: int | None = None, dtype: Any = None, include_initial: bool = False, reverse: bool = False) -> Tensor:
        x = operand(x)
        x = _wide(name, x, dtype) if wide or dtype is not None else x
        if axis is None:
            if x.ndim > 1:
                raise ValueError(f"{name}: {describe(x)} has {x.ndim} axes; say which one with axis=")
            x, axis = reshaped(x, (int(x.size),)), 0
        a = shapes.axis_index(name, axis, x.ndim)
        out = getattr(ns, primitive)(x, axis=a, reverse=reverse)
        if not include_initial:
            return out
        if start is None:
            raise ValueError(f"{name}: there is no initial element to include")
        ends = (0, 1) if reverse else (1, 0)
        return ns.pad(out, widths=tuple(ends if i == a else (0, 0) for i in range(x.ndim)), value=start)

    function.__name__ = function.__qualname__ = name
    function.__doc__ = f"The running {text} along an axis, from the end if reverse; include_initial puts the empty one in front."
    function.__doc__ += "\n\nRaises TypeError for dtype bool, ValueError for several axes of which none is named"
    function.__doc__ += "." if start is not None else " and for include_initial."
    function.__doc__ += _example(f"{name}(md.tensor({'[0.0, 1.0]' if 'log' in name else '[2, 3, 1]'})).tolist()", shown)
    return function


cumulative_sum = _cumulative("cumulative_sum", "cumsum", "sum", 0, True, [2, 5, 6])
cumulative_prod = _cumulative("cumulative_prod", "cumprod", "product", 1, True, [2, 6, 6])
cumulative_max = _cumulative("cumulative_max", "cummax", "maximum (nan from the first nan on)", None, False, [2, 3, 3])
cumulative_min = _cumulative("cumulative_min", "cummin", "minimum (nan from the first nan on)", None, False, [2, 2, 1])
cumulative_logsumexp = _cumulative("cumulative_logsumexp", "cumlogsumexp", "logsumexp", -math.inf, False, [0.0, "1.313..."])


def diff(x: Any, /, *, axis: int = -1, n: int = 1, prepend: Any = None, append: Any = None) -> Tensor:
    """The differences x[i + 1] - x[i] along an axis, n times over; prepend and append are joined to x first (they differ along the axis alone).

    Raises ValueError for a negative n, and TypeError for bools.

    >>> md.diff(md.tensor([1, 4, 9, 16]), n=2).tolist()
    [2, 2]
    """
    from minidl.ops.manipulation import concat, cut

    x = operand(x)
    a = shapes.axis_index("diff", axis, x.ndim)
    if n < 0:
        raise ValueError(f"diff: n is {n}; it counts differences, so at least 0")
    parts = [operand(v, x) for v in (prepend, x, append) if v is not None]
    x = concat(parts, axis=a) if len(parts) > 1 else fresh(x)
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
    from minidl.ops.indexing import take
    from minidl.ops.manipulation import cut, moveaxis, stack

    if method not in _PLACES:
        raise ValueError(f"quantile: method is one of {', '.join(_PLACES)}, not {method!r}")
    x, between = _floating(operand(x)), _PLACES[method]
    many = (q.ndim == 1) if isinstance(q, Tensor) else hasattr(q, "__len__")
    symbolic = isinstance(q, Tensor) and q.ndim <= 1 and (q.node is not None or not eager_on_cpu(q))
    levels = [] if symbolic else [float(v) for v in (q if many else (q,))]
    if symbolic and not eager_on_cpu(q) and later.policy() == "raise-later":
        later.expect(ns.logical_not(ns.logical_and(ns.ge(q, 0), ns.le(q, 1))), ValueError, "quantile: a q is not between 0 and 1")
    elif symbolic and eager_on_cpu(q):
        levels = [float(v) for v in values(q, "quantile").reshape(-1)]
    if not shapes.prod(x.shape):
        raise ValueError(f"quantile: {describe(x)} is empty")
    for v in levels:
        if not 0 <= v <= 1:
            raise ValueError(f"quantile: q is {v}; it lies between 0 and 1")

    def over(v: Tensor, a: int, keep: bool) -> Tensor:
        n = v.shape[a]
        ordered = ns.take_along(v, ns.argsort(v, axis=a, descending=False), axis=a)
        last = cut(ordered, a, n - 1, n)  # nan sorts last
        if symbolic:
            place = ns.mul(reshaped(ns.clip(cast(q, v.dtype), 0, 1), (shapes.prod(q.shape), *(1,) * (v.ndim - a - 1))), n - 1)
            place = between(place, ns.floor, ns.ceil, ns.round)
            low, part = ns.floor(place), ns.sub(place, ns.floor(place))
            ends = [take(ordered, reshaped(cast(e, dtypes.int64), (shapes.prod(q.shape),)), axis=a) for e in (low, ns.ceil(place))]
            mixed = ns.add(ns.mul(ends[0], ns.sub(1, part)), ns.mul(ends[1], part))
            return moveaxis(ns.where(ns.isnan(last), last, ns.where(ns.gt(part, 0), mixed, ends[0])), a, -1)
        outs = []
        for level in levels:
            place = between(level * (n - 1), math.floor, math.ceil, round)
            low = int(place)
            part = place - low
            out = cut(ordered, a, low, low + 1)
            if part:
                out = ns.add(ns.mul(out, 1 - part), ns.mul(cut(ordered, a, low + 1, low + 2), part))
            outs.append(ns.where(ns.isnan(last), last, out))
        shape = shapes.reduced(v.shape, (a,), keep)
        return stack([reshaped(o, shape) for o in outs], axis=-1)

    axes = shapes.axes_tuple("quantile", axis, x.ndim)
    if not axes:
        x, axes = ns.reshape(x, shape=(*x.shape, 1)), (x.ndim,)
        keepdims = False
    out = _one_axis("quantile", x, axes, False, over)
    shape = shapes.reduced(x.shape, axes, keepdims)
    if not many:
        return reshaped(out, shape)
    return reshaped(permuted(out, (out.ndim - 1, *range(out.ndim - 1))), (out.shape[-1], *shape))


def median(x: Any, /, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """The middle element over axes in sorted order, or the mean of the two middle ones; nan if there is one.

    >>> md.median(md.tensor([4.0, 1.0, 3.0, 2.0])).item()
    2.5
    """
    return quantile(x, 0.5, axis, keepdims)
