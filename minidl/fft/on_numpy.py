"""NumPy: Fourier transforms (pocketfft's). Promises: single precision stays single."""

from __future__ import annotations

from typing import Any

import numpy as np

from minidl.backends.numpy_helpers import is_half

Array = np.ndarray


def fft(x: Array, *, axes: tuple[int, ...], inverse: bool, norm: Any) -> Array:
    if len(axes) == 1:
        return (np.fft.ifft if inverse else np.fft.fft)(x, axis=axes[0], norm=norm)
    return (np.fft.ifftn if inverse else np.fft.fftn)(x, axes=axes, norm=norm)


def rfft(x: Array, *, axis: int, norm: Any) -> Array:
    return np.fft.rfft(x.astype(np.float32) if is_half(x.dtype) else x, axis=axis, norm=norm)


def irfft(x: Array, *, axis: int, n: int, norm: Any) -> Array:
    return np.fft.irfft(x, n, axis=axis, norm=norm)
