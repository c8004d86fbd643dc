"""Exponential integrals, the dilogarithm and Dawson's integral of jax.scipy.special: series and continued fractions, with derivatives by formula."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import minidl as md
from minidl.idioms.jax.arrays import inexact

_EULER = 0.57721566490153286061


def _of_slope(value: Callable[[md.Tensor], md.Tensor], slope: Callable[[md.Tensor], md.Tensor]) -> Callable[[md.Tensor], md.Tensor]:
    """A function of real numbers with this derivative, whose value is computed in float32 or float64."""

    @md.custom_jvp
    def function(x: md.Tensor) -> md.Tensor:
        wide = x if x.dtype.bits >= 32 else x.to(md.float32)
        return value(wide).to(x.dtype)

    @function.defjvp
    def _jvp(primals: Any, tangents: Any) -> Any:
        return function(primals[0]), slope(primals[0]) * tangents[0]

    return function  # type: ignore[no-any-return]


def _powers(x: md.Tensor, terms: int) -> md.Tensor:
    """The sum of x**k / (k k!) over k from 1."""
    term, total = md.ones_like(x), md.zeros_like(x)
    for k in range(1, terms):
        term = term * x / k
        total = total + term / k
    return total


def _fraction(n: int, x: md.Tensor) -> md.Tensor:
    """exp(x) E_n(x) for x above 1 by its continued fraction, from the far end."""
    out = md.zeros_like(x)
    for k in range(120, 0, -1):
        out = k * (n + k - 1) / (x + n + 2 * k - out)
    return 1 / (x + n - out)


def _near_and_far(x: md.Tensor, near: Callable[[md.Tensor], md.Tensor], far: Callable[[md.Tensor], md.Tensor]) -> md.Tensor:
    close = x <= 1
    return md.where(close, near(md.where(close, x, 1.0)), far(md.where(close, 2.0, x)))


def _e1(x: md.Tensor) -> md.Tensor:
    return _near_and_far(x, lambda x: -_EULER - md.log(x) - _powers(-x, 24), lambda x: md.exp(-x) * _fraction(1, x))


def _ei(x: md.Tensor) -> md.Tensor:
    positive, huge = x > 0, x > 40
    middle = md.where(positive & ~huge, x, 1.0)
    big = md.where(huge, x, 50.0)
    term, total = md.ones_like(big), md.ones_like(big)
    for k in range(1, 30):
        term = term * k / big
        total = total + term
    half = md.exp(big / 2)  # the whole exponential is infinite before the quotient is
    out = md.where(huge, half / big * total * half, _EULER + md.log(middle) + _powers(middle, 130))
    return md.where(positive, md.where(x == math.inf, math.inf, out), -_e1(md.where(positive, 1.0, -x)))


_exp1 = _of_slope(_e1, lambda x: -md.exp(-x) / x)
_expi = _of_slope(_ei, lambda x: md.exp(x / 2) / x * md.exp(x / 2))


def exp1(x: Any) -> md.Tensor:
    """The exponential integral E_1(x), of exp(-t) / t from x on: inf at 0, nan below.

    >>> round(exp1(1.0).item(), 4)
    0.2194
    """
    return _exp1(inexact(x))


def expi(x: Any) -> md.Tensor:
    """The exponential integral Ei(x), the principal value of exp(t) / t up to x.

    >>> round(expi(1.0).item(), 4)
    1.8951
    """
    return _expi(inexact(x))


def expn(n: int, x: Any) -> md.Tensor:
    """The exponential integral E_n(x), of exp(-x t) / t**n from 1 on, for a Python integer n of at least 0. Raises TypeError for another n.

    >>> round(expn(2, 1.0).item(), 4)
    0.1485
    """
    if not isinstance(n, int) or n < 0:
        raise TypeError(f"expn: n is a Python integer of at least 0, not {n!r}; md.vmap maps over x alone")
    x = inexact(x)
    if n == 0:
        return md.where(x < 0, md.nan, md.exp(-x) / md.abs(x))
    if n == 1:
        return _exp1(x)

    def near(x: md.Tensor) -> md.Tensor:
        e, out = md.exp(-x), _e1(md.where(x == 0, 1.0, x))
        for k in range(1, n):
            out = (e - md.where(x == 0, 0.0, x * out)) / k
        return out

    value = _of_slope(lambda x: _near_and_far(x, near, lambda x: md.exp(-x) * _fraction(n, x)), lambda x: -expn(n - 1, x))
    return value(x)


def _dilogarithm(x: md.Tensor) -> md.Tensor:
    small, large = x < 0.5, x > 1.5
    y = md.where(small, x, md.where(large, 1 / md.where(large, x, 1.0), 1.0))  # folded into 1/2 to 3/2 below
    lower = y < 0.5
    z = md.where(lower, y, md.where(small | large, 1 - y, 1 - x))
    power, total = md.ones_like(z), md.zeros_like(z)
    for k in range(1, 64):
        power = power * z
        total = total + power / (k * k)
    safe = md.where((y > 0) & (y < 1), y, 0.5)
    turned = md.where(y == 0, math.pi**2 / 6, math.pi**2 / 6 - md.log(safe) * md.log1p(-safe) - total)
    near = md.where(lower, turned, total)  # Li2(1 - y)
    log = md.log(md.where(large, x, 1.0))
    return md.where(x < 0, math.nan, md.where(large, -near - 0.5 * md.square(log), near))


def _log_ratio(x: md.Tensor) -> md.Tensor:
    near = md.abs(x - 1) < 0.05
    u, total = md.where(near, 1 - x, 0.0), md.zeros_like(x)
    for k in range(14, 0, -1):  # a series about 1, so that derivatives of higher order are there
        total = total * u + 1 / k
    far = md.where(near, 2.0, x)
    return md.where(near, -total, md.log(far) / (1 - far))


_spence = _of_slope(_dilogarithm, _log_ratio)


def spence(x: Any) -> md.Tensor:
    """Spence's function, the dilogarithm of 1 - x, whose derivative is log(x) / (1 - x); nan below 0.

    >>> round(spence(0.0).item(), 4), spence(1.0).item()
    (1.6449, 0.0)
    """
    return _spence(inexact(x))


def _rybicki(x: md.Tensor) -> md.Tensor:
    """By exponentials at distances h, as G. B. Rybicki, Dawson's integral and the sampling theorem, 1989."""
    h, size = 0.25, md.abs(x)
    near, far = size < 0.2, size > 12.0
    y = md.where(near | far, 1.0, size)
    start = 2 * md.round(y / (2 * h))
    rest = y - start * h
    total = md.zeros_like(y)
    for k in range(-27, 28, 2):
        total = total + md.exp(-md.square(rest - k * h)) / (start + k)
    middle = total / math.sqrt(math.pi)
    u = md.square(md.where(near, x, 0.0))
    term, series = md.ones_like(u), md.ones_like(u)
    for k in range(1, 12):
        term = term * (-2.0 * u) / (2 * k + 1)
        series = series + term
    v = 1 / md.square(md.where(far, size, 12.0))
    tail = md.ones_like(v)
    for k in range(12, 0, -1):
        tail = 1 + (k - 0.5) * v * tail
    tail = tail / (2 * md.where(far, size, 12.0))
    return md.where(near, x * series, md.sign(x) * md.where(far, tail, middle))


_dawson = _of_slope(_rybicki, lambda x: 1 - 2 * x * dawsn(x))


def dawsn(x: Any) -> md.Tensor:
    """Dawson's integral, exp(-x**2) times the integral of exp(t**2) from 0 to x.

    >>> round(dawsn(1.0).item(), 4)
    0.5381
    """
    return _dawson(inexact(x))


NAMES: dict[str, Any] = {f.__name__: f for f in (dawsn, exp1, expi, expn, spence)}
