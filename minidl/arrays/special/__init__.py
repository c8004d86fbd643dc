"""The gamma function and its family, and the modified Bessel functions, as primitives.

Integers become the default float.
"""

from __future__ import annotations

import math
from typing import Any

from minidl import Tensor
from minidl.extend import check_all, define, elementwise, ns

__all__ = ["digamma", "i0", "lgamma", "polygamma"]

define(elementwise("lgamma", "x", lambda xp, g, x: g * xp.digamma(x), only="float", promote="float"), __name__)
define(elementwise("digamma", "x", lambda xp, g, x: g * xp.polygamma(x, n=1), only="float", promote="float"), __name__)
define(elementwise("polygamma", "x", lambda xp, g, x, n: g * xp.polygamma(x, n=n + 1), params="n", only="float", promote="float"), __name__)


def _bessel(xp: Any, x: Any, n: int) -> Any:
    """I_n(x): the power series up to |x| = 18, whose terms are all positive, and beyond it Hankel's asymptotic series, accurate to e**-36.

    Source: NIST Digital Library of Mathematical Functions, 10.25.2 and 10.40.1.
    """
    r = xp.abs(x)
    near = xp.clip(r, 0.0, 18.0)
    far = xp.clip(r, 18.0, math.inf)
    z, small, large = near * near * 0.25, 1.0, 1.0
    for k in range(38, 0, -1):
        small = z * (1.0 / (k * (k + n))) * small + 1.0
    for k in range(34, 0, -1):
        large = ((2 * k - 1) ** 2 - 4 * n * n) / (8.0 * k) / far * large + 1.0
    half = xp.exp(far * 0.5)  # in two factors, so that it overflows no sooner than the result
    beyond = xp.mul(xp.mul(half, large * xp.rsqrt(xp.clip(far, 0.0, 1e30) * (2 * math.pi))), half)  # the root never 0: no inf * 0
    for k in range(1, n + 1):
        small = small * near * (0.5 / k)
    out = xp.where(r > 18.0, beyond, small)
    return out * xp.sign(x) if n % 2 else out


def _bessel_rule(xp: Any, g: Any, x: Any, n: int) -> Any:
    return g * xp.bessel_i(x, n=1) if n == 0 else g * (xp.bessel_i(x, n=n - 1) + xp.bessel_i(x, n=n + 1)) * 0.5


#: The modified Bessel functions of the first kind; closed under differentiation, with no division at 0.
define(elementwise("bessel_i", "x", _bessel_rule, params="n", only="float", promote="float", decompose=_bessel), __name__)


def lgamma(x: Any, /) -> Tensor:
    """The logarithm of the absolute gamma function, element by element. Integers become the default float.

    >>> round(md.lgamma(md.tensor(0.5)).item(), 4)
    0.5724
    """
    return ns.lgamma(x)


def digamma(x: Any, /) -> Tensor:
    """The derivative of lgamma, element by element. Integers become the default float.

    >>> round(md.digamma(md.tensor(1.0)).item(), 4)
    -0.5772
    """
    return ns.digamma(x)


def polygamma(x: Any, /, n: int) -> Tensor:
    """The n-th derivative of digamma, n >= 0, element by element. Raises ValueError for a negative n.

    >>> round(md.polygamma(md.tensor(1.0), 1).item(), 4)
    1.6449
    """
    if not 0 <= n < 2**31:
        raise ValueError(f"polygamma: n is {n}; it counts derivatives of digamma, so at least 0 (and less than 2**31)")
    return ns.polygamma(x, n=n) if n else ns.digamma(x)


def i0(x: Any, /) -> Tensor:
    """The modified Bessel function of the first kind of order 0, element by element. Integers become the default float.

    >>> md.i0(md.tensor(0.0)).item()
    1.0
    """
    return ns.bessel_i(x, n=0)


check_all(globals(), __all__)
