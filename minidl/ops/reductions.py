"""Reductions, cumulative operations and softmax.

`axis` is None (all axes), an integer or a tuple. Sums and products of integers and bools are int64 (uint64 for unsigned); the mean of
integers is of the default float. Ties of max, min and their running forms share the gradient; a row of -inf has softmax 0.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from minidl import shapes
from minidl.dtypes import canonical
from minidl.errors import contract, refused
from minidl.ops.common import Tensor, cast, describe, dtypes, fresh, ns, operand, permuted, reshaped, table

__all__ = [
    "all", "any", "argmax", "argmin", "cumulative_logsumexp", "cumulative_max", "cumulative_min", "cumulative_prod", "cumulative_sum",
    "log_softmax", "logsumexp", "max", "mean", "min", "prod", "softmax", "sum",
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
