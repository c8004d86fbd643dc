"""What the NumPy kernels share: half precision computed in float32, and selections that do not branch."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

Array = np.ndarray


def is_half(dtype: np.dtype) -> bool:
    """Whether this is float16 or bfloat16, in which nothing is accumulated."""
    return dtype.itemsize == 2 and dtype.kind in "fV"


def widened(f: Callable[..., Array]) -> Callable[..., Array]:
    """Compute float16 and bfloat16 in float32 and round the result once."""

    @functools.wraps(f)
    def kernel(*arrays: Array, **params: object) -> Array:
        dtype = arrays[0].dtype
        if not is_half(dtype):
            return f(*arrays, **params)
        return f(*(a.astype(np.float32) if a.dtype == dtype else a for a in arrays), **params).astype(dtype)

    return kernel


#: Elements of which a function of several steps takes so many at a time: its buffers stay in the cache, and come from memory that was just freed.
CHUNK = 1 << 14


def in_chunks(f: Callable[[Array, Array], Any]) -> Callable[..., Array]:
    """f(x, out) on arrays of float32 or more, as a function of any array with an optional `out`, which may be x; halves are rounded once."""

    @functools.wraps(f)
    def kernel(x: Array, out: Array | None = None) -> Array:
        result = np.empty(x.shape, x.dtype) if out is None else out
        half = is_half(x.dtype)
        if x.size <= CHUNK and x.ndim and not half:
            f(x, result)
            return result
        into = result if result.flags.c_contiguous else np.empty(x.shape, x.dtype)
        flat, room = x.reshape(-1), into.reshape(-1)
        for i in range(0, flat.size, CHUNK):
            part = flat[i : i + CHUNK].astype(np.float32) if half else flat[i : i + CHUNK]
            f(part, part if half else room[i : i + CHUNK])
            if half:
                room[i : i + CHUNK] = part
        if into is not result:
            np.copyto(result, into)
        return result

    return kernel


def where(c: Array, x: Array, y: Array) -> Array:
    """x where c, else y; x and y of one dtype. Bit masks select five times faster than np.where, which branches, where c is unpredictable."""
    dtype = getattr(x, "dtype", None) or y.dtype  # rule texts pass Python numbers
    x, y, size = np.asarray(x, dtype), np.asarray(y, dtype), dtype.itemsize
    if c.size < 4096 or size > 4:
        return np.where(c, x, y)
    bits = _BITS[size]
    mask = np.negative(c.view(np.int8)).astype(bits)  # all ones where c
    y = y.view(bits)
    out = np.bitwise_xor(x.view(bits), y)
    return np.bitwise_xor(np.bitwise_and(out, mask), y).view(dtype)


def select(c: Array, x: Array, y: Array, out: Array) -> Array:
    """`where` into out, which may be x or y. Where the condition seldom holds, that is faster than to compute with masks."""
    size = out.dtype.itemsize
    if out is not x and c.shape == out.shape and np.count_nonzero(c) * 64 <= c.size:
        if out is not y:
            np.copyto(out, y)
        np.copyto(out, x, where=c)
    elif out.size < 4096 or size > 4:
        np.copyto(out, np.where(c, x, y))
    else:
        bits = _BITS[size]
        into, x, y = out.view(bits), x.view(bits), y.view(bits)
        mask = np.negative(c.view(np.int8))  # all ones where c
        if y.ndim == 0 and not y:
            np.bitwise_and(x, mask, out=into)
        else:
            other = np.bitwise_xor(x, y)
            chosen = np.bitwise_and(other, mask, out=other if other.shape == out.shape else None)
            np.bitwise_xor(chosen, y, out=into)
    return out


_BITS = {1: np.int8, 2: np.int16, 4: np.int32}


def blocks(shape: Sequence[int], most: int) -> Iterator[tuple[Any, ...]]:
    """Indices that cut an array of this shape into parts of at most so many elements.

    >>> list(blocks((2, 3), 4))
    [(slice(0, 1, None),), (slice(1, 2, None),)]
    """
    below = math.prod(shape[1:])
    if not shape or shape[0] * below <= most:
        yield (...,)
    elif below > most:
        yield from ((i, *rest) for i in range(shape[0]) for rest in blocks(shape[1:], most))
    else:
        yield from ((slice(i, i + most // below),) for i in range(0, shape[0], most // below))
