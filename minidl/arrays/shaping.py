"""Borders, triangles, pieces of equal size, elements moved on, and elements repeated."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

import numpy as np

import minidl as md
from minidl import Tensor
from minidl.extend import axis_index, check_all, cut, deciding, describe, fits, from_numpy, home, ns, operand, pairs, scalar_type, shown

__all__ = ["chunk", "pad", "repeat", "roll", "tril", "triu"]


def chunk(x: Any, /, chunks: int, axis: int = 0) -> tuple[Tensor, ...]:
    """At most `chunks` pieces of equal size along an axis, the last may be smaller (as in PyTorch).

    Raises ValueError for less than one piece.

    >>> [c.tolist() for c in md.chunk(md.arange(5), 2)]
    [[0, 1, 2], [3, 4]]
    """
    x = operand(x)
    if chunks < 1:
        raise ValueError(f"chunk: {chunks} chunks; at least 1 is wanted")
    return md.split(x, max(1, -(-x.shape[axis_index("chunk", axis, x.ndim)] // chunks)), axis=axis)


def roll(x: Any, /, shift: int | Sequence[int], axis: int | Sequence[int] | None = None) -> Tensor:
    """Elements moved on along axes, those that fall off coming back at the front (axis None: over the flattened array).

    Raises ValueError where shifts and axes differ in number, IndexError for an axis that x does not have.

    >>> md.roll(md.arange(4), 1).tolist()
    [3, 0, 1, 2]
    """
    x = operand(x)
    if axis is None:
        return ns.reshape(roll(ns.reshape(x, shape=(int(x.size),)), shift, axis=0), shape=x.shape)
    axes = tuple(axis) if isinstance(axis, (tuple, list)) else (axis,)
    steps = tuple(map(operator.index, shift)) if isinstance(shift, (tuple, list)) else (operator.index(shift),) * len(axes)  # type: ignore[arg-type]
    if len(steps) != len(axes):
        raise ValueError(f"roll: {len(steps)} shifts for {len(axes)} axes")
    out = md.positive(x)
    for s, given in zip(steps, axes, strict=True):
        a = axis_index("roll", given, x.ndim)
        n = x.shape[a]
        if n and s % n:
            k = n - s % n
            out = ns.concat(cut(out, a, k, n), cut(out, a, 0, k), axis=a)
    return out


def repeat(x: Any, repeats: Any, /, *more: int, axis: int | None = None) -> Tensor:
    """Each element repeated, along an axis or over the flattened array. repeats: one number for all elements, or one per element (1-d).

    Raises ValueError for negative repeats or another count of them; TypeError for a tensor of repeats under jit and vmap, where the size of the
    result is unknown (a number, list or NumPy array works there too), and for several numbers, by which PyTorch and NumPy mean different things.

    >>> md.repeat(md.stack([md.tensor(1), md.tensor(2)]), [2, 1]).tolist()
    [1, 1, 2]
    """
    if more:
        sizes = ", ".join(map(str, (repeats, *more)))
        raise TypeError(f"repeat: PyTorch's x.repeat({sizes}) is x.tile({sizes}); elements are repeated along an axis by x.repeat(n, axis=...)")
    x = operand(x)
    if axis is None:
        x, axis = ns.reshape(x, shape=(int(x.size),)), 0
    a = axis_index("repeat", axis, x.ndim)
    size = x.shape[a]
    known = isinstance(repeats, Tensor)
    counts = deciding(repeats, "repeat", "give the repeats as an integer or a list of integers") if known else np.asarray(repeats)
    if counts.dtype.kind not in "iu" or counts.ndim > 1 or counts.size not in (1, size) or (counts < 0).any():
        wanted = f"an integer of at least 0 is wanted, or one for each of {size} elements"
        raise ValueError(f"repeat: {describe(repeats)} is no number of repeats; {wanted}")
    if counts.size != 1:
        places = from_numpy(np.repeat(np.arange(size), counts), home(x), md.int64)
        return md.moveaxis(ns.gather(md.moveaxis(x, a, 0), places), 0, a)
    n, lead, rest = int(counts.reshape(())), x.shape[: a + 1], x.shape[a + 1 :]
    fits("repeat", (*lead, n, *rest), x.dtype)
    wide = ns.broadcast_to(ns.reshape(x, shape=(*lead, 1, *rest)), shape=(*lead, n, *rest))
    return ns.reshape(wide, shape=(*lead[:-1], size * n, *rest))


def pad(x: Any, /, widths: Any, value: Any = 0) -> Tensor:
    """A border of one value. widths: an integer, a pair (before, after) for all axes, or one of these per axis; negative ones crop.

    Raises ValueError for widths that crop more than there is or are not one entry per axis, TypeError for a value that is no number.

    >>> md.pad(md.stack([md.tensor(1), md.tensor(2)]), (1, 0)).tolist()
    [0, 1, 2]
    """
    x = operand(x)
    both = pairs("pad", widths, x.ndim)
    if scalar_type(value) is None:
        raise TypeError(f"pad: the value is a number, not {shown(value)}; for others use where or at[...].set")
    fits("pad", tuple(n + abs(lo) + abs(hi) for n, (lo, hi) in zip(x.shape, both, strict=True)), x.dtype)
    if any(w < 0 for p in both for w in p):
        start = tuple(max(-lo, 0) for lo, _ in both)
        stop = tuple(max(a, n + min(hi, 0)) for a, n, (_, hi) in zip(start, x.shape, both, strict=True))
        if any(a > n + min(hi, 0) for a, n, (_, hi) in zip(start, x.shape, both, strict=True)):
            raise ValueError(f"pad: widths {both} crop more of {describe(x)} than there is")
        x = ns.slice(x, start=start, stop=stop, step=(1,) * x.ndim)
        both = tuple((max(lo, 0), max(hi, 0)) for lo, hi in both)
    return ns.pad(x, widths=both, value=value)


def _triangle(name: str) -> Any:
    def function(x: Any, /, k: int = 0) -> Tensor:
        x = operand(x)
        if x.ndim < 2:
            raise ValueError(f"{name}: at least two axes wanted, {x.ndim} came")
        return getattr(ns, name)(x, k=max(-x.shape[-2], min(operator.index(k), x.shape[-1])))

    function.__name__ = function.__qualname__ = name
    part = "above" if name == "tril" else "below"
    function.__doc__ = f"x with zeros {part} the k-th diagonal of its last two axes. Raises ValueError for fewer than two axes."
    function.__doc__ += f"\n\n>>> md.{name}(md.ones((2, 2))).tolist()\n{[[1.0, 0.0], [1.0, 1.0]] if name == 'tril' else [[1.0, 1.0], [0.0, 1.0]]}\n"
    return function


tril, triu = _triangle("tril"), _triangle("triu")


check_all(globals(), __all__)
