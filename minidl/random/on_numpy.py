"""NumPy: threefry2x32, many words in parts that stay in a cache, few as integers of Python's; coins by halves of words."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

Array = np.ndarray
#: Threefry's rotations as (left, right) shifts: four rounds, and the next four.
_ROTATIONS = [[(np.uint32(r), np.uint32(32 - r)) for r in rounds] for rounds in ((13, 15, 26, 6), (17, 29, 16, 24))]
#: Elements that threefry takes at a time: three arrays of so many stay in a cache, and calls cost little beside the work.
_BLOCK = 1 << 16
#: So many words cost less as one integer of Python's than in sixty and more calls.
_FEW = 256


def threefry2x32(k0: Array, k1: Array, x0: Array, x1: Array) -> tuple[Array, Array]:
    """Threefry-2x32 with 20 rounds. Source: J. Salmon et al., Parallel random numbers: as easy as 1, 2, 3 (SC 2011)."""
    one_key = k0.size == k1.size == x0.size == 1 and x1.ndim == k0.ndim == k1.ndim == x0.ndim
    shape = x1.shape if one_key else np.broadcast_shapes(k0.shape, k1.shape, x0.shape, x1.shape)
    out = np.empty(shape, np.uint32), np.empty(shape, np.uint32)
    rounds(k0, k1, x0, x1, *out)
    return out


def _packed(v: Array, like: Array, ones: int) -> int:
    """Words in one integer of Python's, each in 64 bits of it."""
    if v.size == 1:
        return int(v.item()) * ones
    wide = np.empty(like.shape, "<u8")
    wide[...] = v
    return int.from_bytes(wide.tobytes(), "little")


def coins(key: Array, *, shape: tuple[int, ...], most: int) -> Array:
    """Whether words are at most `most`, two from a word of threefry."""
    out = np.empty((*key.shape[:-1], *shape), np.bool_)
    toss(key, most, out)
    return out


def toss(key: Array, most: int, out: Array) -> None:
    """Coins into an array in C order: the upper halves of words decide but for ties, one in 2**16, where the other half is the lower one."""
    lead = key.shape[:-1]
    n = out.size // max(math.prod(lead), 1)
    many = -(-n // 4)
    if not lead and many <= _FEW:
        ones, counters = _lanes(many)
        k0, k1 = key.tolist()
        a, b = _mixed(k0 * ones, k1 * ones, 0, counters, ones)
        halves = np.frombuffer((a | b << 32).to_bytes(8 * many, "little"), "<u2")
    else:
        words = np.empty((*lead, many, 2), "<u4")
        first, second = np.empty((2, *lead, many), np.uint32)
        rounds(key[..., :1], key[..., 1:], np.zeros(1, np.uint32), np.arange(many, dtype=np.uint32), first, second)
        words[..., 0], words[..., 1] = first, second
        halves = words.view("<u2").reshape(*lead, 4 * many)
    high, low = divmod(most, 2**16)
    part = halves[..., :n]
    drawn = np.less(part, high, out=out.reshape(*lead, n))
    ties = np.equal(part, high)
    if np.count_nonzero(ties):
        *row, at = np.nonzero(ties)
        drawn[(*row, at)] = halves[(*row, at ^ 1)] <= low


@functools.cache
def _lanes(n: int) -> tuple[int, int]:
    """n ones, and the words from 0 to n - 1, packed."""
    return int.from_bytes(b"\1\0\0\0\0\0\0\0" * n, "little"), int.from_bytes(np.arange(n, dtype="<u8").tobytes(), "little")


def _mixed(c0: int, c1: int, a: int, b: int, ones: int) -> tuple[int, int]:
    """Threefry on words side by side in Python's integers: a sum needs no mask before the end, where it has 38 bits."""
    mask = (ones << 32) - ones
    keys = (c0, c1, c0 ^ c1 ^ 0x1BD11BDA * ones)
    a, b = a + c0, b + c1 & mask
    for i in range(5):
        for r in ((13, 15, 26, 6), (17, 29, 16, 24))[i % 2]:
            a += b
            high = b << r
            b = ((high | high >> 32) ^ a) & mask
        a, b = a + keys[(i + 1) % 3], b + keys[(i + 2) % 3] + (i + 1) * ones & mask
    return a & mask, b


def _few_rounds(k0: Array, k1: Array, x0: Array, x1: Array, out0: Array, out1: Array) -> None:
    n = out0.size
    ones, _ = _lanes(n)
    c0, c1, a, b = (_packed(v, out0, ones) for v in (k0, k1, x0, x1))
    for out, v in zip((out0, out1), _mixed(c0, c1, a, b, ones), strict=True):
        out[...] = np.frombuffer(v.to_bytes(8 * n, "little"), "<u4")[::2].reshape(out.shape)


def rounds(k0: Array, k1: Array, x0: Array, x1: Array, out0: Array, out1: Array) -> None:
    """Threefry, into arrays of the shape to which the words broadcast."""
    shape = out0.shape
    if out0.size <= _FEW:
        return _few_rounds(k0, k1, x0, x1, out0, out1)
    keys = (k0, k1, np.bitwise_xor(np.bitwise_xor(k0, k1), np.uint32(0x1BD11BDA)))
    added = [(keys[(i + 1) % 3], np.add(keys[(i + 2) % 3], np.uint32(i + 1))) for i in range(5)]
    k0, k1, x0, x1, *more = (v if out0.size <= _BLOCK else np.broadcast_to(v, shape) for v in (k0, k1, x0, x1, *itertools.chain(*added)))
    spare = np.empty(min(out0.size, _BLOCK), np.uint32)
    for part in _blocks(shape, _BLOCK) if out0.size > _BLOCK else (...,):
        a, b = np.add(x0[part], k0[part], out=out0[part]), np.add(x1[part], k1[part], out=out1[part])
        high = spare[: a.size].reshape(a.shape)
        for i in range(5):
            for left, right in _ROTATIONS[i % 2]:
                np.add(a, b, a)
                np.left_shift(b, left, high)
                np.right_shift(b, right, b)
                np.bitwise_or(b, high, b)
                np.bitwise_xor(b, a, b)
            np.add(a, more[2 * i][part], a)
            np.add(b, more[2 * i + 1][part], b)


def _blocks(shape: Sequence[int], most: int) -> Iterator[tuple[Any, ...]]:
    """Indices that cut an array of this shape into parts of at most so many elements.

    >>> list(_blocks((2, 3), 4))
    [(slice(0, 1, None),), (slice(1, 2, None),)]
    """
    below = math.prod(shape[1:])
    if not shape or shape[0] * below <= most:
        yield (...,)
    elif below > most:
        yield from ((i, *rest) for i in range(shape[0]) for rest in _blocks(shape[1:], most))
    else:
        yield from ((slice(i, i + most // below),) for i in range(0, shape[0], most // below))
