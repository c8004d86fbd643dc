"""Order: sort, argsort, topk, search, and the distinct values.

Everything is stable, in index order both ways; nan comes last ascending and first descending. What depends on the number of distinct or non-zero
elements has a shape that only values know, and so works eagerly alone.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from minidl import shapes
from minidl.ops.common import Tensor, create, deciding, describe, dtypes, from_numpy, home, ns, operand, shown
from minidl.tree import Fields

__all__ = ["argsort", "isin", "nonzero", "searchsorted", "sort", "topk", "unique_all", "unique_counts", "unique_inverse", "unique_values"]


def argsort(x: Any, /, axis: int = -1, *, descending: bool = False, stable: bool = True) -> Tensor:
    """The int64 positions that sort x along an axis. Raises TypeError for complex numbers.

    >>> md.argsort(md.tensor([3, 1, 2])).tolist()
    [1, 2, 0]
    """
    x = operand(x)
    return ns.argsort(x, axis=shapes.axis_index("argsort", axis, x.ndim), descending=descending)


def sort(x: Any, /, axis: int = -1, *, descending: bool = False, stable: bool = True) -> Tensor:
    """x sorted along an axis; the gradient follows each element to where it went.

    >>> md.sort(md.tensor([3, 1, 2]), descending=True).tolist()
    [3, 2, 1]
    """
    x = operand(x)
    a = shapes.axis_index("sort", axis, x.ndim)
    return ns.take_along(x, ns.argsort(x, axis=a, descending=descending), axis=a)


class TopK(Fields):
    """What topk returns."""

    values: Tensor
    indices: Tensor


def topk(x: Any, /, k: int, axis: int = -1, *, largest: bool = True) -> TopK:
    """The k largest (or smallest) elements along an axis, in order, and their int64 positions; of equal ones the first.

    Raises ValueError for a k beyond the axis.

    >>> md.topk(md.tensor([1.0, 3.0, 2.0]), 2).indices.tolist()
    [1, 2]
    """
    x = operand(x)
    a = shapes.axis_index("topk", axis, x.ndim)
    if not 0 <= k <= x.shape[a]:
        raise ValueError(f"topk: k is {k}; axis {a} of {describe(x)} has {x.shape[a]} elements")
    places = ns.argtopk(x, axis=a, k=k, largest=largest)
    return TopK(ns.take_along(x, places, axis=a), places)


def searchsorted(x1: Any, x2: Any, /, *, side: str = "left", sorter: Any = None) -> Tensor:
    """Where the elements of x2 belong in the sorted 1-d array x1: before equal ones ("left") or after ("right"). nan counts as the largest.

    Binary search in log2(n) steps over all of x2 at once. Raises ValueError for another side or an x1 that is not 1-d.

    >>> md.searchsorted(md.tensor([1, 3, 5]), md.tensor([3, 4])).tolist()
    [1, 2]
    """
    x1 = operand(x1)
    x2 = operand(x2, x1)
    if side not in ("left", "right"):
        raise ValueError(f"searchsorted: side {shown(side)} is neither 'left' nor 'right'")
    if x1.ndim != 1:
        raise ValueError(f"searchsorted: the sorted array must be 1-d, not {describe(x1)}")
    if sorter is not None:
        from minidl.ops.indexing import take

        x1 = take(x1, operand(sorter, x1))
        if x1.ndim != 1:
            raise ValueError(f"searchsorted: the sorter {describe(x1)} must be 1-d, as the sorted array is")
    n = x1.shape[0]
    low = ns.broadcast_to(create("full", home(x1.xp), dtypes.int64, shape=(), value=0), shape=x2.shape)
    high = ns.add(low, n)
    isnan = ns.isnan(x2) if x2.dtype.inexact else None
    for _ in range(n.bit_length()):
        middle = ns.shift_right(ns.add(low, high), 1)
        v = ns.gather(x1, middle)
        if side == "left":
            after = ns.lt(v, x2) if isnan is None else ns.logical_or(ns.lt(v, x2), ns.logical_and(isnan, ns.logical_not(ns.isnan(v))))
        else:
            after = ns.le(v, x2) if isnan is None else ns.logical_or(ns.le(v, x2), isnan)
        after = ns.logical_and(after, ns.lt(low, high))
        low, high = ns.where(after, ns.add(middle, 1), low), ns.where(after, high, middle)
    return low


def nonzero(x: Any, /) -> tuple[Tensor, ...]:
    """The int64 positions of the elements that are not 0, one array per axis, in row-major order.

    Raises TypeError under jit and vmap, where the number of such elements is unknown (md.where keeps all places); ValueError for a 0-d array.

    >>> [i.tolist() for i in md.nonzero(md.tensor([[0, 1], [2, 0]]))]
    [[0, 1], [1, 0]]
    """
    x = operand(x)
    if not x.ndim:
        raise ValueError("nonzero: a 0-d array has no positions; compare it with 0")
    return tuple(
        from_numpy(i, home(x.xp), dtypes.int64)
        for i in np.nonzero(deciding(x, "nonzero", "md.where keeps all elements; or call nonzero outside the traced function"))
    )


def isin(x1: Any, x2: Any, /, *, invert: bool = False) -> Tensor:
    """Whether each element of x1 equals some element of x2 (invert: none of them), as bool of x1's shape; nan equals nothing.

    A few candidates, or complex ones, are compared one by one; more are sorted and searched.

    >>> md.isin(md.tensor([1, 2, 3]), md.tensor([3, 1])).tolist()
    [True, False, True]
    """
    x1 = operand(x1, x2 if isinstance(x2, Tensor) else None)
    x2 = operand(x2, x1)
    many = ns.reshape(x2, shape=(int(x2.size),))
    if x2.size <= 16 or x1.dtype.is_complex or x2.dtype.is_complex:
        found = ns.any(ns.eq(ns.reshape(x1, shape=(*x1.shape, 1)), many), axis=(x1.ndim,), keepdims=False)
    else:
        ordered = sort(many)
        found = ns.eq(ns.gather(ordered, ns.clip(searchsorted(ordered, x1), 0, x2.size - 1)), x1)
    return ns.logical_not(found) if invert else found


class UniqueAll(Fields):
    """What unique_all returns."""

    values: Tensor
    indices: Tensor
    inverse_indices: Tensor
    counts: Tensor


class UniqueCounts(Fields):
    """What unique_counts returns."""

    values: Tensor
    counts: Tensor


class UniqueInverse(Fields):
    """What unique_inverse returns."""

    values: Tensor
    inverse_indices: Tensor


def unique_all(x: Any, /) -> UniqueAll:
    """The distinct values in ascending order (each nan is one), where each occurs first, where each element went, and how often each occurs.

    Raises TypeError under jit and vmap, where the number of values is unknown (md.sort keeps all elements). The values are differentiable.

    >>> found = md.unique_all(md.tensor([3, 1, 3]))
    >>> found.values.tolist(), found.indices.tolist(), found.inverse_indices.tolist(), found.counts.tolist()
    ([1, 3], [1, 0], [1, 0, 1], [1, 2])
    """
    return _distinct(x, "unique_all")


def _distinct(x: Any, name: str) -> UniqueAll:
    x = operand(x)
    found = np.unique(
        deciding(x, name, f"md.sort keeps all elements; or call {name} outside the traced function"),
        return_index=True,
        return_inverse=True,
        return_counts=True,
        equal_nan=False,
    )
    index, inverse, counts = (from_numpy(np.asarray(v), home(x.xp), dtypes.int64) for v in found[1:])
    return UniqueAll(ns.gather(ns.reshape(x, shape=(int(x.size),)), index), index, ns.reshape(inverse, shape=x.shape), counts)


def unique_values(x: Any, /) -> Tensor:
    """The distinct values in ascending order. Raises TypeError under jit and vmap.

    >>> md.unique_values(md.tensor([3, 1, 3])).tolist()
    [1, 3]
    """
    return _distinct(x, "unique_values").values


def unique_counts(x: Any, /) -> UniqueCounts:
    """The distinct values and how often each occurs. Raises TypeError under jit and vmap.

    >>> md.unique_counts(md.tensor([3, 1, 3])).counts.tolist()
    [1, 2]
    """
    out = _distinct(x, "unique_counts")
    return UniqueCounts(out.values, out.counts)


def unique_inverse(x: Any, /) -> UniqueInverse:
    """The distinct values and where each element of x went. Raises TypeError under jit and vmap.

    >>> md.unique_inverse(md.tensor([3, 1, 3])).inverse_indices.tolist()
    [1, 0, 1]
    """
    out = _distinct(x, "unique_inverse")
    return UniqueInverse(out.values, out.inverse_indices)
