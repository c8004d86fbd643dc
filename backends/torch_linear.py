"""PyTorch: factorisations of matrices, systems of equations and Fourier transforms.

Promises: a matrix without a factor gives nan all over, without a look at the values, so that nothing waits for an accelerator; float16 and bfloat16
are computed in float32 and rounded once.
"""

from __future__ import annotations

import math

import torch

from minidl.backends.torch_windows import HALF

Tensor = torch.Tensor


# ---- matrices ---------------------------------------------------------------------------------------------------------------------------
def cholesky(x: Tensor) -> Tensor:
    """The factor of each matrix, read from its lower triangle; a matrix that is not positive definite gives nan all over."""
    if x.dtype in HALF:
        return cholesky(x.float()).to(x.dtype)
    factor, info = torch.linalg.cholesky_ex(x)
    return torch.where(info[..., None, None] > 0, math.nan, factor)


def triangular_solve(a: Tensor, b: Tensor, *, lower: bool, transpose: bool, unit: bool) -> Tensor:
    if a.dtype in HALF:
        return triangular_solve(a.float(), b.float(), lower=lower, transpose=transpose, unit=unit).to(a.dtype)
    return torch.linalg.solve_triangular(a.mT if transpose else a, b, upper=lower == transpose, unitriangular=unit)


# ---- Fourier transforms -----------------------------------------------------------------------------------------------------------------
def fft(x: Tensor, *, axes: tuple[int, ...], inverse: bool, norm: str) -> Tensor:
    if not x.numel():  # MKL refuses
        return x
    return (torch.fft.ifftn if inverse else torch.fft.fftn)(x, dim=axes, norm=norm)


def rfft(x: Tensor, *, axis: int, norm: str) -> Tensor:
    x = x.float() if x.dtype in HALF else x
    if not x.numel():
        return x.new_zeros((*x.shape[:axis], x.shape[axis] // 2 + 1, *x.shape[axis + 1 :]), dtype=torch.complex(x, x).dtype)
    return torch.fft.rfft(x, dim=axis, norm=norm)


def irfft(x: Tensor, *, axis: int, n: int, norm: str) -> Tensor:
    if not x.numel():
        return x.real.new_zeros((*x.shape[:axis], n, *x.shape[axis + 1 :]))
    return torch.fft.irfft(x, n, dim=axis, norm=norm)
