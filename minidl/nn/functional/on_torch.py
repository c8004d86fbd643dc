"""PyTorch: SiLU and its derivative by torch's kernels, corrected where a value is infinite.

Promises: who may look at values does, on the CPU; elsewhere the argument is limited beforehand.
"""

from __future__ import annotations

import torch

from minidl.backends.torch_composites import finite
from minidl.backends.torch_windows import unseen

Tensor = torch.Tensor
_FAR = 1e3
_silu, _silu_backward = torch._C._nn.silu, torch.ops.aten.silu_backward.default


def silu(x: Tensor) -> Tensor:
    """torch's silu(-inf) is nan."""
    if not x.is_cuda and not unseen(x):
        found = _silu(x)
        if finite(found):
            return found
    return _silu(x.clamp(min=-_FAR)).to(x.dtype)


def silu_dx(g: Tensor, x: Tensor) -> Tensor:
    """torch's derivative is nan at infinity."""
    if g.shape != x.shape:
        g, x = torch.broadcast_tensors(g, x)
    if not x.is_cuda and not unseen(x):
        found = _silu_backward(g, x)
        if finite(found):
            return found
    return _silu_backward(g, x.clamp(-_FAR, _FAR))
