"""NumPy's kernels, continued: indexing and products.

Promises: those of numpy_kernels; a product is one np.matmul, and the way round that OpenBLAS is quick at.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable

import numpy as np

from minidl.backends.numpy_helpers import is_half, noisy, silent, turned, widened, zero_of

Array = np.ndarray


# ---- indexing -------------------------------------------------------------------------------------------------------------------------
@silent
def gather(x: Array, i: Array) -> Array:
    """By whole runs of memory: of a permuted array along the axis that was moved to the front, and the result is permuted as well."""
    order = sorted(range(x.ndim), key=lambda a: -abs(x.strides[a]))
    i, at = i.astype(np.intp, copy=False), order.index(0)
    out = np.take(x.transpose(order), i, axis=at, mode="clip")
    place = {a: k if k < at else k + i.ndim - 1 for k, a in enumerate(order)}
    return out.transpose(*range(at, at + i.ndim), *(place[a] for a in range(1, x.ndim)))


_AT = {"add": np.add.at, "mul": np.multiply.at, "min": np.minimum.at, "max": np.maximum.at}


@noisy
def scatter(x: Array, u: Array, *indices: Array, mode: str) -> Array:
    if mode in ("add", "mul") and is_half(x.dtype):
        return scatter(x.astype(np.float32), u.astype(np.float32), *indices, mode=mode).astype(x.dtype)
    lead, rest = x.shape[: len(indices)], x.shape[len(indices) :]
    row: Array = np.zeros((), np.intp)
    inside: Array = np.ones((), bool)
    for i, n in zip(indices, lead, strict=True):
        inside = inside & (i >= 0) & (i < n)
        row = row * n + i.astype(np.intp)
    if not u.size:
        return x.copy()
    width = functools.reduce(operator.mul, rest, 1)
    out, row = x.copy().reshape(-1, width), row.reshape(-1)
    u = u.reshape(row.size, width)
    if not inside.all():
        row, u = row[inside.reshape(-1)], u[inside.reshape(-1)]
    if mode == "set":
        out[row] = u
    elif mode == "add":  # np.add.at is five times faster along one axis
        np.add.at(out.reshape(-1), (row[:, None] * width + np.arange(width)).reshape(-1), u.reshape(-1))
    else:
        _AT[mode](out, row, u)
    return out.reshape(x.shape)


def _along(i: Array, axis: int) -> list[Array]:
    """Indices for all axes: i at axis, and the position itself elsewhere."""
    return [i if a == axis else np.arange(n).reshape((n,) + (1,) * (i.ndim - a - 1)) for a, n in enumerate(i.shape)]


@silent
def take_along(x: Array, i: Array, *, axis: int) -> Array:
    return x[tuple(_along(np.minimum(np.maximum(i, zero_of(i.dtype)), x.shape[axis] - 1), axis))]


@noisy
def put_along(x: Array, i: Array, u: Array, *, axis: int, mode: str) -> Array:
    return scatter(x, u, *_along(i, axis), mode=mode)


def put_along_into(x: Array, i: Array, u: Array, *, axis: int, mode: str, out: Array) -> Array:
    """put_along of floats into out, which may be x itself."""
    if out is not x:
        np.copyto(out, x)
    inside = (i >= 0) & (i < x.shape[axis])
    at = tuple(np.broadcast_to(a, i.shape)[inside] for a in _along(i, axis))
    if i.shape[axis] == 1:
        out[at] += u[inside]
    else:
        np.add.at(out, at, u[inside])
    return out


# ---- products -------------------------------------------------------------------------------------------------------------------------
Axes = tuple[tuple[int, ...], tuple[int, ...]]


@functools.lru_cache(4096)
def dot_plan(contract: Axes, batch: Axes, x_ndim: int, y_ndim: int) -> Callable[[Array, Array], Array]:
    """How to do one kind of dot_general: one np.matmul of transposed and regrouped views."""
    if x_ndim == y_ndim == 2 and not batch[0] and len(contract[0]) == 1:
        return _MATMUL[contract[0][0], contract[1][0]]
    x_free = tuple(i for i in range(x_ndim) if i not in contract[0] and i not in batch[0])
    y_free = tuple(i for i in range(y_ndim) if i not in contract[1] and i not in batch[1])
    x_axes, y_axes = batch[0] + x_free + contract[0], batch[1] + contract[1] + y_free
    n, m, k = len(batch[0]), len(x_free), len(contract[0])

    def dot(x: Array, y: Array) -> Array:
        x, y = x.transpose(x_axes), y.transpose(y_axes)
        xs, ys = x.shape, y.shape
        lead, rows, columns = xs[:n], xs[n : n + m], ys[n + k :]
        if not k:
            return x.reshape(lead + rows + (1,) * len(columns)) * y.reshape(lead + (1,) * m + columns)
        size = functools.partial(functools.reduce, operator.mul)
        inner = size(xs[n + m :], 1)
        out = np.matmul(x.reshape(*lead, size(rows, 1), inner), y.reshape(*lead, inner, size(columns, 1)))
        return out.reshape(lead + rows + columns)

    return dot


def matmul(x: Array, y: Array, out: Array | None = None, room: Array | None = None) -> Array:
    """np.matmul of two matrices. room: memory for the transpose of the result, as `turned` prefers it where the rows of y.T lie in one piece."""
    if x.dtype.char != "f" or not y.flags.f_contiguous or not turned(len(x), y.shape[1], len(y)) or y.dtype != x.dtype:
        return np.matmul(x, y, out=out)
    found = np.matmul(y.T, x.T, out=room).T
    if out is None:
        return np.ascontiguousarray(found)
    np.copyto(out, found)
    return out


_MATMUL: dict[tuple[int, int], Callable[[Array, Array], Array]] = {
    (1, 0): matmul,
    (0, 0): lambda x, y: np.matmul(x.T, y),
    (1, 1): lambda x, y: matmul(x, y.T),
    (0, 1): lambda x, y: np.matmul(x.T, y.T),
}


@noisy
def dot_general(x: Array, y: Array, *, contract: Axes, batch: Axes = ((), ())) -> Array:
    dot = dot_plan(contract, batch, x.ndim, y.ndim)
    return widened(dot)(x, y) if is_half(x.dtype) else dot(x, y)


@noisy
def affine(x: Array, w: Array, b: Array) -> Array:
    out = dot_general(x, w, contract=((x.ndim - 1,), (1,)))
    return np.add(out, b, out=out)
