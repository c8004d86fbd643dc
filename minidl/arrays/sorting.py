"""Order: sort, argsort, topk, and the places of what is not 0.

Everything is stable, in index order both ways; nan comes last ascending and first descending. What depends on the number of non-zero elements
has a shape that only values know, and so works eagerly alone.
"""

from __future__ import annotations

from typing import Any

import numpy as np

import minidl as md
from minidl import Tensor
from minidl.extend import axis_index, check_all, deciding, describe, from_numpy, home, ns, operand

__all__ = ["argsort", "nonzero", "sort", "topk"]


def argsort(x: Any, /, axis: int = -1, *, descending: bool = False, stable: bool = True) -> Tensor:
    """The int64 positions that sort x along an axis. Raises TypeError for complex numbers.

    >>> md.argsort(md.tensor([3, 1, 2])).tolist()
    [1, 2, 0]
    """
    x = operand(x)
    return ns.argsort(x, axis=axis_index("argsort", axis, x.ndim), descending=descending)


def sort(x: Any, /, axis: int = -1, *, descending: bool = False, stable: bool = True) -> Tensor:
    """x sorted along an axis; the gradient follows each element to where it went.

    >>> md.sort(md.tensor([3, 1, 2]), descending=True).tolist()
    [3, 2, 1]
    """
    x = operand(x)
    a = axis_index("sort", axis, x.ndim)
    return ns.take_along(x, ns.argsort(x, axis=a, descending=descending), axis=a)


class TopK(md.tree.Fields):
    """What topk returns."""

    values: Tensor
    indices: Tensor


def topk(x: Any, /, k: int, axis: int = -1, largest: bool = True, sorted: bool = True) -> TopK:
    """The k largest (or smallest) elements along an axis, in order (without `sorted` too), and their int64 positions; of equal
    ones the first.

    Raises ValueError for a k beyond the axis.

    >>> md.topk(md.tensor([1.0, 3.0, 2.0]), 2).indices.tolist()
    [1, 2]
    """
    x = operand(x)
    a = axis_index("topk", axis, x.ndim)
    if not 0 <= k <= x.shape[a]:
        raise ValueError(f"topk: k is {k}; axis {a} of {describe(x)} has {x.shape[a]} elements")
    places = ns.argtopk(x, axis=a, k=k, largest=largest)
    return TopK(ns.take_along(x, places, axis=a), places)


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
        from_numpy(i, home(x), md.int64)
        for i in np.nonzero(deciding(x, "nonzero", "md.where keeps all elements; or call nonzero outside the traced function"))
    )


check_all(globals(), __all__)
