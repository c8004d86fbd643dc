"""PyTorch: threefry2x32 and coins."""

from __future__ import annotations

import math

import torch

from minidl import shapes
from minidl.random.on_numpy import rounds, toss

Tensor = torch.Tensor


def threefry2x32(k0: Tensor, k1: Tensor, x0: Tensor, x1: Tensor) -> tuple[Tensor, Tensor]:
    """Threefry-2x32 with 20 rounds; on the CPU by NumPy in torch's own memory, as torch has no shifts of unsigned integers and takes twice as long.

    Elsewhere on signed views, whose sums wrap alike; the right shift needs a mask. A compiler makes one loop of this.
    Source: J. Salmon et al., Parallel random numbers: as easy as 1, 2, 3 (SC 2011).
    """
    shape = shapes.broadcast(k0.shape, k1.shape, x0.shape, x1.shape)  # torch's own imports sympy, which changes the warning filters
    if type(k0) is Tensor and k0.device.type == "cpu":
        out = torch.empty(shape, dtype=torch.uint32), torch.empty(shape, dtype=torch.uint32)
        rounds(*(v.numpy() for v in (k0, k1, x0, x1, *out)))
        return out
    k0, k1, x0, x1 = (a.view(torch.int32) for a in (k0, k1, x0, x1))
    keys = (k0, k1, k0 ^ k1 ^ 0x1BD11BDA)
    a, b = (x0 + k0).expand(shape), (x1 + k1).expand(shape)
    for i in range(5):
        for r in ((13, 15, 26, 6), (17, 29, 16, 24))[i % 2]:
            a = a + b
            b = (b << r | (b >> (32 - r)) & ((1 << r) - 1)) ^ a
        a, b = a + keys[(i + 1) % 3], b + (keys[(i + 2) % 3] + (i + 1))
    return a.view(torch.uint32), b.view(torch.uint32)


def coins(key: Tensor, *, shape: tuple[int, ...], most: int) -> Tensor:
    """On the CPU NumPy's, as threefry2x32; elsewhere, and where a compiler reads, on signed views: with the sign bit turned they have the order of
    unsigned numbers."""
    lead, n = tuple(key.shape[:-1]), math.prod(shape)
    quarter = -(-n // 4)
    if type(key) is Tensor and key.device.type == "cpu":
        out = torch.empty((*lead, *shape), dtype=torch.bool)
        toss(key.numpy(), most, out.numpy())
        return out
    counters = torch.arange(quarter, dtype=torch.int32, device=key.device).view(torch.uint32)
    zero = torch.zeros((), dtype=torch.int32, device=key.device).view(torch.uint32)
    a, b = (word.view(torch.int32) for word in threefry2x32(key[..., :1], key[..., 1:], zero, counters))
    words = torch.stack([w for word in (a, b) for w in (word << 16 | (word >> 16) & 0xFFFF, word)], -1)
    return ((words ^ -(2**31)) <= most - 2**31).reshape((*lead, 4 * quarter))[..., :n].reshape((*lead, *shape))
