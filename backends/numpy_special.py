"""Special functions in NumPy alone: erf, erfc and erfinv, elementwise.

Promises: computed in float64 whatever the input (erf of float32 in float32) and rounded once to the input's dtype; within a few ulp of the true
value in float64. Each function says its method and source. Floating-point warnings are the caller's business.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from minidl.backends.numpy_helpers import bounded, in_chunks

Array = np.ndarray


def in_float64(f: Callable[..., Array]) -> Callable[..., Array]:
    """Run a float64 function on any float dtype, on at least one axis (masks need it), and round the result to the input's dtype."""

    @functools.wraps(f)
    def kernel(x: Array, **params: int) -> Array:
        return f(np.atleast_1d(x).astype(np.float64), **params).astype(x.dtype).reshape(x.shape)

    return kernel


def piecewise(x: Array, *pieces: tuple[Array, Callable[[Array], Array]]) -> Array:
    """Each function on its part of x; what no part claims is nan."""
    out = np.full(x.shape, np.nan)
    for mask, f in pieces:
        if mask.any():
            out[mask] = f(x[mask])
    return out


def horner(x: Array, coefficients: Sequence[Any], out: Array | None = None) -> Array:
    """The polynomial with these coefficients, at least two, highest power first."""
    first, second, *rest = coefficients
    out = np.multiply(x, first, out=out)
    out += second
    for c in rest:
        out *= x
        out += c
    return out


# W. J. Cody, "Rational Chebyshev approximations for the error function", Math. Comp. 23 (1969); coefficients of SPECFUN's CALERF
_ERF_A = (1.85777706184603153e-1, 3.16112374387056560, 1.13864154151050156e2, 3.77485237685302021e2, 3.20937758913846947e3)
_ERF_B = (1.0, 2.36012909523441209e1, 2.44024637934444173e2, 1.28261652607737228e3, 2.84423683343917062e3)
_ERF_C = (
    2.15311535474403846e-8, 5.64188496988670089e-1, 8.88314979438837594, 6.61191906371416295e1, 2.98635138197400131e2,
    8.81952221241769090e2, 1.71204761263407058e3, 2.05107837782607147e3, 1.23033935479799725e3,
)  # fmt: skip
_ERF_D = (
    1.0, 1.57449261107098347e1, 1.17693950891312499e2, 5.37181101862009858e2, 1.62138957456669019e3,
    3.29079923573345963e3, 4.36261909014324716e3, 3.43936767414372164e3, 1.23033935480374942e3,
)  # fmt: skip
_ERF_P = (
    1.63153871373020978e-2,
    3.05326634961232344e-1,
    3.60344899949804439e-1,
    1.25781726111229246e-1,
    1.60837851487422766e-2,
    6.58749161529837803e-4,
)
_ERF_Q = (1.0, 2.56852019228982242, 1.87295284992346725, 5.27905102951428412e-1, 6.05183413124413191e-2, 2.33520497626869185e-3)


def _erf_small(x: Array) -> Array:
    z = x * x
    return x * horner(z, _ERF_A) / horner(z, _ERF_B)


def _erfc_large(x: Array) -> Array:
    """erfc for x > 0.46875; exp(-x*x) is split so that rounding x*x costs no digits."""
    head = np.trunc(x * 16) / 16
    gauss = np.exp(-head * head) * np.exp(-(x - head) * (x + head))

    def tail(y: Array) -> Array:
        z = 1 / (y * y)
        return (1 / math.sqrt(math.pi) - z * horner(z, _ERF_P) / horner(z, _ERF_Q)) / y

    out = gauss * piecewise(x, (x <= 4, lambda y: horner(y, _ERF_C) / horner(y, _ERF_D)), (x > 4, tail))
    return np.where(x > 27, 0.0, out)


# erf in float32 as the tanh of x + x p(x²) / q(x²), which at 4.2 is 1; where the tanh is flat it hides the quotient's error
_ERF32_P = [np.array(c, np.float32) for c in (0.001853356370702386, 0.018956627696752548, 0.12291424721479416, 0.12837916612625122)]
_ERF32_Q = [np.array(c, np.float32) for c in (0.00032492406899109483, 0.023689914494752884, 0.1568925529718399, 1.0)]


@in_chunks
def _erf_float32(x: Array, out: Array) -> None:
    x = bounded(x, np.float32(-4.2), np.float32(4.2))
    z = np.multiply(x, x)
    p = horner(z, _ERF32_P, out)
    p /= horner(z, _ERF32_Q)
    p *= x
    p += x
    np.tanh(p, out=out)


def erf(x: Array, out: Array | None = None) -> Array:
    """The error function: Cody's rational approximations in float64; in float32, and for halves, a tanh within 2 ulp.

    >>> erf(np.array([0.0, 0.5]))
    array([0.        , 0.52049988])
    """
    if x.dtype != np.float64:
        return _erf_float32(x, out)
    found = _erf_float64(x)
    if out is None:
        return found
    np.copyto(out, found)
    return out


@in_float64
def _erf_float64(x: Array) -> Array:
    a = np.abs(x)
    return piecewise(x, (a <= 0.46875, _erf_small), (a > 0.46875, lambda y: np.copysign(1 - _erfc_large(np.abs(y)), y)))


@in_float64
def erfc(x: Array) -> Array:
    """1 - erf(x) without cancellation, by Cody's rational approximations.

    >>> erfc(np.array([10.0]))
    array([2.08848758e-45])
    """
    return piecewise(
        x, (np.abs(x) <= 0.46875, lambda y: 1 - _erf_small(y)), (x > 0.46875, _erfc_large), (x < -0.46875, lambda y: 2 - _erfc_large(-y))
    )


# M. J. Wichura, "Algorithm AS 241: the percentage points of the normal distribution", Applied Statistics 37 (1988), routine PPND16
WICHURA = (
    (
        (2.5090809287301226727e3, 3.3430575583588128105e4, 6.7265770927008700853e4, 4.5921953931549871457e4,
         1.3731693765509461125e4, 1.9715909503065514427e3, 1.3314166789178437745e2, 3.3871328727963666080),
        (5.2264952788528545610e3, 2.8729085735721942674e4, 3.9307895800092710610e4, 2.1213794301586595867e4,
         5.3941960214247511077e3, 6.8718700749205790830e2, 4.2313330701600911252e1, 1.0),
    ),
    (
        (7.74545014278341407640e-4, 2.27238449892691845833e-2, 2.41780725177450611770e-1, 1.27045825245236838258,
         3.64784832476320460504, 5.76949722146069140550, 4.63033784615654529590, 1.42343711074968357734),
        (1.05075007164441684324e-9, 5.47593808499534494600e-4, 1.51986665636164571966e-2, 1.48103976427480074590e-1,
         6.89767334985100004550e-1, 1.67638483018380384940, 2.05319162663775882187, 1.0),
    ),
    (
        (2.01033439929228813265e-7, 2.71155556874348757815e-5, 1.24266094738807843860e-3, 2.65321895265761230930e-2,
         2.96560571828504891230e-1, 1.78482653991729133580, 5.46378491116411436990, 6.65790464350110377720),
        (2.04426310338993978564e-15, 1.42151175831644588870e-7, 1.84631831751005468180e-5, 7.86869131145613259100e-4,
         1.48753612908506148525e-2, 1.36929880922735805310e-1, 5.99832206555887937690e-1, 1.0),
    ),
)  # fmt: skip


@in_float64
def erfinv(x: Array) -> Array:
    """The inverse of erf; ±inf at ±1 and nan beyond. AS 241, whose normal quantile at (1 + x) / 2 is sqrt(2) erfinv(x).

    >>> erfinv(np.array([0.5, 1.0]))
    array([0.47693628,        inf])
    """
    a = np.abs(x)
    middle, outside = a <= 0.85, (a > 0.85) & (a < 1)

    def ratio(r: Array, piece: int) -> Array:
        return horner(r, WICHURA[piece][0]) / horner(r, WICHURA[piece][1])

    def tail(y: Array) -> Array:
        r = np.sqrt(-np.log((1 - np.abs(y)) / 2))
        return np.copysign(piecewise(r, (r <= 5, lambda s: ratio(s - 1.6, 1)), (r > 5, lambda s: ratio(s - 5, 2))), y)

    out = piecewise(x, (middle, lambda y: y / 2 * ratio(0.180625 - (y / 2) ** 2, 0)), (outside, tail), (a == 1, lambda y: y * np.inf))
    return out / math.sqrt(2)
