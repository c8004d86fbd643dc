"""JAX: factorisations of matrices, systems of equations and Fourier transforms, in lax.

Promises: as jax_kernels; a matrix without a factor gives nan all over.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from jax import lax

from minidl.backends.jax_kernels import const, is_half, kernel, shape_to, to, wide


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
