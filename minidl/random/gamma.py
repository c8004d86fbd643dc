"""Gamma, beta and Dirichlet numbers, differentiable in their parameters.

Sampling is rejection in a loop that all elements share; an element keeps its first accepted candidate, so that it depends on its key and place alone.
Source: G. Marsaglia and W. W. Tsang, A simple method for generating gamma variables, ACM TOMS 26 (2000); below 1, gamma(a) = gamma(a+1) * u**(1/a).

The derivative moves a number with its parameter so that its quantile stays (M. Figurnov et al., Implicit reparameterization gradients, NeurIPS 2018).
It is computed to about 13 digits, for all parameters, and has derivatives of every order itself.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

import minidl as md
from minidl import DType, Tensor, dtypes
from minidl.extend import cast, constant, from_numpy, home, ns, whole
from minidl.random.keys import Shape, common, float_dtype, fold_in, parameter, size_of, two
from minidl.random.normal import standard
from minidl.random.uniform import unit

_TERMS, _REACH = 20, 40.0  # 1/20! and exp(-40) are below a rounding error
_NODES = np.polynomial.legendre.leggauss(32)


def _sample(key: Tensor, a: Tensor) -> Tensor:
    """The logarithm of one gamma number for each shape parameter; nan for one that is not positive."""
    shape = a.shape
    valid = ns.logical_and(ns.gt(a, 0.0), ns.lt(a, math.inf))
    safe = ns.where(valid, a, 1.0)
    boosted = ns.lt(safe, 1.0)
    d = ns.sub(ns.where(boosted, ns.add(safe, 1.0), safe), 1 / 3)
    c = ns.div(1 / 3, ns.sqrt(d))
    first, second = two(key)

    def step(carry: Any) -> Any:
        i, done, kept = carry
        for_normal, for_uniform = two(fold_in(first, i))
        x = standard(for_normal, shape, dtypes.float64)
        v = ns.add(ns.mul(c, x), 1.0)
        v = ns.mul(ns.square(v), v)
        inside = ns.gt(v, 0.0)
        v = ns.where(inside, v, 1.0)
        least = ns.log1p(ns.neg(unit(for_uniform, shape, dtypes.float64)))
        most = ns.add(ns.mul(ns.square(x), 0.5), ns.mul(d, ns.add(ns.sub(1.0, v), ns.log(v))))
        accepted = ns.logical_and(inside, ns.lt(least, most))
        return ns.add(i, 1), ns.logical_or(done, accepted), ns.where(done, kept, v)

    def waiting(carry: Any) -> Tensor:
        return ns.logical_not(ns.all(carry[1], axis=tuple(range(len(shape))), keepdims=False))

    zero = constant(home(key), (), 0, dtypes.int64)
    _, _, v = md.while_loop(waiting, step, (zero, ns.logical_not(valid), ns.add(ns.mul(d, 0.0), 1.0)))
    u = unit(second, shape, dtypes.float64)
    out = ns.add(ns.log(ns.mul(d, v)), ns.where(boosted, ns.div(ns.log1p(ns.neg(u)), safe), 0.0))
    return ns.where(valid, out, ns.where(ns.eq(a, math.inf), math.inf, math.nan))


def _series(a: Tensor, log_z: Tensor, z: Tensor) -> Tensor:
    """d log z / da for z at most 1, from the power series of the incomplete gamma function."""
    one = ns.add(ns.mul(z, 0.0), 1.0)

    def step(carry: Any, k: Tensor) -> Any:
        term, harmonic, total, slope = carry
        part = ns.div(1.0, ns.add(a, k))
        term, harmonic = ns.mul(term, ns.mul(z, part)), ns.add(harmonic, part)
        return (term, harmonic, ns.add(total, term), ns.sub(slope, ns.mul(term, harmonic))), ()

    counts = from_numpy(np.arange(1.0, _TERMS + 1), home(z))
    (_, _, total, slope), _ = md.scan(step, (one, ns.mul(one, 0.0), one, ns.mul(one, 0.0)), counts)
    return ns.neg(ns.div(ns.add(ns.mul(ns.sub(log_z, md.digamma(ns.add(a, 1.0))), total), slope), a))


def _integral(a: Tensor, log_z: Tensor, z: Tensor) -> Tensor:
    """d log z / da for z above 1: the integral of (log z - digamma(a) + v) exp(a v - z (e**v - 1)) over v from 0, on the side where its first factor
    never changes sign, by Gauss and Legendre's rule up to where the second one is exp(-40)."""
    first = ns.sub(log_z, md.digamma(a))
    fixed_a, fixed_z = a.detach(), z.detach()
    up = ns.gt(first.detach(), 0.0)
    side = ns.where(up, 1.0, -1.0)
    s = ns.mul(side, ns.sub(fixed_z, fixed_a))
    reach = ns.div(2 * _REACH, ns.add(s, ns.sqrt(ns.add(ns.square(s), ns.mul(fixed_z, 2 * _REACH)))))
    nearer = ns.log1p(ns.div(ns.add(ns.mul(fixed_a, reach), _REACH), fixed_z))
    reach = ns.where(up, ns.minimum(reach, nearer), reach)
    for _ in range(4):  # Newton's steps; the function is convex
        v = ns.mul(side, reach)
        grown = ns.mul(fixed_z, ns.expm1(v))
        value = ns.sub(ns.sub(grown, ns.mul(fixed_a, v)), _REACH)
        reach = ns.sub(reach, ns.div(value, ns.mul(side, ns.sub(ns.add(grown, fixed_z), fixed_a))))
    end = ns.mul(side, reach)

    def step(total: Tensor, node: Any) -> Any:
        v = ns.mul(end, node[0])
        weight = ns.exp(ns.sub(ns.mul(a, v), ns.mul(z, ns.expm1(v))))
        return ns.add(total, ns.mul(ns.mul(ns.add(first, v), weight), node[1])), ()

    nodes = tuple(from_numpy(n, home(z)) for n in ((_NODES[0] + 1) / 2, _NODES[1] / 2))
    return ns.mul(end, md.scan(step, ns.mul(z, 0.0), nodes)[0])


def _slope(a: Tensor, log_z: Tensor) -> Tensor:
    z = ns.exp(log_z)
    small = ns.le(z, 1.0)
    near = _series(a, log_z, ns.where(small, z, 1.0))
    far = _integral(ns.where(small, 1.0, a), ns.where(small, 0.5, log_z), ns.where(small, math.exp(0.5), z))
    return ns.where(small, near, far)


@md.custom_jvp
def _moving(a: Tensor, log_z: Tensor) -> Tensor:
    """The number as a function of its parameter, its quantile being held."""
    return log_z


@_moving.defjvp
def _(primals: Any, tangents: Any) -> Any:
    out = _moving(*primals)
    return out, ns.mul(_slope(primals[0], out), tangents[0])


def _log(key: Tensor, a: Tensor) -> Tensor:
    return _moving(a, _sample(key, a.detach()))


def _spread(a: Tensor, shape: tuple[int, ...]) -> Tensor:
    return a if a.shape == shape else ns.broadcast_to(a, shape=shape)


def _positive(x: Any) -> Any:
    return (x > 0) & (x < math.inf)


def loggamma(key: Tensor, a: Any, shape: Shape | None = None, dtype: Any = None) -> Tensor:
    """The logarithm of `gamma`, exact too where that is 0 to rounding, as for small a. Arguments, errors and derivative as there.

    >>> import minidl as md
    >>> md.random.loggamma(md.random.key(0), 1e-3, (2,)).shape
    (2,)
    """
    dtype = float_dtype("loggamma", dtype)
    a = parameter("loggamma", "a", a, key, _positive, "positive")
    return _gamma(key, a, common("loggamma", shape, a), dtype, True)


def gamma(key: Tensor, a: Any, shape: Shape | None = None, dtype: Any = None) -> Tensor:
    """Gamma numbers with shape parameter a and scale 1: a number, or an array that broadcasts to shape (of its shape without one).

    Differentiable in a Tensor a, see the module. Raises ValueError for a number that is not positive and finite; a Tensor's such give nan. Raises
    TypeError for no float dtype.

    >>> import minidl as md
    >>> bool((md.random.gamma(md.random.key(0), 2.0, (100,)) > 0.0).all())
    True
    """
    dtype = float_dtype("gamma", dtype)
    a = parameter("gamma", "a", a, key, _positive, "positive")
    return _gamma(key, a, common("gamma", shape, a), dtype, False)


@whole
def _gamma(key: Tensor, a: Tensor, /, shape: tuple[int, ...], dtype: DType, log: bool) -> Tensor:
    out = _log(key, _spread(a, shape))
    return cast(out if log else ns.exp(out), dtype)


def beta(key: Tensor, a: Any, b: Any, shape: Shape | None = None, dtype: Any = None) -> Tensor:
    """Beta numbers with parameters a and b: numbers, or arrays that broadcast to shape. Differentiable in both and errors as `gamma`.

    x / (x + y) of two gamma numbers, computed from their logarithms, so that small parameters give no nan.

    >>> import minidl as md
    >>> x = md.random.beta(md.random.key(0), 0.5, 2.0, (100,))
    >>> bool((x >= 0.0).all() and (x <= 1.0).all())
    True
    """
    dtype = float_dtype("beta", dtype)
    a, b = parameter("beta", "a", a, key, _positive, "positive"), parameter("beta", "b", b, key, _positive, "positive")
    return _beta(key, a, b, common("beta", shape, a, b), dtype)


@whole
def _beta(key: Tensor, a: Tensor, b: Tensor, /, shape: tuple[int, ...], dtype: DType) -> Tensor:
    x, y = (_log(k, _spread(p, shape)) for k, p in zip(two(key), (a, b), strict=True))
    return cast(ns.sigmoid(ns.sub(x, y)), dtype)


def dirichlet(key: Tensor, alpha: Any, shape: Shape | None = None, dtype: Any = None) -> Tensor:
    """Points of the simplex, [*shape, k] for alpha [..., k], whose leading axes broadcast to shape. Differentiable in alpha and errors as `gamma`.

    Raises ValueError for alpha without an axis.

    >>> import minidl as md
    >>> x = md.random.dirichlet(md.random.key(0), [1.0, 2.0, 3.0], (5,))
    >>> x.shape, bool((abs(x.sum(axis=-1) - 1.0) < 1e-6).all())
    ((5, 3), True)
    """
    dtype = float_dtype("dirichlet", dtype)
    alpha = parameter("dirichlet", "alpha", alpha, key, _positive, "positive")
    if alpha.ndim == 0 or alpha.shape[-1] == 0:
        raise ValueError(f"random.dirichlet: alpha wants at least one axis of parameters, not shape {alpha.shape}")
    lead = common("dirichlet", None if shape is None else (*size_of(shape), alpha.shape[-1]), alpha)
    return _dirichlet(key, alpha, lead, dtype)


@whole
def _dirichlet(key: Tensor, alpha: Tensor, /, lead: tuple[int, ...], dtype: DType) -> Tensor:
    return cast(ns.softmax(_log(key, _spread(alpha, lead)), axis=len(lead) - 1), dtype)
