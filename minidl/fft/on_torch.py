"""PyTorch: Fourier transforms. Promises: float16 and bfloat16 are taken as float32."""

from __future__ import annotations

import torch

from minidl.backends.torch_linear import HALF

Tensor = torch.Tensor


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
