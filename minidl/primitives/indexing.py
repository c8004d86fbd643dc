"""Reading and writing at integer positions: gather and scatter on the leading axis, to which indexing is reduced; take_along and put_along."""

from __future__ import annotations

from typing import Any

from minidl import shapes
from minidl.dtypes import int64
from minidl.primitives.core import Primitive, all_lanes, batch_along
from minidl.primitives.reductions import edge


def _zeros(xp: Any, shape: Any, dtype: Any) -> Any:
    return xp.full(shape=tuple(shape), value=0, dtype=dtype)


def _infer_gather(x: Any, i: Any) -> Any:
    if not i.dtype.is_integer:
        raise TypeError(f"gather: indices must be integers, not {i.dtype.short}")
    if not x.shape:
        raise IndexError(f"gather: {shapes.show(x)} has no axis to index")
    return _read("gather", x, i, 0, (*i.shape, *x.shape[1:]))


def _read(name: str, x: Any, i: Any, axis: int, shape: tuple[int, ...]) -> Any:
    if x.shape[axis] == 0 and 0 not in shape:
        raise IndexError(f"{name}: axis {axis} of {shapes.show(x)} is empty, so that {shapes.show(i)} has nothing to read there")
    return shape, x.dtype


def _flat_index(call: Any, i: Any, size: int, length: int) -> Any:
    """Positions in the flattened (batch, axis) array, from a batched index."""
    lane = call("reshape", call("iota", size=size, dtype=int64), shape=(size,) + (1,) * (len(i.shape) - 1))
    return call("add", call("clip", i, 0, max(length - 1, 0)), call("mul", lane, length))


def _batch_gather(primitive: Any, call: Any, size: int, xs: Any, batched: Any, params: Any) -> Any:
    x, i = xs
    if not batched[0]:
        return call("gather", x, i)
    n = x.shape[1]
    if not batched[1]:  # move the indexed axis to the front, index, and move the batch axis back
        x = call("permute", x, axes=(1, 0, *range(2, len(x.shape))))
        out, k = call("gather", x, i), len(i.shape)
        return call("permute", out, axes=(k, *range(k), *range(k + 1, len(out.shape))))
    return call("gather", call("reshape", x, shape=(size * n, *x.shape[2:])), _flat_index(call, i, size, n))


gather = Primitive(
    "gather", "x i", infer=_infer_gather, batch=_batch_gather, promote="same", joins=(0,), others=int64, check_first=True,
    vjps=(lambda xp, g, i, x_shape, x_dtype: xp.scatter(_zeros(xp, x_shape, x_dtype), g, i, mode="add"), None), jvps=("linear", None),
)  # fmt: skip

MODES = ("set", "add", "mul", "min", "max")


def _infer_scatter(x: Any, u: Any, i: Any, *, mode: str) -> Any:
    if mode not in MODES:
        raise ValueError(f"scatter: mode {mode!r} is not one of {', '.join(MODES)}")
    if not i.dtype.is_integer:
        raise TypeError(f"scatter: indices must be integers, not {i.dtype.short}")
    if mode in ("min", "max") and x.dtype.is_complex:
        raise TypeError(f"scatter: mode {mode!r} of dtype {x.dtype.short}, which has no order; take abs or real first")
    if not x.shape or tuple(u.shape) != (*i.shape, *x.shape[1:]):
        raise ValueError(f"scatter: updates {shapes.show(u)} into {shapes.show(x)} at {shapes.show(i)} want shape {(*i.shape, *x.shape[1:])}")
    return x.shape, x.dtype


def _winner(xp: Any, u: Any, i: Any, n: int) -> Any:
    """Which updates survive a "set" with duplicates: the last at each position (found by a scatter-max of their numbers)."""
    count = shapes.prod(i.shape)
    number = xp.reshape(xp.iota(size=count, dtype=int64), shape=tuple(i.shape))
    last = xp.scatter(xp.full(shape=(n,), value=-1, dtype=int64), number, i, mode="max")
    return xp.reshape(xp.eq(xp.gather(last, i), number), shape=tuple(i.shape) + (1,) * (len(u.shape) - len(i.shape)))


def _scatter_x_vjp(xp: Any, g: Any, x: Any, u: Any, i: Any, out: Any, mode: str) -> Any:
    dtype = xp.dtype_of(u)
    if mode == "add":
        return g
    if mode == "set":
        return xp.scatter(g, _zeros(xp, u.shape, dtype), i, mode="set")
    if mode == "mul":
        return g * xp.scatter(xp.full(shape=tuple(x.shape), value=1, dtype=dtype), u, i, mode="mul")
    mine, _, count = _shares(xp, x, u, i, out)
    return g * mine / count


def _shares(xp: Any, x: Any, u: Any, i: Any, out: Any) -> Any:
    dtype = xp.dtype_of(x)
    mine = xp.cast(xp.eq(x, out), dtype=dtype)
    theirs = xp.cast(xp.eq(u, xp.gather(out, i)), dtype=dtype)
    return mine, theirs, xp.scatter(mine, theirs, i, mode="add")


def _other_factors(xp: Any, x: Any, u: Any, i: Any) -> Any:
    """For each update, the product of x and of all other updates at its position: running products from both sides among the updates sorted by
    position. Nothing is divided, so that zeros are no special case in derivatives of any order."""
    n, rest = shapes.prod(i.shape), tuple(x.shape[1:])
    flat = xp.reshape(i, shape=(n,))
    order = xp.argsort(flat, axis=0, descending=False)
    place, factor = xp.gather(flat, order), xp.gather(xp.reshape(u, shape=(n, *rest)), order)
    others = xp.gather(x, place)
    for reverse in (False, True):
        same = xp.reshape(xp.eq(place, edge(xp, place, 0, 1, reverse, -1)), shape=(n,) + (1,) * len(rest))
        product, step = xp.where(same, edge(xp, factor, 0, 1, reverse, 1.0), 1.0), 1
        while step < n:  # a running product by doubling, which never crosses from one position to the next
            product = xp.where(same, product * edge(xp, product, 0, step, reverse, 1.0), product)
            same, step = xp.logical_and(same, edge(xp, same, 0, step, reverse, False)), step * 2
        others = others * product
    back = xp.argsort(order, axis=0, descending=False)
    return xp.reshape(xp.gather(others, back), shape=tuple(u.shape))


def _scatter_u_vjp(xp: Any, g: Any, x: Any, u: Any, i: Any, out: Any, mode: str) -> Any:
    inside = xp.logical_and(i >= 0, i < x.shape[0])  # an update out of range was dropped
    at = xp.where(xp.reshape(inside, shape=tuple(i.shape) + (1,) * (len(u.shape) - len(i.shape))), xp.gather(g, i), 0.0)
    if mode == "add":
        return at
    if mode == "set":
        return xp.where(_winner(xp, u, i, x.shape[0]), at, 0.0)
    if mode == "mul":
        return at * _other_factors(xp, x, u, i)
    _, theirs, count = _shares(xp, x, u, i, out)
    return theirs * at / xp.gather(count, i)


def _scatter_x_jvp(xp: Any, t: Any, x: Any, u: Any, i: Any, out: Any, mode: str) -> Any:
    return _scatter_x_vjp(xp, t, x, u, i, out, mode)


def _scatter_u_jvp(xp: Any, t: Any, x: Any, u: Any, i: Any, out: Any, mode: str) -> Any:
    zeros = _zeros(xp, x.shape, xp.dtype_of(x))
    if mode in ("add", "set"):
        return xp.scatter(zeros, t, i, mode=mode)
    if mode == "mul":
        return xp.scatter(zeros, t * _other_factors(xp, x, u, i), i, mode="add")
    _, theirs, count = _shares(xp, x, u, i, out)
    return xp.scatter(zeros, theirs * t, i, mode="add") / count


def _batch_scatter(primitive: Any, call: Any, size: int, xs: Any, batched: Any, params: Any) -> Any:
    x, u, i = all_lanes(call, size, xs, batched)
    n = x.shape[1]
    flat = call("reshape", x, shape=(size * n, *x.shape[2:]))
    lane = call("reshape", call("iota", size=size, dtype=int64), shape=(size,) + (1,) * (len(i.shape) - 1))
    beyond = call("full", shape=(), value=size * n, dtype=int64)  # an index out of range must not land in the next lane
    inside = call("logical_and", call("ge", i, 0), call("lt", i, n))
    i = call("where", inside, call("add", i, call("mul", lane, n)), beyond)
    return call("reshape", call("scatter", flat, u, i, **params), shape=tuple(x.shape))


scatter = Primitive(
    "scatter", "x u i", "mode", infer=_infer_scatter, batch=_batch_scatter, joins=(0, 1), others=int64, check_first=True,
    vjps=(_scatter_x_vjp, _scatter_u_vjp, None), jvps=(_scatter_x_jvp, _scatter_u_jvp, None),
)  # fmt: skip


def _infer_along(x: Any, i: Any, *, axis: int) -> Any:
    if len(i.shape) != len(x.shape) or any(a != b for k, (a, b) in enumerate(zip(x.shape, i.shape, strict=True)) if k != axis):
        raise ValueError(f"take_along_axis: {shapes.show(x)} and indices {shapes.show(i)} differ outside axis {axis}")
    return _read("take_along_axis", x, i, axis, i.shape)


take_along = Primitive(
    "take_along", "x i", "axis", infer=_infer_along, batch=batch_along, joins=(0,), others=int64, check_first=True, jvps=("linear", None),
    vjps=(lambda xp, g, i, x_shape, x_dtype, axis: xp.put_along(_zeros(xp, x_shape, x_dtype), i, g, axis=axis, mode="add"), None),
)  # fmt: skip


def _infer_put(x: Any, i: Any, u: Any, *, axis: int, mode: str) -> Any:
    _infer_along(x, i, axis=axis)
    if mode != "add" or tuple(u.shape) != tuple(i.shape):
        raise ValueError(f"put_along: mode {mode!r} with updates {shapes.show(u)} at {shapes.show(i)}; it adds, and wants equal shapes")
    return x.shape, x.dtype


put_along = Primitive(
    "put_along", "x i u", "axis mode", infer=_infer_put, batch=batch_along, joins=(0, 2), others=int64, check_first=True,
    vjps=(lambda xp, g: g, None, lambda xp, g, i, axis: xp.take_along(g, i, axis=axis)),
    jvps=(
        lambda xp, t: t, None,
        lambda xp, t, i, x_shape, x_dtype, axis, mode: xp.put_along(_zeros(xp, x_shape, x_dtype), i, t, axis=axis, mode=mode),
    ),
)  # fmt: skip
