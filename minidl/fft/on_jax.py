"""JAX: Fourier transforms, in lax."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from jax import lax

from minidl.backends.jax_helpers import const, is_half, to


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


def fft(x: Any, *, axes: tuple[int, ...], inverse: bool, norm: str) -> Any:
    """XLA divides inverse transforms: the conjugate of the transform of the conjugate does not."""
    x, n = lax.conj(x) if inverse else x, 1
    for a in axes:
        x, n = _along(x, a, lax.FftType.FFT, x.shape[a]) if x.size else x, n * x.shape[a]
    return _scaled(lax.conj(x) if inverse else x, n, norm, inverse)


def rfft(x: Any, *, axis: int, norm: str) -> Any:
    n = x.shape[axis]
    return _scaled(_along(to(x, np.float32) if is_half(x) else x, axis, lax.FftType.RFFT, n), n, norm, False)


def irfft(x: Any, *, axis: int, n: int, norm: str) -> Any:
    out = _along(x, axis, lax.FftType.IRFFT, n)
    return out if norm == "backward" else lax.mul(out, const(math.sqrt(n) if norm == "ortho" else n, out))
