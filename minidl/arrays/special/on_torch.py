"""PyTorch: polygamma; lgamma and digamma are torch's own."""

from __future__ import annotations

import math

import torch

from minidl.backends.torch_elementwise import PLAIN
from minidl.backends.torch_linear import HALF

Tensor = torch.Tensor
lgamma, digamma = torch.lgamma, torch.digamma
PLAIN.update(lgamma=lgamma, digamma=digamma)


def polygamma(x: Tensor, *, n: int) -> Tensor:
    """(-1)**(n+1) n! zeta(n+1, x), since torch.polygamma(1, x) has a relative error of 1e-9; far out the leading term (n-1)! / x**n."""
    if x.dtype in HALF:
        return polygamma(x.float(), n=n).to(x.dtype)
    near = torch.special.zeta(torch.full((), n + 1.0, dtype=x.dtype, device=x.device), x).mul_(float(math.factorial(n)))
    out = torch.where(x > 1e17, x.pow(-n).mul_(float(math.factorial(n - 1))), near)
    nowhere = x == -math.inf if n % 2 else (x < 0) & (x == x.round())  # at poles where the limits from both sides differ
    return torch.where(nowhere, math.nan, out if n % 2 else out.neg_())
