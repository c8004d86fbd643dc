"""threefry2x32, the primitive that all random bits come from, and coins, what dropout draws, with kernels of their own.

Source: J. Salmon et al., Parallel random numbers: as easy as 1, 2, 3 (SC 2011).
"""

from __future__ import annotations

import math
from typing import Any

import minidl as md
from minidl.extend import Primitive, batch_elementwise, define


def _infer(*xs: Any) -> Any:
    shape = md.broadcast_shapes(*(x.shape for x in xs))
    return (shape, md.uint32), (shape, md.uint32)


def _threefry(xp: Any, k0: Any, k1: Any, x0: Any, x1: Any) -> Any:
    """Threefry-2x32 with 20 rounds: two words of key and two of a counter, uint32, which broadcast, become two random ones."""
    keys = (k0, k1, k0 ^ k1 ^ 0x1BD11BDA)
    x0, x1 = x0 + k0, x1 + k1
    for i in range(5):
        for r in ((13, 15, 26, 6), (17, 29, 16, 24))[i % 2]:
            x0 = x0 + x1
            x1 = x0 ^ ((x1 << r) | (x1 >> (32 - r)))
        x0, x1 = x0 + keys[(i + 1) % 3], x1 + keys[(i + 2) % 3] + (i + 1)
    return x0, x1


define(Primitive(
    "threefry2x32", "k0 k1 x0 x1", infer=_infer, batch=batch_elementwise, multiple=True, decompose=_threefry, promote="none", elementwise=True,
), "minidl.random")  # fmt: skip


def _coins(xp: Any, key: Any, *, shape: tuple[int, ...], most: int) -> Any:
    """Whether words of 32 bits are at most `most`. Counter i gives elements 4 i to 4 i + 3: each of its two words with its halves exchanged, and
    as it is."""
    lead, n = tuple(key.shape[:-1]), math.prod(shape)
    start = (0,) * len(lead)
    k0, k1 = (xp.slice(key, start=(*start, i), stop=(*lead, i + 1), step=(1,) * len(key.shape)) for i in range(2))
    words = []
    for word in xp.threefry2x32(k0, k1, xp.bitwise_xor(k0, k0), xp.iota(size=-(-n // 4), dtype=md.uint32)):
        words += [xp.bitwise_or(xp.shift_left(word, 16), xp.shift_right(word, 16)), word]
    drawn = xp.concat(*(xp.reshape(w, shape=(*w.shape, 1)) for w in words), axis=len(lead) + 1)
    flat = xp.reshape(drawn, shape=(*lead, 4 * drawn.shape[-2]))
    if flat.shape[-1] != n:
        flat = xp.slice(flat, start=(*start, 0), stop=(*lead, n), step=(1,) * len(flat.shape))
    return xp.reshape(xp.le(flat, most), shape=(*lead, *shape))


coins = define(Primitive(
    "coins", "key", "shape most", infer=lambda key, *, shape, most: ((*key.shape[:-1], *shape), md.bool),
    batch=lambda primitive, call, size, xs, batched, params: call("coins", *xs, **params), decompose=_coins, promote="none",
), "minidl.random")  # fmt: skip
