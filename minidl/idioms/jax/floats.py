"""What a float is made of: jax.numpy's frexp and spacing."""

from __future__ import annotations

import math
from typing import Any

import minidl as md
from minidl.idioms.jax.arrays import beside, inexact


def _halved(x: md.Tensor) -> tuple[md.Tensor, md.Tensor]:
    """x as m * 2**e with m within [0.5, 1), e a float; 0, infinities and nan are as they are."""
    plain = md.isfinite(x) & (x != 0)
    value = md.where(plain, x, 1.0)
    least = md.finfo(x.dtype).smallest_normal
    lift = float(2.0 ** math.ceil(-math.log2(md.finfo(x.dtype).eps)))
    small = md.abs(value) < least  # powers of two of its size are none of the dtype's
    value = md.where(small, value * lift, value)
    e = md.floor(md.log2(md.abs(md.stop_gradient(value)))) + 1.0
    half = md.trunc(e / 2.0)
    two = md.asarray(2.0, dtype=x.dtype, **beside(x))
    m = value * md.pow(two, -half) * md.pow(two, half - e)
    more, less = md.abs(m) >= 1.0, md.abs(m) < 0.5  # where log2 was rounded over a power of two
    m, e = md.where(more, m / 2.0, md.where(less, m * 2.0, m)), e + more.to(x.dtype) - less.to(x.dtype)
    return md.where(plain, m, x), md.where(plain, md.where(small, e - math.log2(lift), e), 0.0)


def frexp(x: Any, /) -> tuple[md.Tensor, md.Tensor]:
    """x as m * 2**e: m of a size within [0.5, 1), and e as int32.

    >>> [v.item() for v in frexp(md.tensor(12.0))]
    [0.75, 4]
    """
    m, e = _halved(inexact(x))
    return m, e.to(md.int32)


def spacing(x: Any, /) -> md.Tensor:
    """How far the next float is in the direction of x's sign; nan for what is not finite.

    >>> spacing(md.tensor(1.0)).item() == md.finfo(md.float32).eps
    True
    """
    x = inexact(x)
    info = md.finfo(x.dtype)
    e = md.maximum(_halved(x)[1] - 1.0, math.log2(info.smallest_normal))
    e = md.where(x == 0, math.log2(info.smallest_normal), e)
    half = md.trunc(e / 2.0)
    two = md.asarray(2.0, dtype=x.dtype, **beside(x))
    return md.where(md.isfinite(x), md.copysign(md.pow(two, half) * info.eps * md.pow(two, e - half), x), md.nan)


#: Name -> what it is in jax.numpy.
NAMES: dict[str, Any] = {"frexp": frexp, "spacing": spacing}
