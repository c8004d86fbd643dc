"""Convolution and max-pooling over windows in NumPy: 1 to 3 spatial axes, stride, padding, dilation and groups.

The matrix of all windows is larger than its image by the size of the kernel, so it is made for a few examples at a time, which also keeps it in the
cache.

Promises: conv is a correlation; conv_dx and conv_dw are its transposes in x and in w, and pool_scatter is the transpose of pool_gather;
float16 and bfloat16 accumulate in float32. A window is visited in row-major order everywhere.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import as_strided

from minidl.backends.numpy_helpers import Pairs, inner, padded, select, where, widened

Array = np.ndarray
#: Bytes of the windows that are looked at together: of fewer, the calls would cost more than the products.
BLOCK = 1 << 18
#: Bytes of the results of pooling that are made together.
PART = 1 << 16


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
class _Columns:
    """im2col: all windows of some examples as [examples, groups, C/groups * kernel, out], in memory that is used for one part after the other; the
    innermost axis runs along x, which copies fast and multiplies fast."""

    def __init__(
        self, x: Array, kernel: Sequence[int], out: Sequence[int], stride: Sequence[int], padding: Pairs, dilation: Sequence[int], groups: int
    ):
        n, c = x.shape[:2]
        self.x, self.padding = x, padding if any(map(any, padding)) else None
        sizes = (c, *kernel, *out)
        self.step = max(1, min(n, BLOCK // max(1, math.prod(sizes) * x.dtype.itemsize)))
        self.shape, self.every = (groups, c // groups * math.prod(kernel), math.prod(out)), np.empty((self.step, *sizes), x.dtype)
        if self.padding:
            x = self.room = padded(x[: self.step], padding)
        steps = x.strides[2:]
        inside = (d * s for d, s in zip(dilation, steps, strict=True))
        across = (d * s for d, s in zip(stride, steps, strict=True))
        self.windows = as_strided(x, (len(x), *sizes), (*x.strides[:2], *inside, *across), writeable=False)

    def parts(self) -> Iterator[tuple[slice, Array]]:
        """Each part of the examples, and its windows."""
        for i in range(0, len(self.x), self.step):
            part = slice(i, min(i + self.step, len(self.x)))
            n = part.stop - i
            if self.padding and i:
                self.room[:n][inner(self.padding, self.x.shape[2:])] = self.x[part]
            every = self.every[:n]
            every[...] = self.windows[:n] if self.padding else self.windows[part]
            yield part, every.reshape(n, *self.shape)


def _matrix(w: Array, groups: int) -> Array:
    return w.reshape(groups, w.shape[0] // groups, math.prod(w.shape[1:]))


@widened
def conv(x: Array, w: Array, *, stride: Sequence[int], padding: Pairs, dilation: Sequence[int], groups: int) -> Array:
    """Correlation of x [N, C, *spatial] with w [O, C/groups, *kernel] → [N, O, *out].

    >>> conv(np.ones((1, 1, 3)), np.ones((1, 1, 2)), stride=(1,), padding=((0, 0),), dilation=(1,), groups=1)
    array([[[2., 2.]]])
    """
    out, matrix = out_sizes(x.shape[2:], w.shape[2:], stride, padding, dilation), _matrix(w, groups)
    make = np.empty if x.size and matrix.size else np.zeros
    y = make((x.shape[0], groups, w.shape[0] // groups, math.prod(out)), x.dtype)
    if x.size and y.size:
        for part, columns in _Columns(x, w.shape[2:], out, stride, padding, dilation, groups).parts():
            np.matmul(matrix, columns, out=y[part])
    return y.reshape(x.shape[0], w.shape[0], *out)


def conv_affine(x: Array, w: Array, b: Array, **params: Any) -> Array:
    """conv, and one number for each channel added in its memory."""
    out = conv(x, w, **params)
    return np.add(out, b.reshape(-1, *(1,) * (x.ndim - 2)), out=out)


@widened
def conv_dw(x: Array, g: Array, *, w_shape: Sequence[int], stride: Sequence[int], padding: Pairs, dilation: Sequence[int], groups: int) -> Array:
    """The transpose of conv in w: [N, C, *spatial] and [N, O, *out] → w_shape."""
    rows, inside, out = w_shape[0] // groups, math.prod(w_shape[1:]), g.shape[2:]
    g = g.reshape(x.shape[0], groups, rows, math.prod(out))
    total = np.zeros((groups, rows, inside), x.dtype)
    if x.size and g.size and total.size:
        for part, columns in _Columns(x, w_shape[2:], out, stride, padding, dilation, groups).parts():
            total += np.add.reduce(np.matmul(g[part], columns.swapaxes(-1, -2)), axis=0, dtype=x.dtype)
    return total.reshape(w_shape)


@widened
def conv_dx(g: Array, w: Array, *, x_shape: Sequence[int], stride: Sequence[int], padding: Pairs, dilation: Sequence[int], groups: int) -> Array:
    """The transpose of conv in x: [N, O, *out] and w → x_shape."""
    n, c, *sizes = x_shape
    kernel, out, rows = w.shape[2:], g.shape[2:], w.shape[0] // groups
    x = np.zeros((n, c, *(lo + size + hi for size, (lo, hi) in zip(sizes, padding, strict=True))), g.dtype)
    line = kernel[-1]  # a row of the kernel at a time, so that the columns of many examples fit
    lines = w.reshape(groups, rows, w.shape[1], math.prod(kernel[:-1]), line).transpose(3, 0, 2, 4, 1)
    lines = lines.reshape(math.prod(kernel[:-1]), groups, w.shape[1] * line, rows)
    g, where_to = g.reshape(n, groups, rows, math.prod(out)), list(places(kernel, stride, dilation, out))
    step = max(1, min(n, BLOCK // max(1, c * line * g.shape[3] * g.dtype.itemsize)))
    every = np.empty((step, groups, w.shape[1] * line, g.shape[3]), g.dtype)
    for i in range(0, n, step):
        mine = x[i : i + step]
        for row, matrix in enumerate(lines):
            columns = np.matmul(matrix, g[i : i + step], out=every[: len(mine)]).reshape(len(mine), c, line, *out)
            for k, place in enumerate(where_to[row * line : row * line + line]):
                mine[place] += columns[:, :, k]
    return x[inner(padding, sizes)]


# ---- pooling --------------------------------------------------------------------------------------------------------------------------
def _lowest(dtype: np.dtype) -> float:
    return np.iinfo(dtype).min if dtype.kind in "iu" else -np.inf


def _narrow(window: Sequence[int]) -> np.dtype:
    """The smallest integer dtype that holds a place in the window: narrow indices are faster to compare and to select."""
    return np.min_scalar_type(math.prod(window))


def _parts(x: Array, shape: Sequence[int]) -> Iterator[slice]:
    """Parts of the leading axis of x such that some arrays of this shape for one of its elements stay in the cache."""
    step = max(1, PART // max(1, math.prod(shape) * x.dtype.itemsize))
    return (slice(i, i + step) for i in range(0, len(x), step))


def max_pool(
    x: Array, *, window: Sequence[int], stride: Sequence[int], padding: Pairs, dilation: Sequence[int], narrow: bool = False
) -> tuple[Array, Array]:
    """(maximum, its place in the window) over the trailing axes of x; the first maximum wins, a nan wins over all, padding is never chosen.

    narrow: the place in the smallest integers that hold it, for programs in which only pool_gather and pool_scatter read it.

    >>> max_pool(np.array([1.0, 3.0, 3.0, 2.0]), window=(2,), stride=(2,), padding=((0, 0),), dilation=(1,))
    (array([3., 3.]), array([1, 0]))
    """
    lead, sizes = x.shape[: x.ndim - len(window)], x.shape[x.ndim - len(window) :]
    out = out_sizes(sizes, window, stride, padding, dilation)
    where_to = list(enumerate(places(window, stride, dilation, out)))
    real = padded(np.ones(sizes, bool), padding, False)  # which places are not padding
    x = x.reshape(-1, *sizes)
    best, index = np.empty((len(x), *out), x.dtype), np.empty((len(x), *out), _narrow(window) if narrow else np.int64)
    for part in _parts(x, out):
        _pool(padded(x[part], padding, _lowest(x.dtype)), real, where_to, best[part], index[part])
    return best.reshape(lead + out), index.reshape(lead + out)


def _pool(x: Array, real: Array, places: Sequence[tuple[int, tuple]], best: Array, index: Array) -> None:
    """max_pool of a padded block into best and index."""
    full = bool(real.all())
    chosen = np.zeros(best.shape, _narrow([len(places)]))
    best[...] = x[places[0][1]] if full else _lowest(x.dtype)
    spare, value = np.empty(best.shape, bool), np.empty_like(best)
    for k, place in places[1:] if full else ():
        np.copyto(value, x[place])
        np.greater(value, best, out=spare)
        if chosen.itemsize == 1:  # of the places that took over, the last one is the highest
            np.maximum(chosen, np.multiply(spare.view(np.uint8), np.uint8(k)), out=chosen)
        else:
            np.copyto(chosen, chosen.dtype.type(k), where=spare)
        np.maximum(best, value, out=best)
    if not full or (x.dtype.kind not in "iu" and np.isnan(best).any()):
        _pool_slowly(x, real, places, best, chosen)
    index[...] = chosen


def _pool_slowly(x: Array, real: Array, places: Sequence[tuple[int, tuple]], best: Array, index: Array) -> None:
    """The same where some places are padding, or some values nan."""
    best[...], index[...] = _lowest(x.dtype), 0
    empty = np.ones(best.shape[1:], bool)  # which windows have shown nothing but padding so far
    for k, place in places:
        value = x[place]
        take = np.greater(value, best)
        if x.dtype.kind not in "iu":
            take |= np.isnan(value) & ~np.isnan(best)
        if empty.any():
            take |= empty & real[place]
            empty &= ~real[place]
        np.maximum(best, value, out=best)
        np.copyto(index, index.dtype.type(k), where=take)


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
    out, kind = g.shape[len(lead) :], _narrow(window)
    apart = all(w <= s for w, s in zip(window, stride, strict=True)) and set(dilation) == {1}
    g, index = g.reshape(-1, *out), index.reshape(-1, *out)
    x = np.zeros((len(g), *(lo + n + hi for n, (lo, hi) in zip(sizes, padding, strict=True))), g.dtype)
    zero = np.zeros((), g.dtype)
    for part in _parts(g, out):
        mine, values, where_to = x[part], g[part], index[part].astype(kind, copy=False)
        if apart:
            values = np.add(values, zero)  # a sum has no -0.0 but of two of them
        for k, place in enumerate(places(window, stride, dilation, out)):
            if apart:  # no other window has this element
                select(where_to == k, values, zero, mine[place])
            else:
                mine[place] += where(where_to == k, values, zero)
    return x[inner(padding, sizes)].reshape(x_shape)
