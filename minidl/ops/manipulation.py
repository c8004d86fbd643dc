"""Rearranging arrays: shapes, axes, joining, splitting, tiling. All linear. Results are values, and what is stored in one that PyTorch calls a view
reaches x as well (minidl.ops.views)."""

from __future__ import annotations

import itertools
import operator
from collections.abc import Sequence
from typing import Any

from minidl import shapes
from minidl.context import at_once, busy, state
from minidl.dtypes import DType
from minidl.errors import refused
from minidl.ops.common import (
    Tensor,
    describe,
    fits,
    fresh,
    ns,
    operand,
    permuted,
    reshaped,
)  # fmt: skip
from minidl.tape import Held, opaque_nodes
from minidl.tensors import view as shows

__all__ = [
    "broadcast_arrays", "broadcast_shapes", "broadcast_to", "concat", "diagonal", "expand_dims", "flatten", "flip", "matrix_transpose", "moveaxis",
    "permute_dims", "reshape", "split", "squeeze", "stack", "swapaxes", "tile", "transpose", "unstack", "view",
]  # fmt: skip


def _shaped(x: Tensor, shape: tuple[int, ...]) -> Tensor:
    return shows(ns.reshape(x, shape=shape), x, ("reshape", shape))


def _ordered(x: Tensor, axes: tuple[int, ...]) -> Tensor:
    return shows(ns.permute(x, axes=axes), x, ("permute", axes))


def reshape(x: Any, /, shape: Any, *, copy: bool | None = None) -> Tensor:
    """x in another shape of as many elements, in row-major order; one size may be -1. Raises ValueError where the number does not fit.

    >>> md.reshape(md.tensor(1.0), (1, -1)).shape
    (1, 1)
    """
    try:
        x = operand(x)
        sizes = tuple(map(operator.index, shape)) if not isinstance(shape, int) else (shape,)
        if -1 in sizes:
            known = -shapes.prod(sizes)
            if sizes.count(-1) > 1 or known < 0 or (known and x.size % known) or (not known and x.size):
                raise ValueError(f"reshape: {describe(x)} with {x.size} elements does not fit shape {sizes}")
            sizes = tuple((x.size // known if known else 0) if s == -1 else s for s in sizes)
        elif sizes == x.shape:
            return shows(fresh(x), x, ("reshape", sizes))
        return _shaped(x, shapes.size_tuple("reshape", sizes))
    except Exception as error:
        raise refused(reshape, error, x, shape, copy=copy) from None


def view(x: Any, /, *shape: Any) -> Tensor:
    """reshape with the sizes as arguments, or the same bits as another dtype of the same width: view(x, 2, -1), view(x, md.int32).

    >>> md.view(md.tensor(1.0), md.int32).item()
    1065353216
    """
    if len(shape) == 1 and isinstance(shape[0], DType):
        x = operand(x)
        return shows(ns.bitcast(x, dtype=shape[0]), x, ("bits", shape[0]))
    return reshape(x, shape[0] if len(shape) == 1 else shape)


def flatten(x: Any, /, start_axis: int = 0, end_axis: int = -1) -> Tensor:
    """Make the axes from start_axis to end_axis, both included, one axis.

    Raises ValueError where start_axis lies after end_axis, IndexError for an axis that x does not have.

    >>> md.flatten(md.ones((2, 3, 4)), 1).shape
    (2, 12)
    """
    x = operand(x)
    a, b = (shapes.axis_index("flatten", axis, max(x.ndim, 1)) for axis in (start_axis, end_axis))
    if a > b:
        raise ValueError(f"flatten: start_axis {start_axis} lies after end_axis {end_axis}")
    return reshape(x, (*x.shape[:a], shapes.prod(x.shape[a : b + 1]), *x.shape[b + 1 :]))


def permute_dims(x: Any, /, axes: Sequence[int]) -> Tensor:
    """x with its axes in the given order. Raises ValueError for what is no permutation.

    >>> md.permute_dims(md.ones((2, 3, 4)), (2, 0, 1)).shape
    (4, 2, 3)
    """
    try:
        x = operand(x)
        order = tuple(shapes.axis_index("permute_dims", a, x.ndim) for a in axes)
        return _ordered(x, order)
    except Exception as error:
        raise refused(permute_dims, error, x, axes) from None


def matrix_transpose(x: Any, /) -> Tensor:
    """The last two axes exchanged. Raises ValueError for fewer than two axes.

    >>> md.matrix_transpose(md.ones((5, 2, 3))).shape
    (5, 3, 2)
    """
    x = operand(x)
    if x.ndim < 2:
        raise ValueError(f"matrix_transpose: at least two axes wanted, {describe(x)} came")
    return swapaxes(x, -1, -2)


def swapaxes(x: Any, axis1: int, axis2: int, /) -> Tensor:
    """Two axes exchanged.

    >>> md.swapaxes(md.ones((2, 3, 4)), 0, 2).shape
    (4, 3, 2)
    """
    x = operand(x)
    order = list(range(x.ndim))
    a, b = shapes.axis_index("swapaxes", axis1, x.ndim), shapes.axis_index("swapaxes", axis2, x.ndim)
    order[a], order[b] = b, a
    return _ordered(x, tuple(order))


def transpose(x: Any, /, *axes: Any) -> Tensor:
    """All axes reversed; two integers exchange these two (as in PyTorch); a tuple, or more integers, are the new order (as in NumPy).

    >>> md.transpose(md.ones((2, 3, 4))).shape
    (4, 3, 2)
    """
    try:
        x = operand(x)
        if not axes or axes == (None,):
            return _ordered(x, tuple(reversed(range(x.ndim))))
        return swapaxes(x, *axes) if len(axes) == 2 else permute_dims(x, axes[0] if len(axes) == 1 else axes)
    except Exception as error:
        raise refused(transpose, error, x, *axes) from None


def moveaxis(x: Any, source: int | Sequence[int], destination: int | Sequence[int], /) -> Tensor:
    """Axes moved to other places, the rest in order. Raises ValueError for unequal or repeated axes.

    >>> md.moveaxis(md.ones((2, 3, 4)), 0, -1).shape
    (3, 4, 2)
    """
    x = operand(x)
    src, dst = ([shapes.axis_index("moveaxis", a, x.ndim) for a in (v if isinstance(v, (tuple, list)) else (v,))] for v in (source, destination))
    if len(src) != len(dst) or len(set(src)) != len(src) or len(set(dst)) != len(dst):
        raise ValueError(f"moveaxis: source {source} and destination {destination} must be equally many different axes")
    order = [a for a in range(x.ndim) if a not in src]
    for d, s in sorted(zip(dst, src, strict=True)):
        order.insert(d, s)
    return _ordered(x, tuple(order))


def expand_dims(x: Any, /, axis: int | Sequence[int] = 0) -> Tensor:
    """New axes of size one at these places of the result.

    >>> md.expand_dims(md.ones(3), 1).shape
    (3, 1)
    """
    try:
        x = operand(x)
        sizes = list(x.shape)
        given = tuple(axis) if isinstance(axis, (tuple, list)) else (axis,)
        for place in sorted(shapes.axes_tuple("expand_dims", given, len(sizes) + len(given))):
            sizes.insert(place, 1)
        return _shaped(x, tuple(sizes))
    except Exception as error:
        raise refused(expand_dims, error, x, axis) from None


def squeeze(x: Any, /, axis: int | Sequence[int] | None = None) -> Tensor:
    """x without these axes, or without all axes of size one. Raises ValueError for an axis of another size.

    >>> md.squeeze(md.ones((1, 3, 1)), 0).shape
    (3, 1)
    """
    x = operand(x)
    axes = tuple(i for i, s in enumerate(x.shape) if s == 1) if axis is None else shapes.axes_tuple("squeeze", axis, x.ndim)
    for a in axes:
        if x.shape[a] != 1:
            raise ValueError(f"squeeze: axis {a} of {describe(x)} has size {x.shape[a]}, not 1 (by PyTorch's word, dim={a}, it stays)")
    return reshape(x, shapes.reduced(x.shape, axes, False))


def broadcast_to(x: Any, /, shape: Any) -> Tensor:
    """x repeated along axes of size one and new leading axes. Raises ValueError where it does not fit.

    >>> md.broadcast_to(md.tensor([1, 2]), (2, 2)).tolist()
    [[1, 2], [1, 2]]
    """
    try:
        x, size = operand(x), shapes.size_tuple("broadcast_to", shape)
        if size == x.shape:
            return fresh(x)
        fits("broadcast_to", size, x.dtype)
        return ns.broadcast_to(x, shape=size)
    except Exception as error:
        raise refused(broadcast_to, error, x, shape) from None


def broadcast_shapes(*sizes: Sequence[int]) -> tuple[int, ...]:
    """The common shape of arrays of these shapes, () for none. Raises ValueError where they do not broadcast.

    >>> md.broadcast_shapes((3, 1), (4,))
    (3, 4)
    """
    return shapes.broadcast(*(shapes.size_tuple("broadcast_shapes", s) for s in sizes)) if sizes else ()


def broadcast_arrays(*arrays: Any) -> tuple[Tensor, ...]:
    """All arrays in their common shape.

    >>> [a.shape for a in md.broadcast_arrays(md.ones((2, 1)), md.ones(3))]
    [(2, 3), (2, 3)]
    """
    xs = [operand(a) for a in arrays]
    shape = broadcast_shapes(*(x.shape for x in xs))
    return tuple(broadcast_to(x, shape) for x in xs)


def concat(arrays: Sequence[Any], /, axis: int | None = 0) -> Tensor:
    """Arrays joined along an axis they have (axis None: flattened first). Raises ValueError where other sizes differ.

    >>> md.concat((md.arange(2), md.arange(3))).tolist()
    [0, 1, 0, 1, 2]
    """
    try:
        xs = [operand(a) for a in arrays]
        if not xs:
            raise ValueError("concat: no arrays came")
        if axis is None:
            xs, axis = [reshaped(x, (int(x.size),)) for x in xs], 0
        if not xs[0].ndim:
            raise ValueError("concat: 0-d arrays have no axis to join along; use stack")
        return ns.concat(*xs, axis=shapes.axis_index("concat", axis, xs[0].ndim))
    except Exception as error:
        raise refused(concat, error, arrays, axis=axis) from None


def stack(arrays: Sequence[Any], /, axis: int = 0) -> Tensor:
    """Arrays of one shape joined along a new axis. Raises ValueError for different shapes.

    >>> md.stack([md.tensor(1.0), md.tensor(2.0)]).tolist()
    [1.0, 2.0]
    """
    try:
        xs = [operand(a) for a in arrays]
        if not xs:
            raise ValueError("stack: no arrays came")
        for x in xs[1:]:
            if x.shape != xs[0].shape:
                raise ValueError(f"stack: shapes differ: {shapes.show(*xs)}")
        a = shapes.axis_index("stack", axis, xs[0].ndim + 1)
        return ns.concat(*(ns.reshape(x, shape=(*x.shape[:a], 1, *x.shape[a:])) for x in xs), axis=a)
    except Exception as error:
        raise refused(stack, error, arrays, axis=axis) from None


def cut(x: Tensor, axis: int, start: int, stop: int, step: int = 1) -> Tensor:
    """x[..., start:stop:step, ...] along one axis, bounds already normalised.

    >>> cut(md.arange(5), 0, 1, 5, 2).tolist()
    [1, 3]
    """
    n = x.ndim
    return ns.slice(
        x, start=tuple(start if i == axis else 0 for i in range(n)), stop=tuple(stop if i == axis else s for i, s in enumerate(x.shape)),
        step=tuple(step if i == axis else 1 for i in range(n)),
    )  # fmt: skip


def unstack(x: Any, /, axis: int = 0) -> tuple[Tensor, ...]:
    """The slices along an axis, without it. Raises IndexError for a 0-d array.

    >>> [v.item() for v in md.unstack(md.arange(3))]
    [0, 1, 2]
    """
    x = operand(x)
    a = shapes.axis_index("unstack", axis, x.ndim)
    lead = (slice(None),) * a
    return tuple(shows(v, x, ("index", (*lead, i))) for i, v in enumerate(_pieces(x, a, (1,) * x.shape[a], True)))


def _pieces(x: Tensor, a: int, sizes: Sequence[int], drop: bool) -> list[Tensor]:
    """The parts of these sizes, which make up an axis, without the axis if drop. Eager they are one node of the tape, whose cotangent is put together
    once, where slices would each be added to an array as large as x."""
    xp, ends = x.xp, list(itertools.accumulate(sizes, initial=0))
    if (busy[0] and not at_once()) or not hasattr(xp, "asarray") or xp.needs_scope:
        cuts = (cut(x, a, *pair) for pair in itertools.pairwise(ends))
        return [ns.reshape(v, shape=x.shape[:a] + x.shape[a + 1 :]) if drop else v for v in cuts]
    natives = xp.pieces(x.payload, a, ends, drop)
    nodes: Any = itertools.repeat(None)
    if x.node is not None and x.dtype.inexact and natives and not (busy[0] and not state.grad):
        shape, dtype = x.shape, x.dtype  # nodes do not keep x
        lead, tail = shape[:a], shape[a + 1 :]

        def together(on: Any, cts: Sequence[Any]) -> Any:
            there = [i for i, c in enumerate(cts) if c is not None]
            wide = [on.reshape(c, shape=(*lead, 1, *tail)) if drop and c is not None else c for c in cts]
            if len(there) == 1:
                at = {"start": (0,) * a + (ends[there[0]],) + (0,) * len(tail), "stop": (*lead, ends[there[0] + 1], *tail)}
                return on.unslice(wide[there[0]], shape=shape, **at, step=(1,) * len(shape))
            parts = (on.full(shape=(*lead, n, *tail), value=0, dtype=dtype) if c is None else c for c, n in zip(wide, sizes, strict=True))
            return on.add(on.concat(*parts, axis=a), 0.0)  # as a sum of slices: no zero stays negative

        nodes = opaque_nodes(
            xp, "pieces", [x.node], len(natives), lambda cts, tracked: [together(ns, cts)], lambda ts: _pieces(ts[0], a, sizes, drop),
            None if xp.widens and not x.dtype.fast else lambda cts: [together(xp.bare, cts)],
        )  # fmt: skip
        whole = nodes[0] if len(nodes) == 1 else nodes[0][3]
        whole[1] = Held(whole[1])  # it keeps nothing, so each part may have a pass of its own
    return [Tensor(v, xp, x.dtype, node) for v, node in zip(natives, nodes, strict=False)]


def split(x: Any, /, sizes: int | Sequence[int], axis: int = 0) -> tuple[Tensor, ...]:
    """Pieces along an axis, as in PyTorch: an integer is the size of each piece (the last may be smaller), a sequence gives every size.

    Raises ValueError for sizes that do not add up.

    >>> [c.tolist() for c in md.split(md.arange(5), 2)]
    [[0, 1], [2, 3], [4]]
    """
    x = operand(x)
    a = shapes.axis_index("split", axis, x.ndim)
    n = x.shape[a]
    if isinstance(sizes, (tuple, list)):
        sizes = tuple(map(operator.index, sizes))
    else:
        sizes = operator.index(sizes)  # type: ignore[arg-type]
        if sizes < 1:
            raise ValueError(f"split: the size of a piece is {sizes}; it must be at least 1")
        sizes = [min(sizes, n - i) for i in range(0, n, sizes)] or [0]
    if sum(sizes) != n or any(s < 0 for s in sizes):
        raise ValueError(f"split: sizes {tuple(sizes)} do not add up to {n}, axis {a} of {describe(x)}")
    out, start, lead = [], 0, (slice(None),) * a
    for v, s in zip(_pieces(x, a, sizes, False), sizes, strict=True):
        out.append(shows(v, x, ("index", (*lead, slice(start, start + s)))))
        start += s
    return tuple(out)


def flip(x: Any, /, axis: int | Sequence[int] | None = None) -> Tensor:
    """The order of elements reversed along axes (all by default).

    >>> md.flip(md.arange(3)).tolist()
    [2, 1, 0]
    """
    x = operand(x)
    axes = shapes.axes_tuple("flip", axis, x.ndim)
    return ns.flip(x, axes=axes) if axes else fresh(x)


def tile(x: Any, /, repetitions: Any) -> Tensor:
    """The whole array repeated along each axis; missing repetitions or axes count as one on the left.

    >>> md.tile(md.arange(2), (2, 2)).tolist()
    [[0, 1, 0, 1], [0, 1, 0, 1]]
    """
    x, reps = operand(x), shapes.size_tuple("tile", repetitions)
    n = max(x.ndim, len(reps))
    shape, reps = (1,) * (n - x.ndim) + x.shape, (1,) * (n - len(reps)) + reps
    fits("tile", tuple(s * r for s, r in zip(shape, reps, strict=True)), x.dtype)
    split = ns.reshape(x, shape=tuple(v for s in shape for v in (1, s)))
    wide = ns.broadcast_to(split, shape=tuple(v for s, r in zip(shape, reps, strict=True) for v in (r, s)))
    return ns.reshape(wide, shape=tuple(s * r for s, r in zip(shape, reps, strict=True)))


def diagonal(x: Any, /, offset: int = 0, axis1: int = 0, axis2: int = 1) -> Tensor:
    """The elements x[i, i + offset, ...] of two axes, the first two by default, as a new last axis; md.linalg.diagonal has those of the
    last two. It is one strided slice of the flattened axes.

    Raises ValueError for one axis twice, IndexError for an axis that x does not have.

    >>> md.diagonal(md.reshape(md.arange(4), (2, 2))).tolist()
    [0, 3]
    """
    x = operand(x)
    a, b = shapes.axis_index("diagonal", axis1, x.ndim), shapes.axis_index("diagonal", axis2, x.ndim)
    if a == b:
        raise ValueError(f"diagonal: axis1 and axis2 are both {a}")
    rest = [i for i in range(x.ndim) if i not in (a, b)]
    base, x = x, permuted(x, (*rest, a, b))
    rows, cols = x.shape[-2:]
    count = max(0, min(rows, cols - offset) if offset >= 0 else min(rows + offset, cols))
    flat = ns.reshape(x, shape=(*x.shape[:-2], rows * cols))
    start = min(offset if offset >= 0 else -offset * cols, rows * cols)
    out = cut(flat, flat.ndim - 1, start, start + (count - 1) * (cols + 1) + 1 if count else start, cols + 1)
    return shows(out, base, ("diagonal", (offset, a, b)))
