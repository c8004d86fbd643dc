"""Functions of jax.numpy that put arrays into other shapes, and functions into shapes: cutting, joining, padding, vectorize."""

from __future__ import annotations

import builtins
import functools
import inspect
import math
import operator
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

import minidl as md
from minidl.idioms.jax.arrays import beside, indices, typed


# ---- shapes -----------------------------------------------------------------------------------------------------------------------------
def reshape(a: Any, shape: Any = None, order: str = "C", *, copy: bool | None = None) -> md.Tensor:
    """md.reshape; order "F": read and written with the first axis running fastest."""
    x = md.asarray(a)
    shape = (shape,) if isinstance(shape, int) else tuple(operator.index(n) for n in shape)
    return md.reshape(x, shape) if order != "F" else transpose(md.reshape(transpose(x), shape[::-1]))


def ravel(a: Any, order: str = "C") -> md.Tensor:
    """All elements in one axis."""
    return reshape(a, (-1,), order)


def resize(a: Any, new_shape: Any) -> md.Tensor:
    """The elements, repeated or cut, in another shape."""
    shape = (new_shape,) if isinstance(new_shape, int) else tuple(new_shape)
    x, n = ravel(a), math.prod(shape)
    return md.reshape(md.tile(x, (-(-n // builtins.max(x.size, 1)),))[:n] if x.size else md.zeros(n, dtype=x.dtype), shape)


def transpose(a: Any, axes: Sequence[int] | None = None) -> md.Tensor:
    """md.permute_dims; all axes reversed without `axes`."""
    x = md.asarray(a)
    return md.permute_dims(x, tuple(range(x.ndim)[::-1] if axes is None else axes))


def rollaxis(a: Any, axis: int, start: int = 0) -> md.Tensor:
    """An axis moved before another."""
    x = md.asarray(a)
    axis, start = axis % x.ndim, start + x.ndim if start < 0 else start
    return md.moveaxis(x, axis, start - 1 if axis < start else start)


def squeeze(a: Any, axis: Any = None) -> md.Tensor:
    """Without axes of size one: all, or these."""
    x = md.asarray(a)
    axis = tuple(i for i, n in enumerate(x.shape) if n == 1) if axis is None else axis
    return x if axis == () else md.squeeze(x, axis=axis)


def split(ary: Any, indices_or_sections: Any, axis: int = 0) -> list[md.Tensor]:
    """An axis cut into equal parts, or at these places. Raises ValueError where it has no equal parts.

    >>> [v.tolist() for v in split(md.arange(4), [1])]
    [[0], [1, 2, 3]]
    """
    x = md.asarray(ary)
    if isinstance(indices_or_sections, int) and x.shape[axis] % indices_or_sections:
        raise ValueError(f"split: {x.shape[axis]} elements along axis {axis} do not make {indices_or_sections} equal parts; see array_split")
    cuts = indices_or_sections if isinstance(indices_or_sections, int) else [int(i) for i in indices_or_sections]
    return list(md.tensor_split(x, cuts, dim=axis))


def hsplit(ary: Any, indices_or_sections: Any) -> list[md.Tensor]:
    """split along the second axis, of a vector along its only one."""
    return split(ary, indices_or_sections, 0 if ary.ndim == 1 else 1)


def vsplit(ary: Any, indices_or_sections: Any) -> list[md.Tensor]:
    """split along the first axis."""
    return split(ary, indices_or_sections, 0)


def dsplit(ary: Any, indices_or_sections: Any) -> list[md.Tensor]:
    """split along the third axis."""
    return split(ary, indices_or_sections, 2)


def concatenate(arrays: Any, axis: int | None = 0, dtype: Any = None) -> md.Tensor:
    """md.concat; flattened first for axis None."""
    xs = [md.asarray(a) for a in arrays]
    out = md.concat([md.flatten(x) for x in xs] if axis is None else xs, axis=axis or 0)
    return typed(out, dtype)


def stack(arrays: Any, axis: int = 0, out: Any = None, dtype: Any = None) -> md.Tensor:
    """md.stack."""
    return typed(md.stack([md.asarray(a) for a in arrays], axis=axis), dtype)


def block(arrays: Any) -> md.Tensor:
    """Nested lists of arrays put together: the innermost lists along the last axis, those around them along the axis before.

    >>> block([[md.ones((1, 1)), md.zeros((1, 1))], [md.zeros((1, 2))]]).tolist()
    [[1.0, 0.0], [0.0, 0.0]]
    """
    depth = _depth(arrays)
    rank = builtins.max(depth, 1)

    def joined(a: Any, axis: int) -> md.Tensor:
        if not isinstance(a, list):
            x = md.asarray(a)
            return md.reshape(x, (1,) * (rank - x.ndim) + x.shape) if x.ndim < rank else x
        return md.concat([joined(v, axis + 1) for v in a], axis=axis)

    return joined(arrays, -depth)


def _depth(a: Any) -> int:
    return 1 + _depth(a[0]) if isinstance(a, list) else 0


def insert(arr: Any, obj: Any, values: Any, axis: int | None = None) -> md.Tensor:
    """Values put before the places that obj names, integers that are known while tracing.

    >>> insert(md.tensor([1, 2]), 1, 9).tolist()
    [1, 9, 2]
    """
    x = md.flatten(md.asarray(arr)) if axis is None else md.moveaxis(md.asarray(arr), axis, 0)
    n = x.shape[0]
    single = np.ndim(obj) == 0 and not isinstance(obj, slice)
    at = np.arange(n)[obj] if isinstance(obj, slice) else np.asarray(obj).reshape(-1)
    at = np.where(at < 0, at + n, at)
    new = md.asarray(values, dtype=x.dtype, **beside(x))
    if axis is not None and not single and new.ndim:
        new = md.moveaxis(new, axis, 0) if new.ndim == x.ndim else new
    count = new.shape[0] if axis is None and single and new.ndim else len(at)
    at = np.repeat(at, count) if single and count > 1 else at
    new = md.broadcast_to(new, (len(at), *x.shape[1:]))
    order = np.argsort(np.concatenate([at - 0.5, np.arange(n)]), kind="stable")
    out = md.take(md.concat([new, x]), md.asarray(order, **beside(x)), axis=0)
    return out if axis is None else md.moveaxis(out, 0, axis)


def delete(arr: Any, obj: Any, axis: int | None = None, *, assume_unique_indices: bool = False) -> md.Tensor:
    """Without the places that obj names: integers, a slice or bools that are known while tracing.

    >>> delete(md.tensor([1, 2, 3]), md.tensor([0, 2])).tolist()
    [2]
    """
    x = md.flatten(md.asarray(arr)) if axis is None else md.asarray(arr)
    axis = 0 if axis is None else axis
    keep = np.ones(x.shape[axis], bool)
    keep[obj.numpy() if isinstance(obj, md.Tensor) else obj if isinstance(obj, slice) else np.asarray(obj)] = False
    return md.take(x, md.asarray(np.flatnonzero(keep), **beside(x)), axis=axis)


def trim_zeros(filt: Any, trim: str = "fb") -> md.Tensor:
    """Without the zeros at the front ("f") and the back ("b") of a vector whose values are known."""
    x = md.asarray(filt)
    there = np.flatnonzero(x.numpy())
    if not len(there):
        return x[:0]
    return x[int(there[0]) if "f" in trim.lower() else 0 : int(there[-1]) + 1 if "b" in trim.lower() else None]


def _ramp(edge: md.Tensor, end: Any, width: int, axis: int) -> md.Tensor:
    """From an end to an edge, which is left out."""
    share = md.reshape(md.arange(width, **beside(edge)), [-1 if a == axis else 1 for a in range(edge.ndim)]) / max(width, 1)
    out = end + (edge - end) * share
    return out.to(edge.dtype) if edge.dtype.inexact else md.floor(out).to(edge.dtype)


def _bordered(x: md.Tensor, axis: int, pair: Sequence[int], mode: str, length: Any, ends: Sequence[Any]) -> md.Tensor:
    """One axis with a border of a statistic of what is at its ends, or of a ramp."""
    n = x.shape[axis]
    take = lambda start, stop: x[(slice(None),) * axis + (slice(start, stop),)]
    sides = []
    for width, size, end, first in zip(pair, (length, length) if length is None else length, ends, (True, False), strict=True):
        if mode == "linear_ramp":
            ramp = _ramp(take(0, 1) if first else take(n - 1, n), end, width, axis)
            sides.append(ramp if first else md.flip(ramp, axis=axis))
            continue
        part = x if size is None else take(0, min(size, n)) if first else take(max(n - size, 0), n)
        value = {"mean": md.mean, "median": md.median, "maximum": md.max, "minimum": md.min}[mode](part, axis=axis, keepdims=True)
        value = value if x.dtype.inexact or value.dtype is x.dtype else md.round(value).to(x.dtype)
        sides.append(md.broadcast_to(value, (*x.shape[:axis], width, *x.shape[axis + 1 :])))
    return md.concat([sides[0], x, sides[1]], axis=axis)


def pad(
    array: Any, pad_width: Any, mode: Any = "constant", *, constant_values: Any = 0, stat_length: Any = None, end_values: Any = 0,
    reflect_type: str = "even",
) -> md.Tensor:  # fmt: skip
    """A border of each axis: constant_values; the "edge", "reflect" or "symmetric" images; "wrap" or "empty"; the "mean", "median", "maximum" or
    "minimum" of what is stat_length long at that end; or a "linear_ramp" to end_values. Raises ValueError for another mode.

    >>> pad(md.tensor([1, 2, 3]), 1, mode="reflect").tolist(), pad(md.tensor([1, 2, 3]), 1, mode="mean").tolist()
    ([2, 1, 2, 3, 2], [2, 1, 2, 3, 2])
    """
    x = md.asarray(array)
    pairs = np.broadcast_to(np.asarray(pad_width, int), (x.ndim, 2)).tolist() if x.ndim else []
    if mode in ("constant", "empty"):
        if np.ndim(constant_values) == 0:
            return md.pad(x, [tuple(p) for p in pairs], constant_values)
        values = np.broadcast_to(np.asarray(constant_values), (x.ndim, 2)).tolist()
        for axis, ((a, b), (u, v)) in enumerate(zip(pairs, values, strict=True)):
            for width, value in (((a, 0), u), ((0, b), v)):
                x = md.pad(x, [width if i == axis else (0, 0) for i in range(x.ndim)], value)
        return x
    if mode in ("mean", "median", "maximum", "minimum", "linear_ramp"):
        lengths = [None] * x.ndim if stat_length is None else np.broadcast_to(np.asarray(stat_length, int), (x.ndim, 2)).tolist()
        if stat_length is not None and np.min(stat_length) < 1:
            raise ValueError(f"pad: stat_length is at least 1, not {stat_length}; of no element there is no {mode}")
        ends = np.broadcast_to(np.asarray(end_values), (x.ndim, 2)).tolist()
        for axis, pair in enumerate(pairs):
            x = _bordered(x, axis, pair, mode, lengths[axis], ends[axis]) if any(pair) else x
        return x
    if mode not in ("edge", "reflect", "symmetric", "wrap") or reflect_type != "even":
        raise ValueError(
            "pad: mode is 'constant', 'edge', 'empty', 'linear_ramp', 'maximum', 'mean', 'median', 'minimum', 'reflect', 'symmetric' or 'wrap', of"
            f" reflect_type 'even', not {mode!r}"
        )
    for axis, (a, b) in enumerate(pairs):
        if a or b:
            x = md.take(x, md.asarray(np.pad(np.arange(x.shape[axis]), (a, b), mode=mode), **beside(x)), axis=axis)
    return x


def repeat(a: Any, repeats: Any, axis: int | None = None, *, total_repeat_length: int | None = None) -> md.Tensor:
    """Each element so many times; total_repeat_length: of so many in all, which a trace needs for repeats that it does not know.

    >>> repeat(md.tensor([1, 2]), md.tensor([2, 1]), total_repeat_length=4).tolist()
    [1, 1, 2, 2]
    """
    x = md.flatten(md.asarray(a)) if axis is None else md.asarray(a)
    axis = 0 if axis is None else axis
    if total_repeat_length is None:
        return md.repeat(x, repeats, axis=axis)
    ends = md.cumulative_sum(md.broadcast_to(md.asarray(repeats), (x.shape[axis],)), axis=0)
    at = md.searchsorted(ends, md.arange(total_repeat_length, dtype=ends.dtype, **beside(x)), side="right")
    return md.take(x, md.minimum(at, x.shape[axis] - 1), axis=axis)


# ---- functions of functions ---------------------------------------------------------------------------------------------------------------
def vectorize(pyfunc: Callable[..., Any], *, excluded: Any = frozenset(), signature: str | None = None) -> Callable[..., Any]:
    """A function of the last axes that `signature` names, such as "(n),(n)->()", as one that broadcasts over the others: md.vmap for each of them.
    excluded: numbers of arguments that are handed over as they are.

    >>> vectorize(md.vecdot, signature="(n),(n)->()")(md.ones((3, 2)), md.ones(2)).tolist()
    [2.0, 2.0, 2.0]
    """

    @functools.wraps(pyfunc)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        given = [i for i in range(len(args)) if i not in excluded]
        named = signature.split("->")[0].replace(" ", "")[1:-1].split("),(") if signature else [""] * len(given)
        cores = [part.count(",") + bool(part) for part in named]
        if len(cores) != len(given):
            raise TypeError(f"vectorize: the signature {signature!r} names {len(cores)} arguments, and {len(given)} came")
        xs = [md.asarray(args[i]) for i in given]
        if any(x.ndim < c for x, c in zip(xs, cores, strict=True)):
            raise ValueError(f"vectorize: shapes {', '.join(str(x.shape) for x in xs)} have fewer axes than the signature {signature!r}")
        outer = md.broadcast_shapes(*(x.shape[: x.ndim - c] for x, c in zip(xs, cores, strict=True)))

        def call(*inner: Any) -> Any:
            left = dict(zip(given, inner, strict=True))
            return pyfunc(*(left.get(i, a) for i, a in enumerate(args)), **kwargs)

        for axis, size in enumerate(reversed(outer)):  # from the innermost, which arguments of lower rank lack, outwards
            leads = [x.ndim - c for x, c in zip(xs, cores, strict=True)]
            there = [0 if lead > axis and x.shape[lead - 1 - axis] == size else None for x, lead in zip(xs, leads, strict=True)]
            call = md.vmap(call, in_axes=tuple(there)) if any(w == 0 for w in there) else call
        return call(*(_narrowed(x, x.ndim - c, outer) for x, c in zip(xs, cores, strict=True)))

    return wrapped


def _narrowed(x: md.Tensor, lead: int, outer: tuple[int, ...]) -> md.Tensor:
    """Without the leading axes of size one that others stretch."""
    axes = tuple(i for i, n in enumerate(x.shape[:lead]) if n != outer[len(outer) - lead + i])
    return md.squeeze(x, axis=axes) if axes else x


def apply_along_axis(func1d: Callable[..., Any], axis: int, arr: Any, *args: Any, **kwargs: Any) -> md.Tensor:
    """A function of a vector, of every vector along an axis; what it returns takes the place of the axis.

    >>> apply_along_axis(lambda v: v.sum(), 0, md.ones((3, 2))).tolist()
    [3.0, 3.0]
    """
    x = md.asarray(arr)
    axis %= x.ndim
    f = lambda v: func1d(v, *args, **kwargs)
    for _ in range(axis):
        f = md.vmap(f)
    for _ in range(x.ndim - 1 - axis):
        f = md.vmap(f, in_axes=-1, out_axes=-1)
    return f(x)


def apply_over_axes(func: Callable[..., Any], a: Any, axes: Any) -> md.Tensor:
    """func(a, axis) one axis after the other, each kept with size one."""
    out = md.asarray(a)
    for axis in (axes,) if isinstance(axes, int) else axes:
        found = func(out, axis)
        out = found if found.ndim == out.ndim else md.expand_dims(found, axis=axis)
    return out


def fromfunction(function: Callable[..., Any], shape: Sequence[int], *, dtype: Any = None, **kwargs: Any) -> Any:
    """function(i, j, …) of the numbers of the places of an array."""
    return function(*indices(shape, dtype or md.get_default_dtype()), **kwargs)


#: Name -> what it is in jax.numpy.
NAMES: dict[str, Any] = {
    name: value for name, value in list(globals().items())
    if inspect.isfunction(value) and not name.startswith("_") and value.__module__ == __name__
}  # fmt: skip
