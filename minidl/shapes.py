"""Arithmetic on shapes and axes, and how they are shown in messages."""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from numbers import Number
from typing import Any

Shape = tuple[int, ...]
prod = math.prod


def broadcast(*shapes: Sequence[int]) -> Shape:
    """The common shape under NumPy's broadcasting. Raises ValueError where sizes differ and none is 1."""
    first = tuple(shapes[0])
    if all(tuple(s) == first for s in shapes[1:]):
        return first
    out: list[int] = []
    for i in range(1, max(map(len, shapes)) + 1):
        sizes = {s[-i] for s in shapes if len(s) >= i} - {1}
        if len(sizes) > 1:
            raise ValueError(f"shapes {', '.join(map(str, shapes))} do not broadcast")
        out.append(sizes.pop() if sizes else 1)
    return tuple(reversed(out))


def reduced(shape: Sequence[int], axis: Sequence[int], keepdims: bool) -> Shape:
    """The shape after reducing over the axes."""
    if keepdims:
        return tuple(1 if i in axis else s for i, s in enumerate(shape))
    return tuple(s for i, s in enumerate(shape) if i not in axis)


def describe(x: Any) -> str:
    """What messages call an array, or anything else that has a dtype and a shape; what has none is shown as it is.

    >>> describe(md.ones((3, 4)))
    'f32[3,4]'
    """
    return f"{x.dtype.short}[{','.join(map(str, x.shape))}]" if hasattr(x, "shape") else repr(x)


def show(*xs: Any) -> str:
    """`f32[3,4], i64[]`: several of them."""
    return ", ".join(map(describe, xs))


def shown(value: Any) -> str:
    """An argument as messages show it: f32[2,3] for an array, else its short text.

    >>> md.extend.shown((md.ones((2, 3)), 5, object()))
    '(f32[2,3], 5, object)'
    """
    dtype = getattr(value, "dtype", None)
    if dtype is not None and isinstance(getattr(value, "shape", None), tuple):
        return f"{getattr(dtype, 'short', dtype)}[{','.join(map(str, value.shape))}]"
    if isinstance(value, (tuple, list)):
        open_, close = "()" if isinstance(value, tuple) else "[]"
        return open_ + ", ".join(map(shown, value[:8])) + (", …" if len(value) > 8 else "," * (len(value) == 1 and open_ == "(")) + close
    if isinstance(value, (Number, str, bytes, type(None), type, slice)) or value is Ellipsis:
        text = repr(value)
        return text if len(text) <= 60 else text[:57] + "..."
    return repr(value) if type(value).__name__ == "DType" else type(value).__name__


def axis_index(name: str, axis: Any, ndim: int) -> int:
    """One axis, counted from the front. Raises TypeError or IndexError with the operation's name.

    >>> axis_index("flip", -1, 3)
    2
    """
    try:
        i = operator.index(axis)
    except TypeError:
        raise TypeError(f"{name}: axis must be an integer, not {shown(axis)}") from None
    if not -ndim <= i < ndim:
        raise IndexError(f"{name}: axis {i} is out of range for {ndim} dimension{'s' * (ndim != 1)}")
    return i + ndim if i < 0 else i


def axes_tuple(name: str, axis: Any, ndim: int) -> tuple[int, ...]:
    """None (all axes), one axis or several → a sorted tuple of axes from the front. Raises for repeated ones.

    >>> axes_tuple("sum", (-1, 0), 3)
    (0, 2)
    """
    if axis is None:
        return tuple(range(ndim))
    if isinstance(axis, (tuple, list)):
        axes = tuple(sorted(axis_index(name, a, ndim) for a in axis))
        if len(set(axes)) != len(axes):
            raise ValueError(f"{name}: axis {tuple(axis)} names an axis twice")
        return axes
    return (axis_index(name, axis, ndim),)


def size_tuple(name: str, shape: Any) -> Shape:
    """A shape from an integer or a sequence of integers. Raises TypeError or ValueError with the operation's name.

    >>> size_tuple("zeros", 3)
    (3,)
    """
    try:
        out = (operator.index(shape),) if hasattr(shape, "__index__") else tuple(map(operator.index, shape))
    except TypeError:
        raise TypeError(f"{name}: a shape is made of integers, not {shown(shape)}; under jit sizes must be static") from None
    if out and min(out) < 0:
        raise ValueError(f"{name}: negative size in shape {shown(out)}")
    if out and max(out) >= 2**63:
        raise ValueError(f"{name}: a size beyond 64 bits in shape {shown(out)}")
    return out
