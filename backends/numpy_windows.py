"""Convolution and max-pooling over windows in NumPy: 1 to 3 spatial axes, stride, padding, dilation and groups.

The matrix of all windows is larger than its image by the size of the kernel, so it is made for a few examples at a time, which also keeps it in the
cache.

Promises: conv is a correlation; conv_dx and conv_dw are its transposes in x and in w, and pool_scatter is the transpose of pool_gather;
float16 and bfloat16 accumulate in float32. A window is visited in row-major order everywhere.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.lib.stride_tricks import as_strided

from minidl.backends.numpy_helpers import where, widened

Array = np.ndarray
Pairs = Sequence[tuple[int, int]]
#: Bytes of the windows that are looked at together.
BLOCK = 1 << 20


def padded(x: Array, padding: Pairs, value: float = 0) -> Array:
    """x with `value` around its trailing axes; x itself where there is no padding."""
    if not any(map(any, padding)):
        return x
    lead = x.ndim - len(padding)
    out = np.full(x.shape[:lead] + tuple(lo + n + hi for n, (lo, hi) in zip(x.shape[lead:], padding, strict=True)), value, x.dtype)
    out[inner(padding, x.shape[lead:])] = x
    return out


def inner(padding: Pairs, sizes: Sequence[int]) -> tuple:
    """The index of the original inside a padded array."""
    return (..., *(slice(lo, lo + n) for n, (lo, _) in zip(sizes, padding, strict=True)))


def out_sizes(sizes: Sequence[int], window: Sequence[int], stride: Sequence[int], padding: Pairs, dilation: Sequence[int]) -> tuple[int, ...]:
    """The number of window positions along each axis."""
    return tuple(
        max((n + lo + hi - d * (k - 1) - 1) // s + 1, 0) for n, k, s, (lo, hi), d in zip(sizes, window, stride, padding, dilation, strict=True)
    )


def places(window: Sequence[int], stride: Sequence[int], dilation: Sequence[int], out: Sequence[int]) -> Iterator[tuple]:
    """For each place of the window, the index of the elements that all windows have there."""
    for place in np.ndindex(*window):
        yield (..., *(slice(k * d, k * d + max((n - 1) * s + 1, 0), s) for k, d, s, n in zip(place, dilation, stride, out, strict=True)))


# ---- convolution ----------------------------------------------------------------------------------------------------------------------
def _columns(x: Array, kernel: Sequence[int], stride: Sequence[int], padding: Pairs, dilation: Sequence[int], groups: int) -> tuple[Array, tuple]:
    """im2col: all windows as [N, groups, C/groups * kernel, out]; the innermost axis runs along x, which copies fast and multiplies fast."""
    n, c = x.shape[:2]
    out = out_sizes(x.shape[2:], kernel, stride, padding, dilation)
    x = padded(x, padding)
    if 0 in out or x.size == 0:
        return np.zeros((n, groups, c // groups * math.prod(kernel), math.prod(out)), x.dtype), out
    steps = x.strides[2:]
    inside = tuple(a * d for a, d in zip(steps, dilation, strict=True))
    across = tuple(a * s for a, s in zip(steps, stride, strict=True))
    windows = as_strided(x, (n, c, *kernel, *out), (*x.strides[:2], *inside, *across), writeable=False)
    return windows.reshape(n, groups, c // groups * math.prod(kernel), math.prod(out)), out


def _matrix(w: Array, groups: int) -> Array:
    return w.reshape(groups, w.shape[0] // groups, math.prod(w.shape[1:]))


def _parts(n: int, elements: int, dtype: np.dtype) -> Iterator[slice]:
    """The examples in parts, of which each has windows of so many elements."""
    step = max(1, BLOCK // max(1, elements * dtype.itemsize))
    return (slice(i, min(i + step, n)) for i in range(0, n, step))


@widened
def conv(x: Array, w: Array, *, stride: Sequence[int], padding: Pairs, dilation: Sequence[int], groups: int) -> Array:
    """Correlation of x [N, C, *spatial] with w [O, C/groups, *kernel] → [N, O, *out].

    >>> conv(np.ones((1, 1, 3)), np.ones((1, 1, 2)), stride=(1,), padding=((0, 0),), dilation=(1,), groups=1)
    array([[[2., 2.]]])
    """
    out, matrix = out_sizes(x.shape[2:], w.shape[2:], stride, padding, dilation), _matrix(w, groups)
    y = np.empty((x.shape[0], groups, w.shape[0] // groups, math.prod(out)), x.dtype)
    for part in _parts(len(x), groups * matrix.shape[2] * y.shape[3], x.dtype):
        np.matmul(matrix, _columns(x[part], w.shape[2:], stride, padding, dilation, groups)[0], out=y[part])
    return y.reshape(x.shape[0], w.shape[0], *out)


@widened
def conv_dw(x: Array, g: Array, *, w_shape: Sequence[int], stride: Sequence[int], padding: Pairs, dilation: Sequence[int], groups: int) -> Array:
    """The transpose of conv in w: [N, C, *spatial] and [N, O, *out] → w_shape."""
    rows, inside, across = w_shape[0] // groups, math.prod(w_shape[1:]), math.prod(g.shape[2:])
    g = g.reshape(x.shape[0], groups, rows, across)
    total = None
    for part in _parts(len(x), groups * inside * across, x.dtype):
        columns = _columns(x[part], w_shape[2:], stride, padding, dilation, groups)[0]
        w = np.add.reduce(np.matmul(g[part], columns.swapaxes(-1, -2)), axis=0, dtype=x.dtype)
        del columns  # before the next ones are made
        total = w if total is None else np.add(total, w, out=total)
    return np.zeros(w_shape, x.dtype) if total is None else total.reshape(w_shape)


@widened
def conv_dx(g: Array, w: Array, *, x_shape: Sequence[int], stride: Sequence[int], padding: Pairs, dilation: Sequence[int], groups: int) -> Array:
    """The transpose of conv in x: [N, O, *out] and w → x_shape."""
    n, c, *sizes = x_shape
    kernel, out = w.shape[2:], g.shape[2:]
    matrix, g = _matrix(w, groups).swapaxes(-1, -2), g.reshape(n, groups, w.shape[0] // groups, math.prod(out))
    x = np.zeros((n, c, *(lo + size + hi for size, (lo, hi) in zip(sizes, padding, strict=True))), g.dtype)
    for part in _parts(n, c * math.prod(kernel) * g.shape[3], g.dtype):
        columns, mine = np.matmul(matrix, g[part]).reshape(part.stop - part.start, c, math.prod(kernel), *out), x[part]
        for k, place in enumerate(places(kernel, stride, dilation, out)):
            mine[place] += columns[:, :, k]
        del columns
    return x[inner(padding, sizes)]


# ---- pooling --------------------------------------------------------------------------------------------------------------------------
def _lowest(dtype: np.dtype) -> float:
    return np.iinfo(dtype).min if dtype.kind in "iu" else -np.inf


def _narrow(window: Sequence[int]) -> np.dtype:
    """The smallest integer dtype that holds a place in the window: narrow indices are faster to compare and to select."""
    return np.min_scalar_type(math.prod(window))


def max_pool(x: Array, *, window: Sequence[int], stride: Sequence[int], padding: Pairs, dilation: Sequence[int]) -> tuple[Array, Array]:
    """(maximum, its place in the window) over the trailing axes of x; the first maximum wins, a nan wins over all, padding is never chosen.

    >>> max_pool(np.array([1.0, 3.0, 3.0, 2.0]), window=(2,), stride=(2,), padding=((0, 0),), dilation=(1,))
    (array([3., 3.]), array([1, 0]))
    """
    sizes = x.shape[x.ndim - len(window) :]
    out = out_sizes(sizes, window, stride, padding, dilation)
    real = padded(np.ones(sizes, bool), padding, False)  # which places are not padding
    x = padded(x, padding, _lowest(x.dtype))
    shape = x.shape[: x.ndim - len(window)] + out
    best, index = np.full(shape, _lowest(x.dtype), x.dtype), np.zeros(shape, _narrow(window))
    empty = np.ones(out, bool)  # which windows have shown nothing but padding so far
    for k, place in enumerate(places(window, stride, dilation, out)):
        value = x[place]
        take = np.greater(value, best)
        if x.dtype.kind not in "iu":
            take |= np.isnan(value) & ~np.isnan(best)
        if empty.any():
            take |= empty & real[place]
            empty &= ~real[place]
        best = np.maximum(best, value)
        index = where(take, np.array(k, index.dtype), index)
    return best, index.astype(np.int64)


def pool_gather(x: Array, index: Array, *, window: Sequence[int], stride: Sequence[int], padding: Pairs, dilation: Sequence[int]) -> Array:
    """For each window the element of x at the place that index names; 0 where that is padding."""
    x = padded(x, padding)
    out, index = np.zeros(index.shape, x.dtype), index.astype(_narrow(window))
    for k, place in enumerate(places(window, stride, dilation, index.shape[index.ndim - len(window) :])):
        out = where(index == k, x[place], out)
    return out


@widened
def pool_scatter(
    g: Array, index: Array, *, x_shape: Sequence[int], window: Sequence[int], stride: Sequence[int], padding: Pairs, dilation: Sequence[int]
) -> Array:
    """The transpose of pool_gather in x: each g is added where its index points."""
    lead, sizes = x_shape[: len(x_shape) - len(window)], x_shape[len(x_shape) - len(window) :]
    x = np.zeros((*lead, *(lo + n + hi for n, (lo, hi) in zip(sizes, padding, strict=True))), g.dtype)
    zero, index = np.zeros((), g.dtype), index.astype(_narrow(window))
    for k, place in enumerate(places(window, stride, dilation, g.shape[len(lead) :])):
        x[place] += where(index == k, g, zero)
    return x[inner(padding, sizes)]
