"""Functions of single numbers for the numba kernels: integers, special functions, complex functions.

Promises: as in numba_machine; they follow the value conventions of the NumPy definitions.
"""

from __future__ import annotations

import math
import operator

import numpy as np

from minidl.backends import complex_values
from minidl.backends.numba_machine import jit
from minidl.backends.numpy_special import WICHURA


# ---- integers --------------------------------------------------------------------------------------------------------------------------
@jit
def uint_pow(x, n):
    """uint64, modulo 2**64, which is right for signed integers too."""
    r, one, zero = np.uint64(1), np.uint64(1), np.uint64(0)
    while n != zero:
        if (n & one) != zero:
            r = r * x
        x = x * x
        n = n >> one
    return r


# ---- floats ----------------------------------------------------------------------------------------------------------------------------
@jit
def float_mod(x, y):
    """x - y * floor(x / y) without cancellation: the sign of y."""
    r = np.fmod(x, y)
    if r != 0:
        return r + y if (y < 0) != (r < 0) else r
    return math.copysign(r, y) if y == y and y != 0 else r


@jit
def float_floordiv(x, y):
    if y == 0 or abs(x) == math.inf or abs(y) == math.inf:
        return np.floor(x / y)
    r = np.fmod(x, y)
    q = (x - r) / y
    if r != 0 and (y < 0) != (r < 0):
        q -= 1
    if q == 0:
        return math.copysign(x - x, x / y)
    f = np.floor(q)
    return f + 1 if q - f > 0.5 else f


@jit
def xlogy(x, y):
    return abs(x) if x == 0 and y == y else x * math.log(y)


@jit
def horner(x, coefficients):
    r = 0.0
    for c in coefficients:
        r = r * x + c
    return r


@jit
def erfinv(x):
    """Algorithm AS 241, as in numpy_special."""
    a = abs(x)
    if not a < 1:
        return x * np.inf if a == 1 else np.nan
    if a <= 0.85:
        z = 0.180625 - (x / 2) ** 2
        return x / 2 * horner(z, WICHURA[0][0]) / horner(z, WICHURA[0][1]) / math.sqrt(2.0)
    r = math.sqrt(-math.log((1 - a) / 2))
    if r <= 5:
        v = horner(r - 1.6, WICHURA[1][0]) / horner(r - 1.6, WICHURA[1][1])
    else:
        v = horner(r - 5, WICHURA[2][0]) / horner(r - 5, WICHURA[2][1])
    return math.copysign(v, x) / math.sqrt(2.0)


# ---- complex functions: Numba's own in the part of the plane to which symmetry leads, and the standard's values ---------------------------------
@jit
def _where(c, x, y):
    return x if c else y


@jit
def _full(like, value):
    return value


@jit
def _signbit(x):
    return math.copysign(1.0, x) < 0


_TOOLS = {n: getattr(math, n) for n in ("sin", "cos", "atan2", "hypot", "log", "log1p")}
_COMPLEX = complex_values.bound(_TOOLS | {"where": _where, "full": _full, "signbit": _signbit, "negative": operator.neg, "absolute": abs}, jit)
_near_one, _sign, _within = _COMPLEX["near_one"], _COMPLEX["sign"], _COMPLEX["_within"]


@jit
def complex_sign(z):
    r = math.hypot(z.real, z.imag)
    real, imag = _sign(z.real / r if r != 0 else 0.0, z.imag / r if r != 0 else 0.0, z.real, z.imag)
    return complex(real, imag)


@jit
def _log1p(z):
    real, imag = _near_one(z.real, z.imag)
    return complex(real, imag)


def _complex_function(name):
    fold, signs, zero, elsewhere = (_COMPLEX[f.__name__] for f in complex_values.TABLE[name])
    most_real, most_imag = complex_values.RIGHT[name]
    own = _log1p if name == "log1p" else getattr(np, f"arc{name[1:]}" if name[0] == "a" else name)

    @jit
    def function(z):
        u, v = fold(z.real, z.imag)
        if _within(u, v, most_real, most_imag):
            w = own(complex(u, v))
            real, imag = w.real, w.imag
            no_real, no_imag = zero(u, v)
            if no_real | no_imag:
                other_real, other_imag = elsewhere(u, v)
                real, imag = other_real if no_real else real, other_imag if no_imag else imag
        else:
            real, imag = elsewhere(u, v)
        real, imag = signs(real, imag, z.real, z.imag)
        return complex(real, imag)

    return function


globals().update({f"complex_{name}": _complex_function(name) for name in complex_values.TABLE})

_exponent, _power = _COMPLEX["exponent"], _COMPLEX["power"]


@jit
def complex_pow(x, y):
    w, z = complex_log(x), np.power(x, y)  # noqa: F821  (made above)
    u, v = _exponent(w.real, w.imag, y.real, y.imag)
    w = complex_exp(complex(u, v))  # noqa: F821
    real, imag = _power(z.real, z.imag, w.real, w.imag, x.real, x.imag, y.real, y.imag)
    return complex(real, imag)


@jit
def complex_sigmoid(z):
    w = complex_exp(-z if z.real >= 0 else z)  # noqa: F821
    return np.divide(complex(1.0, 0.0) if z.real >= 0 else w, 1 + w)
