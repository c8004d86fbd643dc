"""numba: threefry2x32 of single words, for the loops that compute elementwise equations."""

from __future__ import annotations

import numpy as np

from minidl.backends.numba_emit import ELEMENTWISE
from minidl.backends.numba_kernels import BROUGHT
from minidl.backends.numba_machine import jit


@jit
def threefry(k0, k1, x0, x1):
    """Threefry-2x32 with 20 rounds. Source: J. Salmon et al., Parallel random numbers: as easy as 1, 2, 3 (SC 2011)."""
    k2 = np.uint32(k0 ^ k1 ^ np.uint32(0x1BD11BDA))
    keys = (k0, k1, k2)
    x0, x1 = np.uint32(x0 + k0), np.uint32(x1 + k1)
    for i in range(5):
        for r in (13, 15, 26, 6) if i % 2 == 0 else (17, 29, 16, 24):
            x0 = np.uint32(x0 + x1)
            x1 = np.uint32((x1 << np.uint32(r)) | (x1 >> np.uint32(32 - r))) ^ x0
            x1 = np.uint32(x1)
        x0, x1 = np.uint32(x0 + keys[(i + 1) % 3]), np.uint32(np.uint32(x1 + keys[(i + 2) % 3]) + np.uint32(i + 1))
    return x0, x1


ELEMENTWISE["threefry2x32"] = lambda *words: f"threefry({', '.join(words)})"
BROUGHT["threefry"] = __name__
