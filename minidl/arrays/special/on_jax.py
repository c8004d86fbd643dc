"""JAX: lgamma, digamma and polygamma, in lax."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from jax import lax

from minidl.arrays.special.on_numpy import _cotangent_derivative
from minidl.backends.jax_elementwise import copysign
from minidl.backends.jax_helpers import const, double

lgamma = double(lax.lgamma)


@double
def digamma(x: Any) -> Any:
    return lax.select(lax.eq(x, const(0, x)), copysign(const(np.inf, x), lax.neg(x)), lax.digamma(x))


@double
def polygamma(x: Any, *, n: int) -> Any:
    """Reflected below 0 (DLMF 5.15.6), where the zeta function that lax sums does not reach."""
    r = lax.sub(x, lax.round(x, lax.RoundingMethod.TO_NEAREST_EVEN))
    cot, derivative = lax.div(const(1, x), lax.tan(lax.mul(const(np.pi, x), r))), const(0, x)
    for c in _cotangent_derivative(n):
        derivative = lax.add(lax.mul(derivative, cot), const(c, x))
    sign, below = (-1) ** (n + 1), lax.lt(x, const(0, x))
    at = lax.select(below, lax.sub(const(1, x), x), x)
    right = lax.mul(const(sign * math.factorial(n), x), lax.zeta(const(n + 1, x), at))
    right = lax.select(lax.eq(at, const(0, x)), const(sign * np.inf, x), lax.select(lax.eq(at, const(np.inf, x)), const(sign * 0.0, x), right))
    left = lax.sub(lax.mul(const(-sign, x), right), lax.mul(const(np.pi ** (n + 1), x), derivative))
    left = lax.select(lax.eq(r, const(0, x)), const(np.inf if n % 2 else np.nan, x), left)
    return lax.select(below, left, right)
