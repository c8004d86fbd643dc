"""jax.scipy.stats: densities, distribution functions and quantiles of distributions, with SciPy's arguments.

Each distribution is the standard one, moved by loc and stretched by scale: what is written here is its logarithmic density, its distribution
function, its quantiles, and where it lives.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import minidl as md
from minidl.idioms import of_lax
from minidl.idioms.jax import shaping
from minidl.idioms.jax.arrays import inexact, together
from minidl.idioms.jax.numpy import linalg
from minidl.idioms.jax.scipy import special
from minidl.idioms.jax.spelling import room

Function = Callable[..., md.Tensor]


def _all_floats(*xs: Any) -> list[md.Tensor]:
    found = [inexact(x) for x in together(*xs)]
    dtype = md.result_type(*(x.dtype for x in found))
    return list(md.broadcast_arrays(*(x.to(dtype) for x in found)))


class Continuous:
    """A family of distributions on the line: pdf, logpdf, cdf, logcdf, sf, logsf, ppf and isf as far as it has them."""

    def __init__(
        self, name: str, shapes: str, log_density: Function, low: float = -math.inf, high: float = math.inf, cdf: Function | None = None,
        sf: Function | None = None, ppf: Function | None = None, logcdf: Function | None = None,
        inside: Callable[..., Any] | None = None,
    ):  # fmt: skip
        self.__name__, self.shapes, self._log_density, self._low, self._high = name, tuple(shapes.split()), log_density, low, high
        self._cdf, self._sf, self._ppf, self._logcdf, self._inside = cdf, sf, ppf, logcdf, inside

    def _placed(self, what: str, x: Any, args: Any, kwargs: Any) -> tuple[md.Tensor, list[md.Tensor], md.Tensor]:
        names = (*self.shapes, "loc", "scale")
        if len(args) > len(names) or kwargs.keys() - names:
            raise TypeError(f"{self.__name__}.{what}: the arguments are x, {', '.join(names)}")
        given = {"loc": 0.0, "scale": 1.0} | dict(zip(names, args, strict=False)) | kwargs
        if missing := [n for n in self.shapes if n not in given]:
            raise TypeError(f"{self.__name__}.{what}: the argument {missing[0]!r} is missing")
        x, *shapes, loc, scale = _all_floats(x, *(given[n] for n in names))
        return x, [*shapes, loc], scale

    def _standard(self, what: str, x: Any, args: Any, kwargs: Any) -> tuple[md.Tensor, list[md.Tensor], md.Tensor]:
        x, (*shapes, loc), scale = self._placed(what, x, args, kwargs)
        return (x - loc) / scale, shapes, scale

    def _middle(self, y: md.Tensor) -> md.Tensor:
        """A number inside, for where y lies outside or at a bound; nan stays what it is."""
        safe = 0.5 if self._high == 1.0 else 1.0 if self._low == 0.0 else self._low + 1.0 if math.isfinite(self._low) else 0.0
        return md.where((y <= self._low) | (y >= self._high), safe, y)

    def logpdf(self, x: Any, *args: Any, **kwargs: Any) -> md.Tensor:
        """The logarithm of the density, -inf outside."""
        y, shapes, scale = self._standard("logpdf", x, args, kwargs)
        outside = (y < self._low) | (y > self._high)
        value = self._log_density(md.where(outside, self._middle(y), y), *shapes) - md.log(scale)
        return md.where(outside, -math.inf, value) if math.isfinite(self._low) or math.isfinite(self._high) else value

    def pdf(self, x: Any, *args: Any, **kwargs: Any) -> md.Tensor:
        """The density."""
        return md.exp(self.logpdf(x, *args, **kwargs))

    def cdf(self, x: Any, *args: Any, **kwargs: Any) -> md.Tensor:
        """The distribution function."""
        y, shapes, _ = self._standard("cdf", x, args, kwargs)
        value = self._have("cdf", self._cdf)(self._middle(y), *shapes)
        return md.where(y <= self._low, 0.0, md.where(y >= self._high, 1.0, value))

    def sf(self, x: Any, *args: Any, **kwargs: Any) -> md.Tensor:
        """1 - cdf, exact where that is small if the family knows how."""
        if self._sf is None:
            return 1.0 - self.cdf(x, *args, **kwargs)
        y, shapes, _ = self._standard("sf", x, args, kwargs)
        return md.where(y <= self._low, 1.0, md.where(y >= self._high, 0.0, self._sf(self._middle(y), *shapes)))

    def logcdf(self, x: Any, *args: Any, **kwargs: Any) -> md.Tensor:
        """The logarithm of the distribution function."""
        if self._logcdf is None:
            return md.log(self.cdf(x, *args, **kwargs))
        y, shapes, _ = self._standard("logcdf", x, args, kwargs)
        return self._logcdf(y, *shapes)

    def logsf(self, x: Any, *args: Any, **kwargs: Any) -> md.Tensor:
        """The logarithm of 1 - cdf."""
        if self._logcdf is None or self._low != -self._high or self.shapes:
            return md.log(self.sf(x, *args, **kwargs))
        y, _, _ = self._standard("logsf", x, args, kwargs)
        return self._logcdf(-y)

    def ppf(self, q: Any, *args: Any, **kwargs: Any) -> md.Tensor:
        """The quantiles, nan outside of 0 to 1."""
        q, (*shapes, loc), scale = self._placed("ppf", q, args, kwargs)
        return self._have("ppf", self._ppf)(q, *shapes) * scale + loc

    def isf(self, q: Any, *args: Any, **kwargs: Any) -> md.Tensor:
        """ppf(1 - q)."""
        if self._low == -self._high and not self.shapes:  # symmetric about 0: nothing is lost in 1 - q
            q, (loc,), scale = self._placed("isf", q, args, kwargs)
            return -self._have("isf", self._ppf)(q) * scale + loc
        return self.ppf(1.0 - inexact(q), *args, **kwargs)

    def _have(self, what: str, f: Function | None) -> Function:
        if f is None:
            raise AttributeError(f"{self.__name__} has no {what}")
        return f


class Discrete(Continuous):
    """A family of distributions on the integers: pmf, logpmf, cdf and so on."""

    def logpmf(self, k: Any, *args: Any, **kwargs: Any) -> md.Tensor:
        """The logarithm of the probability, -inf for what is no integer of the family."""
        x, (*shapes, loc), _ = self._placed("logpmf", k, args, kwargs)
        y = x - loc
        there = (y >= self._low) & (md.floor(y) == y)
        there = there if self._inside is None else there & self._inside(y, *shapes)
        value = self._log_density(md.where(there, y, max(self._low, 0.0)), *shapes)
        return md.where(there, value, -math.inf)

    def pmf(self, k: Any, *args: Any, **kwargs: Any) -> md.Tensor:
        """The probability."""
        return md.exp(self.logpmf(k, *args, **kwargs))

    def cdf(self, x: Any, *args: Any, **kwargs: Any) -> md.Tensor:
        """The distribution function."""
        x, (*shapes, loc), _ = self._placed("cdf", x, args, kwargs)
        y = md.floor(x - loc)
        return md.where(y < self._low, 0.0, self._have("cdf", self._cdf)(md.maximum(y, self._low), *shapes))


_HALF_LOG = 0.5 * math.log(2.0 * math.pi)
_normal = lambda y: -0.5 * md.square(y) - _HALF_LOG
_ndtri = of_lax.ndtri
norm = Continuous("norm", "", _normal, cdf=of_lax.ndtr, sf=lambda y: of_lax.ndtr(-y), ppf=_ndtri, logcdf=special.log_ndtr)
uniform = Continuous("uniform", "", lambda y: md.zeros_like(y), 0.0, 1.0, cdf=lambda y: y, ppf=lambda q: q)
expon = Continuous(
    "expon", "", lambda y: -y, 0.0, cdf=lambda y: -md.expm1(-y), sf=lambda y: md.exp(-y), ppf=lambda q: -md.log1p(-q),
)  # fmt: skip
laplace = Continuous(
    "laplace", "", lambda y: -md.abs(y) - math.log(2.0),
    cdf=lambda y: md.where(y < 0, 0.5 * md.exp(-md.abs(y)), 1.0 - 0.5 * md.exp(-md.abs(y))),
    ppf=lambda q: md.where(q < 0.5, md.log(2.0 * q), -md.log(2.0 * (1.0 - q))),
)  # fmt: skip
logistic = Continuous(
    "logistic", "", lambda y: -md.abs(y) - 2.0 * md.log1p(md.exp(-md.abs(y))), cdf=md.sigmoid, sf=lambda y: md.sigmoid(-y),
    ppf=lambda q: md.log(q / (1.0 - q)), logcdf=lambda y: -md.softplus(-y),
)  # fmt: skip
cauchy = Continuous(
    "cauchy", "", lambda y: -math.log(math.pi) - md.log1p(md.square(y)), cdf=lambda y: 0.5 + md.atan(y) / math.pi,
    sf=lambda y: 0.5 - md.atan(y) / math.pi, ppf=lambda q: md.tan(math.pi * (q - 0.5)),
)  # fmt: skip
gumbel_r = Continuous(
    "gumbel_r", "", lambda y: -y - md.exp(-y), cdf=lambda y: md.exp(-md.exp(-y)), sf=lambda y: -md.expm1(-md.exp(-y)),
    ppf=lambda q: -md.log(-md.log(q)),
)  # fmt: skip
gumbel_l = Continuous(
    "gumbel_l", "", lambda y: y - md.exp(y), cdf=lambda y: -md.expm1(-md.exp(y)), sf=lambda y: md.exp(-md.exp(y)),
    ppf=lambda q: md.log(-md.log1p(-q)),
)  # fmt: skip
truncnorm = Continuous(
    "truncnorm", "a b",
    lambda y, a, b: md.where((y < a) | (y > b), -math.inf, _normal(y) - md.log(of_lax.ndtr(b) - of_lax.ndtr(a))),
    cdf=lambda y, a, b: md.clip((of_lax.ndtr(y) - of_lax.ndtr(a)) / (of_lax.ndtr(b) - of_lax.ndtr(a)), 0.0, 1.0),
)  # fmt: skip
gamma = Continuous(
    "gamma", "a", lambda y, a: md.xlogy(a - 1.0, y) - y - md.lgamma(a), 0.0, cdf=lambda y, a: special.gammainc(a, y),
    sf=lambda y, a: special.gammaincc(a, y),
)  # fmt: skip
chi2 = Continuous(
    "chi2", "df", lambda y, df: md.xlogy(df / 2.0 - 1.0, y) - y / 2.0 - md.lgamma(df / 2.0) - df / 2.0 * math.log(2.0), 0.0,
    cdf=lambda y, df: special.gammainc(df / 2.0, y / 2.0), sf=lambda y, df: special.gammaincc(df / 2.0, y / 2.0),
)  # fmt: skip
beta = Continuous(
    "beta", "a b", lambda y, a, b: md.xlogy(a - 1.0, y) + special.xlog1py(b - 1.0, -y) - of_lax.betaln(a, b), 0.0, 1.0,
    cdf=lambda y, a, b: special.betainc(a, b, y), sf=lambda y, a, b: special.betainc(b, a, 1.0 - y),
)  # fmt: skip
pareto = Continuous(
    "pareto", "b", lambda y, b: md.log(b) - (b + 1.0) * md.log(y), 1.0, cdf=lambda y, b: 1.0 - md.pow(y, -b), sf=lambda y, b: md.pow(y, -b),
    ppf=lambda q, b: md.pow(1.0 - q, -1.0 / b),
)  # fmt: skip
t = Continuous(
    "t", "df",
    lambda y, df: md.lgamma((df + 1.0) / 2.0) - md.lgamma(df / 2.0) - 0.5 * md.log(df * math.pi) - (df + 1.0) / 2.0 * md.log1p(md.square(y) / df),
)  # fmt: skip
gennorm = Continuous(
    "gennorm", "beta", lambda y, p: md.log(0.5 * p) - md.lgamma(1.0 / p) - md.pow(md.abs(y), p),
    cdf=lambda y, p: 0.5 * (1.0 + md.sign(y) * special.gammainc(1.0 / p, md.pow(md.abs(y), p))),
)  # fmt: skip
wrapcauchy = Continuous(
    "wrapcauchy", "c", lambda y, c: md.log1p(-c * c) - md.log(1.0 + c * c - 2.0 * c * md.cos(y)) - math.log(2.0 * math.pi), 0.0, 2.0 * math.pi
)
vonmises = Continuous("vonmises", "kappa", lambda y, k: k * (md.cos(y) - 1.0) - math.log(2.0 * math.pi) - md.log(special.i0e(k)))
poisson = Discrete(
    "poisson", "mu", lambda k, mu: md.xlogy(k, mu) - md.lgamma(k + 1.0) - mu, 0.0, cdf=lambda k, mu: special.gammaincc(k + 1.0, mu)
)
bernoulli = Discrete(
    "bernoulli", "p", lambda k, p: md.xlogy(k, p) + special.xlog1py(1.0 - k, -p), 0.0, cdf=lambda k, p: md.where(k < 1.0, 1.0 - p, 1.0),
    inside=lambda k, p: k <= 1.0, ppf=lambda q, p: md.where(q <= 1.0 - p, 0.0, 1.0),
)  # fmt: skip
geom = Discrete("geom", "p", lambda k, p: special.xlog1py(k - 1.0, -p) + md.log(p), 1.0)
binom = Discrete(
    "binom", "n p",
    lambda k, n, p: md.lgamma(n + 1.0) - md.lgamma(k + 1.0) - md.lgamma(n - k + 1.0) + md.xlogy(k, p) + special.xlog1py(n - k, -p), 0.0,
    inside=lambda k, n, p: k <= n,
)  # fmt: skip
nbinom = Discrete(
    "nbinom", "n p", lambda k, n, p: md.lgamma(k + n) - md.lgamma(k + 1.0) - md.lgamma(n) + n * md.log(p) + special.xlog1py(k, -p), 0.0
)
betabinom = Discrete(
    "betabinom", "n a b",
    lambda k, n, a, b: of_lax.betaln(k + a, n - k + b) - of_lax.betaln(a, b) - md.log(n + 1.0) - of_lax.betaln(n - k + 1.0, k + 1.0), 0.0,
    inside=lambda k, n, a, b: k <= n,
)  # fmt: skip


class dirichlet:
    """Dirichlet's distribution, of vectors along the first axis."""

    @staticmethod
    def logpdf(x: Any, alpha: Any) -> md.Tensor:
        """The logarithm of the density.

        >>> round(abs(dirichlet.logpdf(md.tensor([0.5, 0.5]), md.ones(2)).item()), 4)
        0.0
        """
        x, alpha = inexact(x), inexact(alpha)
        if x.shape[0] + 1 == alpha.shape[0]:
            x = md.concat([x, 1.0 - md.sum(x, axis=0, keepdims=True)])
        a = md.reshape(alpha, (*alpha.shape, *(1,) * (x.ndim - 1)))
        norm = md.sum(md.lgamma(alpha)) - md.lgamma(md.sum(alpha))
        inside = md.all(x >= 0, axis=0) & (md.abs(md.sum(x, axis=0) - 1.0) < 1e-4)
        return md.where(inside, md.sum(md.xlogy(a - 1.0, x), axis=0) - norm, -math.inf)

    @classmethod
    def pdf(cls, x: Any, alpha: Any) -> md.Tensor:
        """The density."""
        return md.exp(cls.logpdf(x, alpha))


class multinomial:
    """How often each class comes in n draws."""

    @staticmethod
    def logpmf(x: Any, n: Any, p: Any) -> md.Tensor:
        """The logarithm of the probability.

        >>> round(multinomial.pmf(md.tensor([1, 1]), 2, md.tensor([0.5, 0.5])).item(), 4)
        0.5
        """
        p = inexact(p)
        x = md.asarray(x).to(p.dtype)
        n = md.asarray(n, dtype=p.dtype)
        value = md.lgamma(n + 1.0) + md.sum(md.xlogy(x, p) - md.lgamma(x + 1.0), axis=-1)
        return md.where(md.sum(x, axis=-1) == n, value, -math.inf)

    @classmethod
    def pmf(cls, x: Any, n: Any, p: Any) -> md.Tensor:
        """The probability."""
        return md.exp(cls.logpmf(x, n, p))


class multivariate_normal:
    """The normal distribution of vectors along the last axis."""

    @staticmethod
    def logpdf(x: Any, mean: Any, cov: Any, allow_singular: Any = None) -> md.Tensor:
        """The logarithm of the density; a covariance that is a number stands for that times the identity.

        >>> round(multivariate_normal.logpdf(md.zeros(2), md.zeros(2), md.eye(2)).item(), 4)
        -1.8379
        """
        if allow_singular is not None:
            raise ValueError("multivariate_normal: allow_singular is not there, as in JAX")
        x, mean, cov = inexact(x), inexact(mean), inexact(cov)
        if not mean.ndim:
            return norm.logpdf(x, mean, md.sqrt(cov))
        n = mean.shape[-1]
        if not cov.ndim:
            return -0.5 * (md.sum(md.square(x - mean), axis=-1) / cov + n * (math.log(2 * math.pi) + md.log(cov)))
        factor = linalg.cholesky(cov)
        away = (x - mean)[..., None]
        lead = md.broadcast_shapes(away.shape[:-2], factor.shape[:-2])
        away, factor = md.broadcast_to(away, (*lead, n, 1)), md.broadcast_to(factor, (*lead, n, n))
        solved = md.linalg.solve_triangular(factor, away, lower=True)[..., 0]
        logs = md.sum(md.log(md.diagonal(factor, axis1=-2, axis2=-1)), axis=-1)
        return -0.5 * md.sum(md.square(solved), axis=-1) - n * _HALF_LOG - logs

    @classmethod
    def pdf(cls, x: Any, mean: Any, cov: Any) -> md.Tensor:
        """The density."""
        return md.exp(cls.logpdf(x, mean, cov))


def sem(a: Any, axis: int | None = 0, ddof: int = 1, nan_policy: str = "propagate", *, keepdims: bool = False) -> md.Tensor:
    """The standard error of the mean.

    >>> sem(md.tensor([1.0, 3.0])).item()
    1.0
    """
    x = md.flatten(inexact(a)) if axis is None else inexact(a)
    axis = 0 if axis is None else axis
    return md.std(x, axis=axis, correction=ddof, keepdims=keepdims) / math.sqrt(x.shape[axis])


def rankdata(a: Any, method: str = "average", *, axis: int | None = None, nan_policy: str = "propagate") -> md.Tensor:
    """The places in the order, from 1; of equal elements their "average", "min", "max", "dense" or "ordinal".

    >>> rankdata(md.tensor([3.0, 1.0, 3.0])).tolist()
    [2.5, 1.0, 2.5]
    """
    x = md.flatten(md.asarray(a)) if axis is None else md.moveaxis(md.asarray(a), axis, -1)
    if x.ndim > 1:
        return md.moveaxis(shaping.vectorize(lambda v: rankdata(v, method), signature="(n)->(n)")(x), -1, axis)
    ordered = md.sort(x)
    low, high = md.searchsorted(ordered, x), md.searchsorted(ordered, x, side="right")
    if method == "ordinal":
        return md.argsort(md.argsort(x)) + 1
    if method == "dense":
        first = md.concat([md.ones(1, dtype=md.bool), ordered[1:] != ordered[:-1]])
        return md.take(md.cumulative_sum(first.to(md.int64), axis=0), low)
    ways = {"average": lambda: (low + 1 + high).to(md.get_default_dtype()) / 2.0, "min": lambda: low + 1, "max": lambda: high}
    if method not in ways:
        raise ValueError(f"rankdata: method is 'average', 'min', 'max', 'dense' or 'ordinal', not {method!r}")
    return ways[method]()


class ModeResult(NamedTuple):
    """The commonest elements, and how often each is there."""

    mode: md.Tensor
    count: md.Tensor  # type: ignore[assignment]  # a name of tuple's, too


def mode(a: Any, axis: int | None = 0, nan_policy: str = "propagate", keepdims: bool = False) -> ModeResult:
    """The commonest elements along an axis (of all without one), the smallest of those equally common, and how often each is there. Raises ValueError
    for another nan_policy than "propagate".

    >>> [v.tolist() for v in mode(md.tensor([[1, 2, 2], [1, 3, 3]]), axis=1)]
    [[2, 3], [2, 2]]
    """
    if nan_policy != "propagate":
        raise ValueError(f"mode: nan_policy {nan_policy!r} is not there, as in JAX")
    x = md.asarray(a)
    along = 0 if axis is None else axis
    x = md.flatten(x) if axis is None else x
    found = md.mode(x, along, keepdim=True).values
    pair = ModeResult(found, md.sum(x == found, axis=along, keepdims=True))
    if axis is None and keepdims:
        return ModeResult(*(md.reshape(v, (1,) * md.asarray(a).ndim) for v in pair))
    return pair if keepdims else ModeResult(*(md.squeeze(v, along) for v in pair))


__getattr__ = room(__name__, {}, (), "", {"gaussian_kde": "md.distributions.MixtureSameFamily of normals at the points has that density"})
