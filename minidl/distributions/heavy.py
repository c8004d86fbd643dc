"""Distributions with heavy tails or of waiting times: StudentT, HalfCauchy, Pareto, Weibull, InverseGamma, FisherSnedecor."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import minidl as md
from minidl.distributions import constraints
from minidl.distributions.base import EULER, Distribution
from minidl.extend import operand, seen

__all__ = ["FisherSnedecor", "HalfCauchy", "InverseGamma", "Pareto", "StudentT", "Weibull"]


class StudentT(Distribution):
    """loc + scale t, where t has Student's distribution of df degrees of freedom. Raises ValueError for a df or scale that is not positive.

    >>> StudentT(3.0).variance.item(), StudentT(1.5).variance.item(), StudentT(1.0).mean.item()
    (3.0, inf, nan)
    """

    arg_constraints: ClassVar = {"df": constraints.positive, "loc": constraints.real, "scale": constraints.positive}
    support = constraints.real
    has_rsample = True
    df: md.Tensor
    loc: md.Tensor
    scale: md.Tensor

    def __init__(self, df: Any, loc: Any = 0.0, scale: Any = 1.0, validate_args: bool | None = None):
        self._set(validate_args, df=df, loc=loc, scale=scale)

    @property
    def mean(self) -> md.Tensor:
        return md.where(self.df > 1, self.loc, md.nan)

    @property
    def mode(self) -> md.Tensor:
        return self.loc

    @property
    def variance(self) -> md.Tensor:
        finite = self.df > 2
        ratio = self.df / md.where(finite, self.df - 2, 1.0)
        return md.where(finite, md.square(self.scale) * ratio, md.where(self.df > 1, math.inf, md.nan))

    def _draw(self, key: md.Tensor, shape: tuple[int, ...]) -> md.Tensor:
        half = self.df / 2
        spread = md.random.gamma(md.random.fold_in(key, 1), half, shape, half.dtype) / half
        return self.loc + self.scale * md.random.normal(md.random.fold_in(key, 0), shape, half.dtype) * md.rsqrt(spread)

    def _log_norm(self) -> md.Tensor:
        return 0.5 * md.log(self.df) + 0.5 * math.log(math.pi) + md.lgamma(0.5 * self.df) - md.lgamma(0.5 * (self.df + 1))

    def log_prob(self, value: Any) -> md.Tensor:
        z = (self._value(value) - self.loc) / self.scale
        return -0.5 * (self.df + 1) * md.log1p(md.square(z) / self.df) - self._log_norm() - md.log(self.scale)

    def entropy(self) -> md.Tensor:
        half = 0.5 * (self.df + 1)
        return md.log(self.scale) + half * (md.digamma(half) - md.digamma(0.5 * self.df)) + self._log_norm()


class HalfCauchy(Distribution):
    """The absolute value of a Cauchy number of mode 0. Raises ValueError for a scale that is not positive.

    >>> HalfCauchy(2.0).cdf(2.0).item(), HalfCauchy(2.0).mean.item()
    (0.5, inf)
    """

    arg_constraints: ClassVar = {"scale": constraints.positive}
    support = constraints.nonnegative
    has_rsample = True
    scale: md.Tensor

    def __init__(self, scale: Any, validate_args: bool | None = None):
        self._set(validate_args, scale=scale)

    @property
    def mean(self) -> md.Tensor:
        return md.full_like(self.scale, math.inf)

    @property
    def mode(self) -> md.Tensor:
        return md.zeros_like(self.scale)

    @property
    def variance(self) -> md.Tensor:
        return md.full_like(self.scale, math.inf)

    def _draw(self, key: md.Tensor, shape: tuple[int, ...]) -> md.Tensor:
        return md.abs(md.random.cauchy(key, shape, self.scale.dtype)) * self.scale

    def log_prob(self, value: Any) -> md.Tensor:
        x = self._value(value)
        return md.where(x >= 0, math.log(2 / math.pi) - md.log(self.scale) - md.log1p(md.square(x / self.scale)), -math.inf)

    def cdf(self, value: Any) -> md.Tensor:
        return md.atan(self._value(value) / self.scale) * (2 / math.pi)

    def icdf(self, value: Any) -> md.Tensor:
        return self.scale * md.tan(operand(value, self.scale) * (math.pi / 2))

    def entropy(self) -> md.Tensor:
        return math.log(2 * math.pi) + md.log(self.scale)


class Pareto(Distribution):
    """alpha scale**alpha / x**(alpha + 1) for x of at least scale. Raises ValueError for parameters that are not positive.

    >>> Pareto(1.0, 2.0).mean.item(), Pareto(1.0, 2.0).cdf(2.0).item()
    (2.0, 0.75)
    """

    arg_constraints: ClassVar = {"scale": constraints.positive, "alpha": constraints.positive}
    has_rsample = True
    scale: md.Tensor
    alpha: md.Tensor

    def __init__(self, scale: Any, alpha: Any, validate_args: bool | None = None):
        self._set(validate_args, scale=scale, alpha=alpha)

    @property
    def support(self) -> Any:  # type: ignore[override]
        least = seen(self.scale)
        return None if least is None else constraints.Constraint("at least scale", lambda x: x >= least[0])

    @property
    def mean(self) -> md.Tensor:
        a = md.maximum(self.alpha, 1.0)
        return a * self.scale / (a - 1)

    @property
    def mode(self) -> md.Tensor:
        return self.scale

    @property
    def variance(self) -> md.Tensor:
        a = md.maximum(self.alpha, 2.0)
        return md.square(self.scale) * a / (md.square(a - 1) * (a - 2))

    def _draw(self, key: md.Tensor, shape: tuple[int, ...]) -> md.Tensor:
        return self.scale * md.exp(md.random.exponential(key, shape, self.scale.dtype) / self.alpha)

    def log_prob(self, value: Any) -> md.Tensor:
        return md.log(self.alpha) + self.alpha * md.log(self.scale) - (self.alpha + 1) * md.log(self._value(value))

    def cdf(self, value: Any) -> md.Tensor:
        return -md.expm1(self.alpha * md.log(self.scale / self._value(value)))

    def icdf(self, value: Any) -> md.Tensor:
        return self.scale * md.exp(-md.log1p(-operand(value, self.scale)) / self.alpha)

    def entropy(self) -> md.Tensor:
        return md.log(self.scale / self.alpha) + 1 + 1 / self.alpha


class Weibull(Distribution):
    """scale times a standard exponential number to the power of 1 / concentration. Raises ValueError for parameters that are not positive.

    >>> Weibull(2.0, 1.0).mean.item()
    2.0
    """

    arg_constraints: ClassVar = {"scale": constraints.positive, "concentration": constraints.positive}
    support = constraints.positive
    has_rsample = True
    scale: md.Tensor
    concentration: md.Tensor

    def __init__(self, scale: Any, concentration: Any, validate_args: bool | None = None):
        self._set(validate_args, scale=scale, concentration=concentration)

    def _moment(self, n: int) -> md.Tensor:
        return md.exp(md.lgamma(1 + n / self.concentration))

    @property
    def mean(self) -> md.Tensor:
        return self.scale * self._moment(1)

    @property
    def mode(self) -> md.Tensor:
        """The most probable number, 0 for a concentration below 1."""
        over = md.maximum(self.concentration - 1, 0.0)
        return self.scale * md.pow(over / self.concentration, 1 / self.concentration)

    @property
    def variance(self) -> md.Tensor:
        return md.square(self.scale) * (self._moment(2) - md.square(self._moment(1)))

    def _draw(self, key: md.Tensor, shape: tuple[int, ...]) -> md.Tensor:
        return self.scale * md.pow(md.random.exponential(key, shape, self.scale.dtype), 1 / self.concentration)

    def log_prob(self, value: Any) -> md.Tensor:
        z, c = self._value(value) / self.scale, self.concentration
        return md.log(c / self.scale) + (c - 1) * md.log(z) - md.pow(z, c)

    def cdf(self, value: Any) -> md.Tensor:
        return -md.expm1(-md.pow(self._value(value) / self.scale, self.concentration))

    def icdf(self, value: Any) -> md.Tensor:
        return self.scale * md.pow(-md.log1p(-operand(value, self.scale)), 1 / self.concentration)

    def entropy(self) -> md.Tensor:
        return EULER * (1 - 1 / self.concentration) + md.log(self.scale / self.concentration) + 1


class InverseGamma(Distribution):
    """1 / x, where x is Gamma(concentration, rate). Raises ValueError for parameters that are not positive.

    >>> InverseGamma(3.0, 4.0).mean.item(), InverseGamma(3.0, 4.0).mode.item()
    (2.0, 1.0)
    """

    arg_constraints: ClassVar = {"concentration": constraints.positive, "rate": constraints.positive}
    support = constraints.positive
    has_rsample = True
    concentration: md.Tensor
    rate: md.Tensor

    def __init__(self, concentration: Any, rate: Any, validate_args: bool | None = None):
        self._set(validate_args, concentration=concentration, rate=rate)

    @property
    def mean(self) -> md.Tensor:
        c = self.concentration
        return md.where(c > 1, self.rate / md.where(c > 1, c - 1, 1.0), math.inf)

    @property
    def mode(self) -> md.Tensor:
        return self.rate / (self.concentration + 1)

    @property
    def variance(self) -> md.Tensor:
        c, there = self.concentration, self.concentration > 2
        return md.where(there, md.square(self.rate) / md.where(there, md.square(c - 1) * (c - 2), 1.0), math.inf)

    def _draw(self, key: md.Tensor, shape: tuple[int, ...]) -> md.Tensor:
        x = md.random.gamma(key, self.concentration, shape, self.concentration.dtype) / self.rate
        return 1 / md.maximum(x, float(md.finfo(x.dtype).smallest_normal))

    def log_prob(self, value: Any) -> md.Tensor:
        x, c = self._value(value), self.concentration
        return c * md.log(self.rate) - md.lgamma(c) - (c + 1) * md.log(x) - self.rate / x

    def cdf(self, value: Any) -> md.Tensor:
        return md.special.gammaincc(self.concentration, self.rate / self._value(value))

    def entropy(self) -> md.Tensor:
        c = self.concentration
        return c + md.log(self.rate) + md.lgamma(c) - (1 + c) * md.digamma(c)


class FisherSnedecor(Distribution):
    """The ratio of two Chi2 numbers, each over its degrees of freedom, df1 and df2. Raises ValueError for such that are not positive.

    >>> FisherSnedecor(1.0, 4.0).mean.item()
    2.0
    """

    arg_constraints: ClassVar = {"df1": constraints.positive, "df2": constraints.positive}
    support = constraints.positive
    has_rsample = True
    df1: md.Tensor
    df2: md.Tensor

    def __init__(self, df1: Any, df2: Any, validate_args: bool | None = None):
        self._set(validate_args, df1=df1, df2=df2)

    @property
    def mean(self) -> md.Tensor:
        there = self.df2 > 2
        return md.where(there, self.df2 / md.where(there, self.df2 - 2, 1.0), md.nan)

    @property
    def mode(self) -> md.Tensor:
        return md.where(self.df1 > 2, (self.df1 - 2) / self.df1 * (self.df2 / (self.df2 + 2)), md.nan)

    @property
    def variance(self) -> md.Tensor:
        a, b, there = self.df1, self.df2, self.df2 > 4
        less = md.where(there, b, 5.0)
        return md.where(there, 2 * md.square(b) * (a + b - 2) / (a * md.square(less - 2) * (less - 4)), md.nan)

    def _draw(self, key: md.Tensor, shape: tuple[int, ...]) -> md.Tensor:
        parts = [md.random.gamma(md.random.fold_in(key, i), d / 2, shape, d.dtype) / d for i, d in enumerate((self.df1, self.df2))]
        return parts[0] / md.maximum(parts[1], float(md.finfo(parts[1].dtype).smallest_normal))

    def log_prob(self, value: Any) -> md.Tensor:
        x, a, b = self._value(value), self.df1 / 2, self.df2 / 2
        ratio = self.df1 / self.df2
        return md.lgamma(a + b) - md.lgamma(a) - md.lgamma(b) + a * md.log(ratio) + (a - 1) * md.log(x) - (a + b) * md.log1p(ratio * x)
