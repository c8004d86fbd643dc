"""Normal numbers, whole and truncated, and what is made of them; exponential and Gumbel numbers.

Promises: each is computed in float64 from one uniform draw, by one text on every backend, and rounded once.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

import minidl as md
from minidl import DType, Tensor, dtypes
from minidl.extend import WICHURA, cast, from_numpy, get_backend, home, ns, seen, whole
from minidl.random.keys import FEW, Shape, common, exact, float_dtype, parameter, size_of, two
from minidl.random.uniform import unit


def _ratio(r: Tensor, piece: int) -> Tensor:
    out = []
    for coefficients in WICHURA[piece]:
        y: Any = coefficients[0]
        for c in coefficients[1:]:
            y = ns.add(ns.mul(r, y), c)
        out.append(y)
    return ns.div(*out)


def _quantile(q: Tensor, tail: Tensor, deep: bool) -> Tensor:
    """The normal quantile of 0.5 + q, where tail is the probability beyond it; deep: tail may be below e**-25.

    Source: M. J. Wichura, Algorithm AS 241, Applied Statistics 37 (1988).
    """
    middle = ns.mul(q, _ratio(ns.sub(0.180625, ns.square(q)), 0))
    r = ns.sqrt(ns.neg(ns.log(tail)))
    out = _ratio(ns.sub(r, 1.6), 1)
    if deep:
        out = ns.where(ns.le(r, 5.0), out, _ratio(ns.sub(r, 5.0), 2))
    return ns.where(ns.le(ns.abs(q), 0.425), middle, ns.copysign(out, q))


def _drawn(dtype: DType) -> DType:
    return dtypes.float64 if dtype is dtypes.float64 else dtypes.float32


def standard(key: Tensor, shape: tuple[int, ...], drawn: DType) -> Tensor:
    """Standard normal numbers in float64, from uniform ones of the dtype."""
    return _at(unit(key, shape, drawn))


def _at(u: Tensor) -> Tensor:
    """The normal quantiles of uniform numbers."""
    drawn = u.dtype
    lowest = float(np.nextafter(drawn.numpy.type(-1), drawn.numpy.type(0)))
    u = ns.clip(ns.add(ns.mul(u, 2.0), lowest), lowest, math.inf)
    u = ns.cast(u, dtype=dtypes.float64)
    return _quantile(ns.mul(u, 0.5), ns.mul(ns.sub(1.0, ns.abs(u)), 0.5), drawn is dtypes.float64)


def normal(key: Tensor, shape: Shape = (), dtype: Any = None) -> Tensor:
    """Normal with mean 0 and variance 1 (of each complex number, half in either part), in a float or complex dtype.

    The quantile of the uniform draw that jax.random.normal takes too, so both agree to the error of jax's erfinv. float32 draws are equal on all
    backends but for 1 in 10,000, which differ by 1 ulp. Raises TypeError for another dtype.

    >>> import minidl as md
    >>> md.random.normal(md.random.key(0), (3, 2)).shape
    (3, 2)
    """
    found = None if dtype is None else dtypes.canonical(dtype)
    dtype, shape = found if found is not None and found.is_complex else float_dtype("normal", dtype), size_of(shape)
    many = math.prod(shape) > FEW and not dtype.is_complex and seen(key) is not None
    return _many(key, shape, dtype) if many else _normal(key, shape, dtype)


def _many(key: Tensor, shape: tuple[int, ...], dtype: DType) -> Tensor:
    """Many numbers at once, on a CPU: some at a time, by NumPy's program, for fifty passes over all of them would go through memory."""
    u, numpy = md.reshape(unit(key, shape, _drawn(dtype)), (-1,)), get_backend("numpy")
    known = seen(u)
    if known is None:
        return _normal(key, shape, dtype)
    out = np.empty(known[0].shape, dtype.numpy)
    for i in range(0, out.size, FEW):
        out[i : i + FEW] = _rounded_at(Tensor(known[0][i : i + FEW], numpy, u.dtype), dtype).payload
    return from_numpy(out.reshape(shape), home(key), dtype)


@whole
def _rounded_at(u: Tensor, /, dtype: DType) -> Tensor:
    return cast(_at(u), dtype)


@exact
def _normal(key: Tensor, /, shape: tuple[int, ...], dtype: DType) -> Tensor:
    if dtype.is_complex:
        real, imaginary = (ns.mul(_normal(k, shape, dtype.real), math.sqrt(0.5)) for k in two(key))
        return ns.add(ns.cast(real, dtype=dtype), ns.mul(ns.cast(imaginary, dtype=dtype), 1j))
    return cast(standard(key, shape, _drawn(dtype)), dtype)


def _below(x: Tensor) -> Tensor:
    return ns.mul(ns.erfc(ns.mul(x, -math.sqrt(0.5))), 0.5)


@md.custom_jvp
def _truncated(u: Tensor, lower: Tensor, upper: Tensor) -> Tensor:
    turned = ns.gt(ns.add(lower, upper), 0.0)  # draw on the side where the probabilities are small, so that they have all their digits
    a, b = ns.where(turned, ns.neg(upper), lower), ns.where(turned, ns.neg(lower), upper)
    low, high = _below(a), _below(b)
    p = ns.add(low, ns.mul(ns.where(turned, ns.sub(1.0, u), u), ns.sub(high, low)))
    tail = ns.clip(ns.minimum(p, ns.sub(1.0, p)), 1e-300, 1.0)
    x = ns.minimum(ns.maximum(_quantile(ns.sub(p, 0.5), tail, True), a), b)
    return ns.where(turned, ns.neg(x), x)


@_truncated.defjvp
def _(primals: Any, tangents: Any) -> Any:
    u, lower, upper = primals
    x = _truncated(u, lower, upper)
    weights = [ns.mul(w, ns.exp(ns.mul(ns.sub(ns.square(x), ns.square(b)), 0.5))) for w, b in ((ns.sub(1.0, u), lower), (u, upper))]
    return x, ns.add(ns.mul(weights[0], tangents[1]), ns.mul(weights[1], tangents[2]))


def truncated_normal(key: Tensor, lower: Any, upper: Any, shape: Shape | None = None, dtype: Any = None) -> Tensor:
    """Standard normal numbers, given that they lie in [lower, upper]: numbers (infinite ones too), or arrays that broadcast to shape.

    As precise in the tails as in the middle; an interval beyond 37 standard deviations gives its nearest end. Differentiable in bounds that are
    Tensors, for a fixed quantile (implicitly: M. Figurnov et al., Implicit reparameterization gradients, NeurIPS 2018). Raises ValueError for numbers
    with lower >= upper; a Tensor's such give a number between them.

    >>> import minidl as md
    >>> x = md.random.truncated_normal(md.random.key(0), 2.0, 3.0, (100,))
    >>> bool((x >= 2.0).all() and (x <= 3.0).all())
    True
    """
    dtype = float_dtype("truncated_normal", dtype)
    if not isinstance(lower, Tensor) and not isinstance(upper, Tensor) and np.any(np.asarray(lower) >= np.asarray(upper)):
        raise ValueError(f"random.truncated_normal: lower must be below upper, not {lower} and {upper}")
    low, high = (parameter("truncated_normal", n, v, key, lambda x: x == x, "a number") for n, v in (("lower", lower), ("upper", upper)))
    return _between(key, low, high, common("truncated_normal", shape, low, high), dtype)


@whole
def _between(key: Tensor, low: Tensor, high: Tensor, /, shape: tuple[int, ...], dtype: DType) -> Tensor:
    u = ns.cast(unit(key, shape, _drawn(dtype)), dtype=dtypes.float64)
    return cast(_truncated(u, low, high), dtype)


def exponential(key: Tensor, shape: Shape = (), dtype: Any = None) -> Tensor:
    """Exponential with mean 1, -log(1 - u) of the uniform draw u: as jax.random.exponential but for rounding. Raises TypeError for no float dtype.

    >>> import minidl as md
    >>> bool((md.random.exponential(md.random.key(0), (100,)) >= 0.0).all())
    True
    """
    return _exponential(key, size_of(shape), float_dtype("exponential", dtype))


@whole
def _exponential(key: Tensor, /, shape: tuple[int, ...], dtype: DType) -> Tensor:
    u = ns.cast(unit(key, shape, _drawn(dtype)), dtype=dtypes.float64)
    return cast(ns.neg(ns.log1p(ns.neg(u))), dtype)


def _gumbel(key: Tensor, shape: tuple[int, ...], drawn: DType) -> Tensor:
    u = ns.cast(ns.clip(unit(key, shape, drawn), float(np.finfo(drawn.numpy).tiny), 1.0), dtype=dtypes.float64)
    return ns.neg(ns.log(ns.neg(ns.log(u))))


def gumbel(key: Tensor, shape: Shape = (), dtype: Any = None) -> Tensor:
    """Standard Gumbel numbers, -log(-log(u)) of the uniform draw u: as jax.random.gumbel but for rounding. Raises TypeError for no float dtype.

    >>> import minidl as md
    >>> md.random.gumbel(md.random.key(0), (3,)).dtype
    minidl.float32
    """
    return _rounded_gumbel(key, size_of(shape), float_dtype("gumbel", dtype))


@whole
def _rounded_gumbel(key: Tensor, /, shape: tuple[int, ...], dtype: DType) -> Tensor:
    return cast(_gumbel(key, shape, _drawn(dtype)), dtype)


def orthogonal(key: Tensor, n: int, shape: Shape = (), dtype: Any = None, m: int | None = None) -> Tensor:
    """Matrices [*shape, n, m] (m = n without one) with orthonormal columns, or rows where n < m: uniform over all such.

    The Q of normal numbers whose R has a positive diagonal (F. Mezzadri, How to generate random matrices from the classical compact groups, 2007).
    Raises ValueError for negative sizes, TypeError for no float dtype.

    >>> import minidl as md
    >>> q = md.random.orthogonal(md.random.key(0), 3)
    >>> bool((abs(q @ q.mT - md.eye(3)) < 1e-6).all())
    True
    """
    dtype = float_dtype("orthogonal", dtype)
    m = n if m is None else m
    return _orthogonal(key, (*size_of(shape), *size_of((max(n, m), min(n, m)))), dtype, n < m)


@whole
def _orthogonal(key: Tensor, /, tall: tuple[int, ...], dtype: DType, turned: bool) -> Tensor:
    q, r = md.linalg.qr(standard(key, tall, dtypes.float64))
    q = ns.mul(q, md.expand_dims(ns.copysign(1.0, md.diagonal(r, axis1=-2, axis2=-1)), -2))
    return cast(md.matrix_transpose(q) if turned else q, dtype)
