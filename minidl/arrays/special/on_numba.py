"""numba: lgamma, digamma, polygamma and the Bessel functions as scalar expressions, for the loops that compute elementwise equations.

Promises: as in on_numpy.
"""

from __future__ import annotations

import math

import numpy as np

from minidl.arrays.special.on_numpy import _BERNOULLI, _DIGAMMA_ROOT, _cotangent_derivative, _zeta_series
from minidl.backends.numba_emit import ELEMENTWISE
from minidl.backends.numba_kernels import BROUGHT
from minidl.backends.numba_machine import jit
from minidl.backends.numba_math import horner

_ROOT_SERIES = _zeta_series(_DIGAMMA_ROOT[0], 44)
_DIGAMMA_TAIL = tuple(b / (2 * k) for k, b in reversed(list(enumerate(_BERNOULLI[:9], 1))))


@jit
def digamma_at_root(x):
    d = (x - _DIGAMMA_ROOT[0]) - _DIGAMMA_ROOT[1]
    return d * horner(d, _ROOT_SERIES)


@jit
def digamma_positive(x):
    if x < 0.86:
        return digamma_at_root(x + 1) - 1 / x
    if x < 2.06:
        return digamma_at_root(x)
    if x < 3.06:
        return digamma_at_root(x - 1) + 1 / (x - 1)
    total = 0.0
    while x < 10:
        total -= 1 / x
        x += 1
    z = 1 / (x * x)
    return total + (math.log(x) - 0.5 / x - z * horner(z, _DIGAMMA_TAIL))


@jit
def psi(x):
    """Recurrence, asymptotic series and reflection, as in on_numpy."""
    if x > 0:
        return digamma_positive(x)
    if x == 0:
        return math.copysign(np.inf, -x)
    r = x - np.rint(x)
    if r != r or r == 0:
        return np.nan
    return digamma_positive(1 - x) - math.pi / math.tan(math.pi * r)


@jit
def hurwitz(s, x):
    if x == np.inf:
        return 0.0
    terms = 10 + s
    out = 0.0
    for k in range(terms - 1, -1, -1):
        out += (x + k) ** -s
    y = x + terms
    power = y**-s
    tail = power * (y / (s - 1) + 0.5)
    factor = float(s)
    for j in range(1, 12):
        for i in (2 * j - 1, 2 * j):
            factor /= i
        power /= y
        tail += _BERNOULLI[j - 1] * factor * power
        power /= y
        factor *= (s + 2 * j - 1) * (s + 2 * j)
    return out + tail


@jit
def psi_of_order(x, n, factorial, cotangent):
    """Hurwitz's zeta function and reflection, as in on_numpy; `cotangent` is the polynomial of the n-th derivative of cot."""
    sign = 1.0 if n % 2 else -1.0
    if x > 0:
        return sign * factorial * hurwitz(n + 1, x)
    if x == 0:
        return sign * np.inf
    r = x - np.rint(x)
    if r != r:
        return np.nan
    if r == 0:
        return np.inf if n % 2 else np.nan
    return -factorial * hurwitz(n + 1, 1 - x) - math.pi ** (n + 1) * horner(1 / math.tan(math.pi * r), cotangent)


@jit
def modified_bessel(x, n):
    """I_n by its power series and, beyond 18, Hankel's asymptotic series (DLMF 10.25.2 and 10.40.1), as the primitive's decomposition."""
    r = abs(x)
    if r <= 18:
        out, z = 1.0, r * r * 0.25
        for k in range(38, 0, -1):
            out = z / (k * (k + n)) * out + 1.0
        for k in range(1, n + 1):
            out *= r * (0.5 / k)
    else:
        series = 1.0
        for k in range(34, 0, -1):
            series = ((2 * k - 1) ** 2 - 4 * n * n) / (8.0 * k) / r * series + 1.0
        half = math.exp(r * 0.5)
        out = half * (series / math.sqrt(min(r, 1e30) * (2 * math.pi))) * half
    return -out if n % 2 and x < 0 else out


def _polygamma(x, n):
    return f"psi_of_order(np.float64({x}), {n}, {float(math.factorial(n))!r}, {tuple(map(float, _cotangent_derivative(n)))!r})"


ELEMENTWISE["lgamma"] = lambda x: f"math.lgamma(np.float64({x}))"
ELEMENTWISE["digamma"] = lambda x: f"psi(np.float64({x}))"
ELEMENTWISE["polygamma"] = _polygamma
ELEMENTWISE["bessel_i"] = lambda x, n: f"modified_bessel(np.float64({x}), {n})"
BROUGHT.update(dict.fromkeys(("psi", "psi_of_order", "modified_bessel"), __name__))
