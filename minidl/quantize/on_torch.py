"""PyTorch: products of 8-bit integers."""

from __future__ import annotations

import torch

Tensor = torch.Tensor


def dot_int8(x: Tensor, y: Tensor) -> Tensor:
    """torch's product on the CPU; on CUDA it takes multiples of 8 only, so there the exact product of floats."""
    if not x.is_cuda and x.numel() and y.numel():
        return torch._int_mm(x, y.t())
    wide = torch.float32 if x.shape[1] <= 2**24 // 2**14 else torch.float64
    return torch.mm(x.to(wide), y.to(wide).t()).to(torch.int32)
