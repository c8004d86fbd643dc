"""NumPy: factorisations of matrices and systems of equations (LAPACK's).

Promises: a matrix without a factor gives nan all over, and the others of its batch are not touched by that; single precision stays single.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import numpy as np

from minidl.backends.numpy_helpers import is_half, widened

Array = np.ndarray


# ---- matrices ---------------------------------------------------------------------------------------------------------------------------
def _each(f: Callable[..., Array]) -> Callable[..., Array]:
    """A factorisation [..., n, n] → [..., rows, columns] that gives nan where LAPACK finds none, or where it is given no numbers."""

    @functools.wraps(f)
    def kernel(x: Array, *more: Array) -> Array:
        try:
            return f(x, *more)
        except np.linalg.LinAlgError:
            if x.ndim == 2:
                y = f(np.eye(*x.shape, dtype=x.dtype), *more)
                return np.full_like(y, np.nan)
            return np.stack([kernel(*parts) for parts in zip(x, *more, strict=True)])

    return widened(kernel)


def _of_numbers(f: Callable[..., Array]) -> Callable[..., Array]:
    """f with nan for what has a nan or infinity in it, on which LAPACK may not return."""

    @functools.wraps(f)
    def kernel(x: Array) -> Array:
        fine = np.isfinite(x).all(axis=(-2, -1))
        if fine.all():
            return f(x)
        y = f(np.where(fine[..., None, None], x, x.dtype.type(0)))
        return np.where(fine[(..., *[None] * (y.ndim - fine.ndim))], y, y.dtype.type(np.nan))

    return kernel


@_each
def cholesky(x: Array) -> Array:
    out = np.linalg.cholesky(x)
    last = out[..., -1:, -1:]  # which is nan if anything is
    return np.where(last == last, out, x.dtype.type(np.nan)) if (last != last).any() else out


@_each
def solve(a: Array, b: Array) -> Array:
    return np.linalg.solve(a, b)


@widened
def det(x: Array) -> Array:
    return np.asarray(np.linalg.det(x))


@widened
def logabsdet(x: Array) -> Array:
    return np.asarray(np.linalg.slogdet(x).logabsdet)


@widened
def detsign(x: Array) -> Array:
    sign, size = np.linalg.slogdet(x)
    return np.where(np.isnan(size), sign.dtype.type(np.nan), sign)


@widened
def qr(x: Array, *, complete: bool) -> Array:
    n = x.shape[-1]
    q, r = np.linalg.qr(x, "complete" if complete else "reduced")
    out = np.zeros((*x.shape[:-2], x.shape[-2] + n, q.shape[-1]), x.dtype)
    out[..., : x.shape[-2], :], out[..., x.shape[-2] :, :n] = q, r[..., :n, :]
    return out


@widened
def eigh(x: Array) -> Array:
    return _eigh(np.tril(x))


@_of_numbers
@_each
def _eigh(x: Array) -> Array:
    w, v = np.linalg.eigh(x)
    return np.concatenate([v, w[..., None, :].astype(v.dtype)], axis=-2)


@widened
def eigvalsh(x: Array) -> Array:
    return _eigvalsh(np.tril(x))


@_of_numbers
@_each
def _eigvalsh(x: Array) -> Array:
    return np.linalg.eigvalsh(x)


def eig(x: Array) -> Array:
    return _eig(x.astype(np.float32) if is_half(x.dtype) else x)


@_of_numbers
@_each
def _eig(x: Array) -> Array:
    w, v = np.linalg.eig(x)
    return np.concatenate([v, w[..., None, :]], axis=-2).astype(np.result_type(x.dtype, np.complex64))


def eigvals(x: Array) -> Array:
    return _eigvals(x.astype(np.float32) if is_half(x.dtype) else x)


@_of_numbers
@_each
def _eigvals(x: Array) -> Array:
    return np.linalg.eigvals(x).astype(np.result_type(x.dtype, np.complex64))


@widened
@_of_numbers
@_each
def svd(x: Array) -> Array:
    u, s, vh = np.linalg.svd(x, full_matrices=False)
    return np.concatenate([u, vh.swapaxes(-1, -2).conj(), s[..., None, :].astype(u.dtype)], axis=-2)


@widened
@_of_numbers
@_each
def svdvals(x: Array) -> Array:
    return np.linalg.svd(x, compute_uv=False)


@widened
def triangular_solve(a: Array, b: Array, *, lower: bool, transpose: bool, unit: bool) -> Array:
    """Substitution, one row of the result at a time, for all matrices and columns at once."""
    if transpose:
        a, lower = a.swapaxes(-1, -2), not lower
    n = a.shape[-1]
    x = np.empty(np.broadcast_shapes(a.shape[:-2], b.shape[:-2]) + b.shape[-2:], b.dtype)
    for i in range(n) if lower else reversed(range(n)):
        known = slice(0, i) if lower else slice(i + 1, n)
        x[..., i, :] = b[..., i, :] - np.matmul(a[..., i : i + 1, known], x[..., known, :])[..., 0, :]
        if not unit:
            x[..., i, :] /= a[..., i, i, None]
    return x
