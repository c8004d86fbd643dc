"""Search in what is sorted, membership, and the distinct values, whose number only values know: those work eagerly alone."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

import minidl as md
from minidl import Tensor
from minidl.extend import check_all, create, deciding, describe, from_numpy, home, ns, operand

__all__ = ["isin", "searchsorted", "unique_all", "unique_counts", "unique_inverse", "unique_values"]


def searchsorted(x1: Any, x2: Any, /, *, side: str = "left", sorter: Any = None) -> Tensor:
    """Where the elements of x2 belong in the sorted 1-d array x1: before equal ones ("left") or after ("right"). nan counts as the largest.

    Binary search in log2(n) steps over all of x2 at once. An x1 of more axes has those before the last in common with x2, and each row is for itself,
    as in PyTorch. Raises ValueError for another side or other leading axes.

    >>> md.searchsorted(md.tensor([1, 3, 5]), md.tensor([3, 4])).tolist()
    [1, 2]
    """
    x1 = operand(x1)
    x2 = operand(x2, x1)
    if side not in ("left", "right"):
        raise ValueError(f"searchsorted: side {describe(side)} is neither 'left' nor 'right'")
    if not x1.ndim or (x1.ndim > 1 and x1.shape[:-1] != x2.shape[:-1]):
        raise ValueError(f"searchsorted: the sorted array must be 1-d, or have the leading axes of {describe(x2)}, not be {describe(x1)}")
    if sorter is not None:
        order = operand(sorter, x1)
        if order.ndim != x1.ndim:
            raise ValueError(f"searchsorted: the sorter {describe(order)} must have as many axes as the sorted array {describe(x1)}")
        x1 = md.take_along_axis(x1, order, axis=-1)
    if x1.ndim > 1:
        if not x2.size:
            return create("full", home(x1), md.int64, shape=x2.shape, value=0)
        flat = (md.reshape(a, (math.prod(a.shape[:-1]), a.shape[-1])) for a in (x1, x2))
        rows = md.vmap(lambda row, values: searchsorted(row, values, side=side))(*flat)
        return md.reshape(rows, x2.shape)
    n = x1.shape[0]
    low = ns.broadcast_to(create("full", home(x1), md.int64, shape=(), value=0), shape=x2.shape)
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
        ordered = md.sort(many)
        found = ns.eq(ns.gather(ordered, ns.clip(searchsorted(ordered, x1), 0, x2.size - 1)), x1)
    return ns.logical_not(found) if invert else found


class UniqueAll(md.tree.Fields):
    """What unique_all returns."""

    values: Tensor
    indices: Tensor
    inverse_indices: Tensor
    counts: Tensor


class UniqueCounts(md.tree.Fields):
    """What unique_counts returns."""

    values: Tensor
    counts: Tensor


class UniqueInverse(md.tree.Fields):
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
    index, inverse, counts = (from_numpy(np.asarray(v), home(x), md.int64) for v in found[1:])
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


check_all(globals(), __all__)
