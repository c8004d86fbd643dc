"""PyTorch: factorisations of matrices and systems of equations.

Promises: a matrix without a factor gives nan all over, without a look at the values, so that nothing waits for an accelerator; float16 and bfloat16
are computed in float32 and rounded once.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable

import torch

from minidl.backends.torch_linear import HALF

Tensor = torch.Tensor


# ---- matrices ---------------------------------------------------------------------------------------------------------------------------
def _wide(f: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Compute float16 and bfloat16 in float32 and round once."""

    @functools.wraps(f)
    def kernel(*xs: Tensor, **params: bool) -> Tensor:
        if xs[0].dtype not in HALF:
            return f(*xs, **params)
        return f(*(x.float() for x in xs), **params).to(xs[0].dtype)

    return kernel


def _of_numbers(f: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """f with nan for what has a nan or infinity in it, which torch refuses."""

    @functools.wraps(f)
    def kernel(x: Tensor) -> Tensor:
        fine = torch.isfinite(x).all(-1).all(-1)
        y = f(torch.where(fine[..., None, None], x, 0))
        return torch.where(fine[(..., *[None] * (y.ndim - fine.ndim))], y, math.nan)

    return _wide(kernel)


@_wide
def cholesky(x: Tensor) -> Tensor:
    factor, info = torch.linalg.cholesky_ex(x)
    return torch.where(info[..., None, None] > 0, math.nan, factor)


@_wide
def triangular_solve(a: Tensor, b: Tensor, *, lower: bool, transpose: bool, unit: bool) -> Tensor:
    return torch.linalg.solve_triangular(a.mT if transpose else a, b, upper=lower == transpose, unitriangular=unit)


@_wide
def solve(a: Tensor, b: Tensor) -> Tensor:
    out, info = torch.linalg.solve_ex(a, b)
    return torch.where(info[..., None, None] > 0, math.nan, out)


@_wide
def det(x: Tensor) -> Tensor:
    return torch.linalg.det(x)


@_wide
def logabsdet(x: Tensor) -> Tensor:
    return torch.linalg.slogdet(x).logabsdet


@_wide
def detsign(x: Tensor) -> Tensor:
    sign, size = torch.linalg.slogdet(x)
    return torch.where(torch.isnan(size), math.nan, sign)


@_wide
def qr(x: Tensor, *, complete: bool) -> Tensor:
    q, r = torch.linalg.qr(x, "complete" if complete else "reduced")
    n = x.shape[-1]
    return torch.cat([q, torch.nn.functional.pad(r[..., :n, :], (0, q.shape[-1] - n))], -2)


@_of_numbers
def _eigh(x: Tensor) -> Tensor:
    w, v = torch.linalg.eigh(x)
    return torch.cat([v, w[..., None, :].to(v.dtype)], -2)


@_of_numbers
def _eigvalsh(x: Tensor) -> Tensor:
    return torch.linalg.eigvalsh(x)


def eigh(x: Tensor) -> Tensor:
    return _eigh(x.tril())


def eigvalsh(x: Tensor) -> Tensor:
    return _eigvalsh(x.tril())


def eig(x: Tensor) -> Tensor:
    return _eig(x.float() if x.dtype in HALF else x)


@_of_numbers
def _eig(x: Tensor) -> Tensor:
    w, v = torch.linalg.eig(x)
    return torch.cat([v, w[..., None, :]], -2)


def eigvals(x: Tensor) -> Tensor:
    return _eigvals(x.float() if x.dtype in HALF else x)


@_of_numbers
def _eigvals(x: Tensor) -> Tensor:
    return torch.linalg.eigvals(x)


@_of_numbers
def svd(x: Tensor) -> Tensor:
    u, s, vh = torch.linalg.svd(x, full_matrices=False)
    return torch.cat([u, vh.mH, s[..., None, :].to(u.dtype)], -2)


@_of_numbers
def svdvals(x: Tensor) -> Tensor:
    return torch.linalg.svdvals(x)
