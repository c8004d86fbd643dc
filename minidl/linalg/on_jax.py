"""JAX: factorisations of matrices and systems of equations, in lax.

Promises: as jax_elementwise; a matrix without a factor gives nan all over.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from jax import lax

from minidl.backends.jax_helpers import const, is_half, kernels, shape_to, to, wide


# ---- linear algebra -------------------------------------------------------------------------------------------------------------------
@wide
def cholesky(x: Any) -> Any:
    """The factor of each matrix, read from its lower triangle; a matrix that is not positive definite gives nan all over."""
    out = lax.linalg.cholesky(x, symmetrize_input=False)
    return lax.select(shape_to(out[..., -1:, -1:] != out[..., -1:, -1:], out.shape), const(math.nan, out), out) if out.size else out


@wide
def triangular_solve(a: Any, b: Any, *, lower: bool, transpose: bool, unit: bool) -> Any:
    return lax.linalg.triangular_solve(a, b, left_side=True, lower=lower, transpose_a=transpose, unit_diagonal=unit)


def _diagonal(x: Any) -> Any:
    *lead, n, _ = x.shape
    flat = lax.reshape(x, (*lead, n * n))
    return lax.slice(flat, [0] * flat.ndim, flat.shape, [1] * len(lead) + [n + 1]) if n else flat


def _product(x: Any) -> Any:
    return lax.reduce(x, x.dtype.type(1), lax.mul, (x.ndim - 1,))


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


@wide
def det(x: Any) -> Any:
    lu, pivots, _ = lax.linalg.lu(x)
    return lax.mul(_swapped(pivots, x.dtype), _product(_diagonal(lu)))


@wide
def detsign(x: Any) -> Any:
    lu, pivots, _ = lax.linalg.lu(x)
    return lax.mul(_swapped(pivots, x.dtype), _product(kernels["sign"](_diagonal(lu))))


@wide
def logabsdet(x: Any) -> Any:
    size = lax.log(lax.abs(_diagonal(lax.linalg.lu(x)[0])))
    return lax.reduce(size, size.dtype.type(0), lax.add, (size.ndim - 1,))


@wide
def qr(x: Any, *, complete: bool) -> Any:
    q, r = lax.linalg.qr(x, full_matrices=complete)
    n, last = x.shape[-1], x.ndim - 1
    r = lax.pad(lax.slice_in_dim(r, 0, n, axis=last - 1), x.dtype.type(0), [(0, 0, 0)] * last + [(0, q.shape[-1] - n, 0)])
    return lax.concatenate([q, r], last - 1)


def _last(v: Any, w: Any) -> Any:
    return lax.reshape(to(w, v.dtype), (*w.shape[:-1], 1, w.shape[-1]))


def _of_numbers(out: Any, x: Any) -> Any:
    """What was made of matrices, nan all over for those with a nan or infinity in them."""
    bad = lax.reduce(lax.bitwise_not(lax.is_finite(lax.abs(x))), False, lax.bitwise_or, (x.ndim - 2, x.ndim - 1))
    return lax.select(lax.broadcast_in_dim(bad, out.shape, tuple(range(x.ndim - 2))), const(math.nan, out), out)


@wide
def eigh(x: Any) -> Any:
    v, w = lax.linalg.eigh(x, lower=True, symmetrize_input=False)
    return _of_numbers(lax.concatenate([v, _last(v, w)], x.ndim - 2), kernels["tril"](x, k=0))


def eig(x: Any) -> Any:
    w, v = lax.linalg.eig(to(x, np.float32) if is_half(x) else x, compute_left_eigenvectors=False)
    return _of_numbers(lax.concatenate([v, _last(v, w)], x.ndim - 2), x)


def eigvals(x: Any) -> Any:
    (w,) = lax.linalg.eig(to(x, np.float32) if is_half(x) else x, compute_left_eigenvectors=False, compute_right_eigenvectors=False)
    return _of_numbers(w, x)


@wide
def svd(x: Any) -> Any:
    u, s, vh = lax.linalg.svd(x, full_matrices=False)
    v = lax.transpose(vh, (*range(x.ndim - 2), x.ndim - 1, x.ndim - 2))
    return _of_numbers(lax.concatenate([u, lax.conj(v) if v.dtype.kind == "c" else v, _last(u, s)], x.ndim - 2), x)


@wide
def svdvals(x: Any) -> Any:
    return _of_numbers(lax.linalg.svd(x, full_matrices=False, compute_uv=False), x)
