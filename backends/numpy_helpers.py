"""What the NumPy kernels share: their tables, half precision computed in float32, selections that do not branch, and padding."""

from __future__ import annotations

import contextlib
import ctypes
import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

Array = np.ndarray
Kernel = Callable[..., Any]
Pairs = Sequence[tuple[int, int]]
#: Kernels by the names of primitives: those that never warn, and those that may.
SILENT: dict[str, Kernel] = {}
NOISY: dict[str, Kernel] = {}


def silent(f: Kernel) -> Kernel:
    """Register a kernel that never warns."""
    SILENT[f.__name__.rstrip("_")] = f
    return f


def noisy(f: Kernel) -> Kernel:
    """Register a kernel that may warn."""
    NOISY[f.__name__.rstrip("_")] = f
    return f


@functools.cache
def zero_of(dtype: np.dtype) -> Array:
    """A 0-d array, which NumPy takes faster than a number."""
    return np.zeros((), dtype)


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


#: Elements of which a function of several steps takes so many at a time: its buffers stay in the cache, and come from memory that was just freed
#: (in float32 just below 128 KB, from where on malloc asks the system).
CHUNK = (1 << 15) - 64


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


def bounded(x: Array, lo: Any, hi: Any, out: Array | None = None) -> Array:
    """x between two numbers. np.clip takes a third of the time that np.maximum takes with a number, but of a zero bound it may give another sign."""
    if x.size >= 4096 and x.dtype.char in "fd" and np.ndim(lo) == np.ndim(hi) == 0 and lo and hi:
        return np.clip(x, lo, hi, out=out)
    return np.minimum(np.maximum(x, lo, out=out), hi, out=out)


def where(c: Array, x: Array, y: Array) -> Array:
    """x where c, else y; x and y of one dtype. Bit masks select five times faster than np.where, which branches, where c is unpredictable."""
    dtype = getattr(x, "dtype", None) or y.dtype  # rule texts pass Python numbers
    x, y = np.asarray(x, dtype), np.asarray(y, dtype)
    if c.size < 4096 or dtype.itemsize > 4:
        return np.where(c, x, y)
    return select(c, x, y, np.empty(np.broadcast_shapes(c.shape, x.shape, y.shape), dtype))


def select(c: Array, x: Array, y: Array, out: Array) -> Array:
    """`where` into out, which may show the memory of x or y. Where the condition seldom holds, that is faster than to compute with masks."""
    size = out.dtype.itemsize
    apart = out.size >= 4096 and c.shape == out.shape and not np.may_share_memory(out, x)
    chosen = np.count_nonzero(c) if apart else c.size
    if apart and chosen * 64 <= c.size:
        if out is not y:
            np.copyto(out, y)
        if chosen:
            np.copyto(out, x, where=c)
    elif out.size < 4096 or size > 4:
        np.copyto(out, np.where(c, x, y))
    else:
        bits = _BITS[size]
        into, x, y = out.view(bits), x.view(bits), y.view(bits)
        if y.ndim == 0 and not y:
            np.multiply(x, c.view(np.int8), out=into)
        else:
            mask = np.negative(c.view(np.int8))  # all ones where c
            other = np.bitwise_xor(x, y)
            taken = np.bitwise_and(other, mask, out=other if other.shape == out.shape else None)
            np.bitwise_xor(taken, y, out=into)
    return out


_BITS = {1: np.int8, 2: np.int16, 4: np.int32}
AVX512 = ("SkylakeX", "Cooperlake", "SapphireRapids")  # what OpenBLAS calls its kernels for that


@functools.cache
def openblas() -> str:
    """What OpenBLAS calls the kernels that it runs for NumPy's products; "" where there is nobody to say so."""
    for name in ("scipy_openblas_get_corename64_", "openblas_get_corename"):
        with contextlib.suppress(AttributeError, OSError):
            told = ctypes.CFUNCTYPE(ctypes.c_char_p)((name, ctypes.CDLL(np._core._multiarray_umath.__file__)))  # type: ignore[attr-defined]
            return str(told().decode())
    return ""


def turned(m: int, n: int, k: int) -> bool:
    """Whether OpenBLAS makes a float32 product of m rows with n others, each of k numbers, faster as the n with the m, and the transpose of that
    besides: with AVX-512 in four to nine tenths of the time where the second matrix is much the larger one, as the weight of a layer is; its AVX2
    kernels take 1.04 of it."""
    return 4 <= m <= 128 and 2 * m <= n <= 4096 and k >= 4 * m and m * n * k >= 1 << 18 and openblas() in AVX512


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
