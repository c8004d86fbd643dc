"""JAX: factorisations of matrices, systems of equations and Fourier transforms, in lax.

Promises: as jax_kernels; a matrix without a factor gives nan all over.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from jax import lax

from minidl.backends.jax_kernels import const, is_half, kernel, kernels, shape_to, to, wide


# ---- linear algebra -------------------------------------------------------------------------------------------------------------------
@kernel
@wide
def cholesky(x: Any) -> Any:
    """The factor of each matrix, read from its lower triangle; a matrix that is not positive definite gives nan all over."""
    out = lax.linalg.cholesky(x, symmetrize_input=False)
    return lax.select(shape_to(out[..., -1:, -1:] != out[..., -1:, -1:], out.shape), const(math.nan, out), out) if out.size else out


@kernel
@wide
def triangular_solve(a: Any, b: Any, *, lower: bool, transpose: bool, unit: bool) -> Any:
    return lax.linalg.triangular_solve(a, b, left_side=True, lower=lower, transpose_a=transpose, unit_diagonal=unit)


def _diagonal(x: Any) -> Any:
    *lead, n, _ = x.shape
    flat = lax.reshape(x, (*lead, n * n))
    return lax.slice(flat, [0] * flat.ndim, flat.shape, [1] * len(lead) + [n + 1]) if n else flat


def _product(x: Any) -> Any:
    return lax.reduce(x, x.dtype.type(1), lax.mul, (x.ndim - 1,))


@kernel
@wide
def solve(a: Any, b: Any) -> Any:
    """By the factors of Gaussian elimination; a pivot 0 gives nan all over."""
    lu, _, order = lax.linalg.lu(a)
    b = kernels["take_along"](b, lax.broadcast_in_dim(order, b.shape, tuple(range(b.ndim - 1))), axis=b.ndim - 2)
    b = lax.linalg.triangular_solve(lu, b, left_side=True, lower=True, unit_diagonal=True)
    out = lax.linalg.triangular_solve(lu, b, left_side=True, lower=False)
    dead = lax.reduce(lax.eq(_diagonal(lu), const(0, _diagonal(lu))), False, lax.bitwise_or, (a.ndim - 2,))
    return lax.select(lax.broadcast_in_dim(dead, out.shape, tuple(range(a.ndim - 2))), const(math.nan, out), out)


def _swapped(pivots: Any, dtype: Any) -> Any:
    """The sign of a permutation, from the exchanges that make it."""
    moved = lax.ne(pivots, lax.broadcasted_iota(pivots.dtype, pivots.shape, pivots.ndim - 1))
    return _product(lax.select(moved, lax.full(pivots.shape, -1, dtype), lax.full(pivots.shape, 1, dtype)))


@kernel
@wide
def det(x: Any) -> Any:
    lu, pivots, _ = lax.linalg.lu(x)
    return lax.mul(_swapped(pivots, x.dtype), _product(_diagonal(lu)))


@kernel
@wide
def detsign(x: Any) -> Any:
    lu, pivots, _ = lax.linalg.lu(x)
    return lax.mul(_swapped(pivots, x.dtype), _product(kernels["sign"](_diagonal(lu))))


@kernel
@wide
def logabsdet(x: Any) -> Any:
    size = lax.log(lax.abs(_diagonal(lax.linalg.lu(x)[0])))
    return lax.reduce(size, size.dtype.type(0), lax.add, (size.ndim - 1,))


@kernel
@wide
def qr(x: Any, *, complete: bool) -> Any:
    q, r = lax.linalg.qr(x, full_matrices=complete)
    n, last = x.shape[-1], x.ndim - 1
    r = lax.pad(lax.slice_in_dim(r, 0, n, axis=last - 1), x.dtype.type(0), [(0, 0, 0)] * last + [(0, q.shape[-1] - n, 0)])
    return lax.concatenate([q, r], last - 1)


def _last(v: Any, w: Any) -> Any:
    return lax.reshape(to(w, v.dtype), (*w.shape[:-1], 1, w.shape[-1]))


@kernel
@wide
def eigh(x: Any) -> Any:
    v, w = lax.linalg.eigh(x, lower=True, symmetrize_input=False)
    return lax.concatenate([v, _last(v, w)], x.ndim - 2)


@kernel
def eig(x: Any) -> Any:
    w, v = lax.linalg.eig(to(x, np.float32) if is_half(x) else x, compute_left_eigenvectors=False)
    return lax.concatenate([v, _last(v, w)], x.ndim - 2)


@kernel
def eigvals(x: Any) -> Any:
    (w,) = lax.linalg.eig(to(x, np.float32) if is_half(x) else x, compute_left_eigenvectors=False, compute_right_eigenvectors=False)
    return w


@kernel
@wide
def svd(x: Any) -> Any:
    u, s, vh = lax.linalg.svd(x, full_matrices=False)
    v = lax.transpose(vh, (*range(x.ndim - 2), x.ndim - 1, x.ndim - 2))
    return lax.concatenate([u, lax.conj(v) if v.dtype.kind == "c" else v, _last(u, s)], x.ndim - 2)


@kernel
@wide
def svdvals(x: Any) -> Any:
    return lax.linalg.svd(x, full_matrices=False, compute_uv=False)


# ---- Fourier transforms -----------------------------------------------------------------------------------------------------------------
def _scaled(x: Any, n: int, norm: str, inverse: bool) -> Any:
    """A transform without a divisor, with the one that norm says."""
    divisor = {"backward": n if inverse else 1, "forward": 1 if inverse else n, "ortho": math.sqrt(n)}[norm]
    return x if divisor == 1 else lax.mul(x, const(1 / divisor, x))


def _along(x: Any, axis: int, kind: Any, n: int) -> Any:
    last = x.ndim - 1
    if axis == last:
        return lax.fft(x, kind, (n,))
    order = [last if a == axis else axis if a == last else a for a in range(x.ndim)]
    return lax.transpose(lax.fft(lax.transpose(x, order), kind, (n,)), order)


@kernel
def fft(x: Any, *, axes: tuple[int, ...], inverse: bool, norm: str) -> Any:
    """XLA divides inverse transforms: the conjugate of the transform of the conjugate does not."""
    x, n = lax.conj(x) if inverse else x, 1
    for a in axes:
        x, n = _along(x, a, lax.FftType.FFT, x.shape[a]) if x.size else x, n * x.shape[a]
    return _scaled(lax.conj(x) if inverse else x, n, norm, inverse)


@kernel
def rfft(x: Any, *, axis: int, norm: str) -> Any:
    n = x.shape[axis]
    return _scaled(_along(to(x, np.float32) if is_half(x) else x, axis, lax.FftType.RFFT, n), n, norm, False)


@kernel
def irfft(x: Any, *, axis: int, n: int, norm: str) -> Any:
    out = _along(x, axis, lax.FftType.IRFFT, n)
    return out if norm == "backward" else lax.mul(out, const(math.sqrt(n) if norm == "ortho" else n, out))
