"""PyTorch: what kernels of functions ask of their arguments, and the choice of dropout.

Promises: what a kernel gets wrong (mish of -inf, an infinite cotangent where the derivative is 0, a kink) is no function's: found by looking, which
is one quick pass.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch

from minidl.backends.torch_elementwise import spreads
from minidl.backends.torch_kernels import number
from minidl.backends.torch_linear import WORDS, unseen

Tensor = torch.Tensor
FLOATS = (torch.float32, torch.float64)
_SEVERAL = 2**10


def ours(*xs: Tensor | None) -> bool:
    """Whether these are floats of one dtype on the CPU."""
    first = xs[0]
    assert first is not None
    return first.dtype in FLOATS and all(x is None or (x.dtype is first.dtype and x.__class__ is Tensor and x.is_cpu) for x in xs)


def fitting(fits: Callable[..., bool]) -> Callable[[Callable[..., Any]], Any]:
    """Of a kernel what its arguments must be, but for their values: fits(tracked, *arrays, *static)."""

    def of(kernel: Callable[..., Any]) -> Any:
        @functools.wraps(kernel)
        def call(tracked: bool, *args: Any) -> Any:
            return kernel(tracked, *args) if fits(tracked, *args) else None

        call.fits = fits  # type: ignore[attr-defined]
        return call

    return of


def kept(mask: Tensor, x: Tensor, *, scale: float) -> Tensor:
    """Of many elements the bits, with the mask: torch.where branches on every one."""
    out = torch.mul(x, scale)
    if x.numel() < _SEVERAL or x.dtype.itemsize not in WORDS or not x.is_cpu or unseen(x) or not spreads(mask.shape, x.shape):
        return torch.where(mask, out, number(0.0, x.dtype))
    out.view(WORDS[x.dtype.itemsize]).bitwise_and_(mask.view(torch.int8).neg())
    return out
