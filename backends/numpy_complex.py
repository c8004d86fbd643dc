"""NumPy's functions of complex numbers with the values of the Array API standard, where NumPy's own are others.

NumPy follows C's Annex G but for expm1; the standard asks positive zeros of tanh beyond it; and log1p has few digits near 0.
Source: Python array API standard 2025.12, special cases of the elementwise functions.
"""

from __future__ import annotations

import numpy as np

Array = np.ndarray


def complex_sign(x: Array) -> Array:
    """x / |x|, nan in both parts where either is nan."""
    out = np.sign(x)
    return np.where(np.isnan(x), out.dtype.type(complex(np.nan, np.nan)), out)


def complex_expm1(x: Array) -> Array:
    """exp(x) - 1: an angle without a value spoils no 0 and no size of inf, and 0 comes out positive."""
    a, b = x.real, x.imag
    out = np.array(np.expm1(x))
    special = ~np.isfinite(x) | (x == 0) | ~np.isfinite(out)
    if special.any():
        r, unknown = np.exp(a), ~np.isfinite(b)
        real = np.where(x == 0, 0, np.where(unknown, np.where(np.isinf(a), r, np.nan), r * np.cos(b)) - 1)
        imag = np.where(b == 0, b, np.where(unknown, np.where(np.isneginf(a), np.copysign(0, b), np.nan), r * np.sin(b)))
        out.real, out.imag = np.where(special, real, out.real), np.where(special, imag, out.imag)
    return out


def _far(out: Array, real: Array, imag: Array, along: Array, other: Array) -> Array:
    """(1, 0) with the signs of the argument, for the part `along` that decides, where that is far out."""
    far = np.abs(along) >= np.where(np.isfinite(other), 1000, np.inf)
    if far.any():
        out.real, out.imag = np.where(far, np.copysign(along is real, real), out.real), np.where(far, np.copysign(along is imag, imag), out.imag)
    return out


def complex_tanh(x: Array) -> Array:
    """tanh: far out it is 1 or -1, with a zero of the sign of the imaginary part."""
    real, imag = x.real, x.imag
    return _far(np.array(np.tanh(x)), real, imag, real, imag)


def complex_tan(x: Array) -> Array:
    """tan(z) = -i tanh(iz)."""
    real, imag = x.real, x.imag
    return _far(np.array(np.tan(x)), real, imag, imag, real)


def complex_log1p(x: Array) -> Array:
    """log(1 + x): near 0 half the logarithm of |1 + x|², without the 1."""
    out, near = np.array(np.log1p(x)), np.abs(x) < 0.5
    if near.any():
        out.real = np.where(near, 0.5 * np.log1p(x.real * (2 + x.real) + x.imag * x.imag), out.real)
    return out


def complex_pow(x: Array, y: Array) -> Array:
    """x ** y: exp(y log x) where something is not finite, in which a part that is 0 adds nothing; 0 ** y is 0 where the real part of y is positive,
    and x ** 0 is 1."""
    out = np.array(np.power(x, y))
    wild = ~(np.isfinite(x) & np.isfinite(y))
    if wild.any() or not np.all(x):
        log, other = np.log(x), np.empty_like(out)
        (c, d), (u, v) = (y.real, y.imag), (log.real, log.imag)
        cu, dv, cv, du = (np.where((p == 0) | (q == 0), 0, p * q) for p, q in ((c, u), (d, v), (c, v), (d, u)))
        other.real, other.imag = cu - dv, cv + du
        nothing = np.where(np.greater(y.real, 0), out.dtype.type(0), out.dtype.type(complex(np.nan, np.nan)))
        out = np.where(y == 0, out.dtype.type(1), np.where(x == 0, nothing, np.where(wild, np.exp(other), out)))
    return out


#: primitive -> its kernel for complex numbers
COMPLEX = {"expm1": complex_expm1, "log1p": complex_log1p, "sign": complex_sign, "tan": complex_tan, "tanh": complex_tanh}
