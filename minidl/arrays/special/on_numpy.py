"""NumPy: lgamma, digamma and polygamma, elementwise.

Promises: computed in float64 whatever the input and rounded once to its dtype; within a few ulp of the true value in float64, but near their zeros on
the negative axis, where they are accurate in absolute terms only. Each function says its method and source.
"""

from __future__ import annotations

import functools
import math

import numpy as np

from minidl.backends.numpy_special import horner, in_float64, piecewise

Array = np.ndarray

_BERNOULLI = (1 / 6, -1 / 30, 1 / 42, -1 / 30, 5 / 66, -691 / 2730, 7 / 6, -3617 / 510, 43867 / 798, -174611 / 330, 854513 / 138)  # B2, B4, …
_EULER = 0.5772156649015328606
_DIGAMMA_ROOT = (1.4616321449683623, 9.549995429965697e-17)  # the positive zero as an exact sum of two doubles


def hurwitz_zeta(s: int, x: Array) -> Array:
    """The sum of (x + k)**-s over k >= 0, for integer s >= 2 and x > 0, by Euler's and Maclaurin's summation formula (DLMF 25.11.5)."""
    terms = 10 + s  # the remainder shrinks only where x + terms exceeds s
    out = np.zeros_like(x)
    for k in range(terms - 1, -1, -1):
        out += (x + k) ** -s
    y = x + terms
    power = y**-s
    tail = power * (y / (s - 1) + 0.5)
    factor = float(s)  # s (s+1) … (s+2j-2) / (2j)!
    for j, b in enumerate(_BERNOULLI, 1):
        power = power / y
        tail += b * factor / math.factorial(2 * j) * power
        power = power / y
        factor *= (s + 2 * j - 1) * (s + 2 * j)
    return np.where(x == np.inf, 0.0, out + tail)


@functools.cache
def _zeta_series(x: float, terms: int) -> tuple[float, ...]:
    """(-1)**k zeta(k, x) for k = terms … 2: the Taylor coefficients of digamma at x, and after division by k those of lgamma."""
    return tuple((-1) ** k * float(hurwitz_zeta(k, np.array([x]))[0]) for k in range(terms, 1, -1))


def _lgamma_near_2(z: Array) -> Array:
    """lgamma(2 + z) for |z| <= 1/2 by its Taylor series, which is exact in relative terms at z = 0."""
    return z * horner(z, [c / k for c, k in zip(_zeta_series(2.0, 30), range(30, 1, -1), strict=True)] + [1 - _EULER])


def _lgamma_shifted(x: Array) -> Array:
    """lgamma on [2.5, 8): the recurrence leads down to the series at 2."""
    product, y = np.ones_like(x), x.copy()
    for _ in range(6):
        high = y > 2.5
        y[high] -= 1
        product[high] *= y[high]
    return np.log(product) + _lgamma_near_2(y - 2)


def _stirling(x: Array) -> Array:
    """lgamma for x >= 8 (DLMF 5.11.1)."""
    z = 1 / (x * x)
    series = horner(z, [b / (2 * k * (2 * k - 1)) for k, b in reversed(list(enumerate(_BERNOULLI[:9], 1)))]) / x
    return (x - 0.5) * (np.log(x) - 1) + (0.5 * math.log(2 * math.pi) - 0.5) + series


def _lgamma_positive(x: Array) -> Array:
    return piecewise(
        x,
        (x < 0.5, lambda y: _lgamma_near_2(y) - np.log1p(y) - np.log(y)),
        ((x >= 0.5) & (x < 1.5), lambda y: _lgamma_near_2(y - 1) - np.log1p(y - 1)),
        ((x >= 1.5) & (x < 2.5), lambda y: _lgamma_near_2(y - 2)),
        ((x >= 2.5) & (x < 8), _lgamma_shifted),
        ((x >= 8) & (x < 1e300), _stirling),
        (x >= 1e300, lambda y: y * (np.log(y) - 1)),
    )


@in_float64
def lgamma(x: Array) -> Array:
    """log |Gamma(x)|; inf at 0 and the negative integers. Taylor series at 2, Stirling's series from 8, the recurrence between, Euler's reflection
    below 0 (DLMF 5.5 to 5.11).

    >>> lgamma(np.array([1.0, 5.0]))
    array([0.        , 3.17805383])
    """

    def reflected(y: Array) -> Array:
        sine = np.abs(np.sin(np.pi * (y - np.round(y))))
        return np.log(np.pi / sine) - _lgamma_positive(1 - y)

    finite = np.isfinite(x)
    return piecewise(x, ((x > 0) & finite, _lgamma_positive), ((x <= 0) & finite, reflected), (np.isinf(x), np.abs))


def _digamma_positive(x: Array) -> Array:
    def at_root(y: Array) -> Array:
        d = (y - _DIGAMMA_ROOT[0]) - _DIGAMMA_ROOT[1]
        return d * horner(d, _zeta_series(_DIGAMMA_ROOT[0], 44))

    def shifted(y: Array) -> Array:
        total, y = np.zeros_like(y), y.copy()
        for _ in range(8):
            small = y < 10
            total[small] -= 1 / y[small]
            y[small] += 1
        z = 1 / (y * y)
        series = z * horner(z, [b / (2 * k) for k, b in reversed(list(enumerate(_BERNOULLI[:9], 1)))])
        return total + (np.log(y) - 0.5 / y - series)

    return piecewise(
        x,
        (x < 0.86, lambda y: at_root(y + 1) - 1 / y),
        ((x >= 0.86) & (x < 2.06), at_root),
        ((x >= 2.06) & (x < 3.06), lambda y: at_root(y - 1) + 1 / (y - 1)),
        (x >= 3.06, shifted),
    )


@in_float64
def digamma(x: Array) -> Array:
    """The derivative of lgamma; -inf at 0 (from the right), nan at the negative integers. Recurrence and asymptotic series (DLMF 5.5.2, 5.11.2), a
    Taylor series at the positive zero, reflection below 0 (DLMF 5.5.4).

    >>> digamma(np.array([1.0, 10.0]))
    array([-0.57721566,  2.25175259])
    """

    def reflected(y: Array) -> Array:
        r = y - np.round(y)
        return np.where(r == 0, np.nan, _digamma_positive(1 - y) - np.pi / np.tan(np.pi * r))

    return piecewise(x, (x > 0, _digamma_positive), ((x < 0) & np.isfinite(x), reflected), (x == 0, lambda y: np.copysign(np.inf, -y)))


@functools.cache
def _cotangent_derivative(n: int) -> tuple[float, ...]:
    """The polynomial p with d^n/dx^n cot(x) = p(cot x), from cot' = -(1 + cot^2); highest power first."""
    p = np.poly1d([1.0, 0.0])
    for _ in range(n):
        p = p.deriv() * np.poly1d([-1.0, 0.0, -1.0])
    return tuple(p.coeffs)


@in_float64
def polygamma(x: Array, *, n: int) -> Array:
    """The n-th derivative of digamma, n >= 1: Hurwitz's zeta function (DLMF 25.11.12), reflected below 0 (DLMF 5.15.6). At 0 it is the limit from the
    right; at negative integers inf for odd n, where both sides agree, else nan.

    >>> polygamma(np.array([1.0]), n=1)
    array([1.64493407])
    """
    sign = (-1) ** (n + 1)

    def positive(y: Array) -> Array:
        return sign * math.factorial(n) * hurwitz_zeta(n + 1, y)

    def reflected(y: Array) -> Array:
        r = y - np.round(y)
        derivative = np.pi ** (n + 1) * horner(1 / np.tan(np.pi * r), _cotangent_derivative(n))
        pole = np.inf if n % 2 else np.nan
        return np.where(r == 0, pole, -sign * positive(1 - y) - derivative)

    return piecewise(x, (x > 0, positive), ((x < 0) & np.isfinite(x), reflected), (x == 0, lambda y: np.full_like(y, sign * np.inf)))
