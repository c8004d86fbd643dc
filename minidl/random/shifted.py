"""Distributions that are one formula of a uniform or a normal draw: laplace, logistic, cauchy, rademacher, lognormal, multivariate_normal.

The bits are jax.random's, and so are the numbers but for rounding.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

import minidl as md
from minidl import Tensor
from minidl.random.keys import float_dtype
from minidl.random.normal import normal
from minidl.random.uniform import bernoulli, uniform

Shape = int | tuple[int, ...]


def laplace(key: Tensor, shape: Shape = (), dtype: Any = None) -> Tensor:
    """Laplace numbers with mean 0 and scale 1. Raises TypeError for no float dtype.

    >>> import minidl as md
    >>> md.random.laplace(md.random.key(0), (3,)).shape
    (3,)
    """
    dtype = float_dtype("laplace", dtype)
    u = uniform(key, shape, dtype, minval=-1.0 + float(md.finfo(dtype).eps) / 2, maxval=1.0)
    return md.sign(u) * md.log1p(-md.abs(u))


def logistic(key: Tensor, shape: Shape = (), dtype: Any = None) -> Tensor:
    """Logistic numbers with mean 0 and scale 1. Raises TypeError for no float dtype.

    >>> import minidl as md
    >>> md.random.logistic(md.random.key(0), (3,)).shape
    (3,)
    """
    dtype = float_dtype("logistic", dtype)
    u = uniform(key, shape, dtype, minval=float(np.finfo(np.float32 if dtype.itemsize < 8 else np.float64).tiny), maxval=1.0)
    return md.log(u) - md.log1p(-u)


def cauchy(key: Tensor, shape: Shape = (), dtype: Any = None) -> Tensor:
    """Cauchy numbers with median 0 and scale 1. Raises TypeError for no float dtype.

    >>> import minidl as md
    >>> md.random.cauchy(md.random.key(0), (3,)).shape
    (3,)
    """
    dtype = float_dtype("cauchy", dtype)
    u = uniform(key, shape, dtype, minval=float(md.finfo(dtype).eps), maxval=1.0)
    return md.tan(math.pi * (u - 0.5))


def rademacher(key: Tensor, shape: Shape = (), dtype: Any = md.int64) -> Tensor:
    """-1 or 1, each with probability one half.

    >>> import minidl as md
    >>> set(md.random.rademacher(md.random.key(0), (50,)).tolist()) == {-1, 1}
    True
    """
    return 2 * bernoulli(key, 0.5, shape).to(dtype) - 1


def lognormal(key: Tensor, sigma: Any = 1.0, shape: Shape = (), dtype: Any = None) -> Tensor:
    """exp(sigma * normal). Raises TypeError for no float dtype.

    >>> import minidl as md
    >>> bool((md.random.lognormal(md.random.key(0), shape=(50,)) > 0).all())
    True
    """
    return md.exp(sigma * normal(key, shape, dtype))


def multivariate_normal(key: Tensor, mean: Any, cov: Any, shape: tuple[int, ...] | None = None, dtype: Any = None) -> Tensor:
    """Normal vectors [*shape, n] of mean [..., n] and covariance [..., n, n], by its Cholesky factor; differentiable in both.

    shape: by default what the leading axes of mean and covariance broadcast to. Raises TypeError for no float dtype.

    >>> import minidl as md
    >>> md.random.multivariate_normal(md.random.key(0), md.zeros(2), md.eye(2), (5,)).shape
    (5, 2)
    """
    dtype = float_dtype("multivariate_normal", dtype)
    mean, cov = md.asarray(mean), md.asarray(cov)
    lead = md.broadcast_shapes(mean.shape[:-1], cov.shape[:-2]) if shape is None else tuple(shape)
    z = normal(key, (*lead, mean.shape[-1]), dtype)
    return mean.to(dtype) + md.squeeze(md.linalg.cholesky(cov.to(dtype)) @ z[..., None], axis=-1)
