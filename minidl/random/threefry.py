"""threefry2x32, the primitive that all random bits come from, with kernels of its own.

Source: J. Salmon et al., Parallel random numbers: as easy as 1, 2, 3 (SC 2011).
"""

from __future__ import annotations

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
