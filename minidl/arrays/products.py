"""Products of two arrays beside matmul; sums of them lower to dot_general."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import minidl as md
from minidl import Tensor
from minidl.extend import axis_index, check_all, describe, ns, operand

__all__ = ["dot", "outer", "tensordot", "vecdot"]


def tensordot(x: Any, y: Any, /, *, axes: int | Sequence[Any] = 2) -> Tensor:
    """The sum of products over axes: the last `axes` of x with the first of y, or a pair of axis lists. Raises ValueError where sizes differ.

    >>> md.tensordot(md.ones((2, 3)), md.ones((3, 4)), axes=1).shape
    (2, 4)
    """
    x = operand(x)
    y = operand(y, x)
    if isinstance(axes, int):
        if not 0 <= axes <= min(x.ndim, y.ndim):
            raise ValueError(f"tensordot: {axes} axes of {describe(x)} and {describe(y)}")
        pair = (range(x.ndim - axes, x.ndim), range(axes))
    else:
        pair = tuple((a,) if isinstance(a, int) else tuple(a) for a in axes)  # type: ignore[assignment]
    left, right = (tuple(axis_index("tensordot", a, v.ndim) for a in p) for p, v in zip(pair, (x, y), strict=True))
    if len(left) != len(right) or any(x.shape[a] != y.shape[b] for a, b in zip(left, right, strict=True)):
        raise ValueError(f"tensordot: axes {left} of {describe(x)} and {right} of {describe(y)} differ in number or size")
    return ns.dot_general(x, y, contract=(left, right), batch=((), ()))


def dot(x: Any, y: Any, /) -> Tensor:
    """The product as in NumPy: inner for vectors, matrix product for matrices, the last axis of x with the last but one of y beyond.

    >>> md.dot(md.tensor([1.0, 2.0]), md.tensor([3.0, 4.0])).item()
    11.0
    """
    x = operand(x)
    y = operand(y, x)
    if not x.ndim or not y.ndim:
        return ns.mul(x, y)
    return md.matmul(x, y) if y.ndim <= 2 else tensordot(x, y, axes=((-1,), (-2,)))


def vecdot(x: Any, y: Any, /, *, axis: int = -1) -> Tensor:
    """The sum over one axis of conj(x) * y, the others broadcasting; of bools whether any product is true, as in matmul.

    Raises ValueError where the sizes of the axis differ.

    >>> md.vecdot(md.tensor([1.0, 2.0]), md.tensor([3.0, 4.0])).item()
    11.0
    """
    x = operand(x)
    y = operand(y, x)
    if not -min(x.ndim, y.ndim) <= axis < 0:
        axis = axis_index("vecdot", axis, min(x.ndim, y.ndim)) - min(x.ndim, y.ndim)
    if x.shape[axis] != y.shape[axis]:
        raise ValueError(f"vecdot: axis {axis} of {describe(x)} and {describe(y)} differs ({x.shape[axis]} != {y.shape[axis]})")
    out = ns.mul(ns.conj(x) if x.dtype.is_complex else x, y)
    return (ns.any if out.dtype is md.bool else ns.sum)(out, axis=(out.ndim + axis,), keepdims=False)


def outer(x: Any, y: Any, /) -> Tensor:
    """x[i] * y[j] for two 1-d arrays. Raises ValueError for others.

    >>> md.outer(md.tensor([1, 2]), md.tensor([3, 4])).tolist()
    [[3, 4], [6, 8]]
    """
    x = operand(x)
    y = operand(y, x)
    if x.ndim != 1 or y.ndim != 1:
        raise ValueError(f"outer: two 1-d arrays wanted, {describe(x)} and {describe(y)} came")
    return ns.mul(ns.reshape(x, shape=(int(x.size), 1)), y)


check_all(globals(), __all__)
