"""NumPy: factorisations of matrices (LAPACK's), systems of equations and Fourier transforms (pocketfft's).

Promises: a matrix without a factor gives nan all over, and the others of its batch are not touched by that; single precision stays single.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from minidl.backends.numpy_helpers import is_half, widened

Array = np.ndarray


# ---- matrices ---------------------------------------------------------------------------------------------------------------------------
@widened
def cholesky(x: Array) -> Array:
    try:
        return np.linalg.cholesky(x)
    except np.linalg.LinAlgError:
        if x.ndim == 2:
            return np.full_like(x, np.nan)
        return np.stack([cholesky(m) for m in x])


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


# ---- Fourier transforms -----------------------------------------------------------------------------------------------------------------
def fft(x: Array, *, axes: tuple[int, ...], inverse: bool, norm: Any) -> Array:
    if len(axes) == 1:
        return (np.fft.ifft if inverse else np.fft.fft)(x, axis=axes[0], norm=norm)
    return (np.fft.ifftn if inverse else np.fft.fftn)(x, axes=axes, norm=norm)


def rfft(x: Array, *, axis: int, norm: Any) -> Array:
    return np.fft.rfft(x.astype(np.float32) if is_half(x.dtype) else x, axis=axis, norm=norm)


def irfft(x: Array, *, axis: int, n: int, norm: Any) -> Array:
    return np.fft.irfft(x, n, axis=axis, norm=norm)
