"""Distributions on part of the line and on the simplex: Uniform, Exponential, HalfNormal, Gamma, Chi2, Beta, Dirichlet."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import minidl as md
from minidl.distributions import constraints
from minidl.distributions.base import LOG_2PI, Distribution, inside
from minidl.distributions.location_scale import Normal
from minidl.extend import describe, seen

__all__ = ["Beta", "Chi2", "Dirichlet", "Exponential", "Gamma", "HalfNormal", "Uniform"]


class Uniform(Distribution):
    """The uniform distribution on [low, high). Raises ValueError unless low < high.

    >>> d = Uniform(0.0, md.tensor([2.0, 4.0]))
    >>> d.mean.tolist(), d.cdf(1.0).tolist()
    ([1.0, 2.0], [0.5, 0.25])
    """

    arg_constraints: ClassVar = {"low": constraints.real, "high": constraints.real}
    has_rsample = True
    low: md.Tensor
    high: md.Tensor

    def __init__(self, low: Any, high: Any, validate_args: bool | None = None):
        self._set(validate_args, low=low, high=high)
        ends = seen(self.low, self.high) if self._validate_args else None
        if ends is not None and not (ends[0] < ends[1]).all():
            raise ValueError(f"Uniform: low must be less than high, got low {self.low.tolist()} and high {self.high.tolist()}")

    @property
    def support(self) -> Any:  # type: ignore[override]
        ends = seen(self.low, self.high)
        return None if ends is None else constraints.Constraint("between low and high", lambda x: (x >= ends[0]) & (x <= ends[1]))

    @property
    def mean(self) -> md.Tensor:
        return (self.high + self.low) / 2

    @property
    def mode(self) -> md.Tensor:
        return self.high * md.nan

    @property
    def variance(self) -> md.Tensor:
        return md.square(self.high - self.low) / 12

    @property
    def stddev(self) -> md.Tensor:
        return (self.high - self.low) / math.sqrt(12)

    def _draw(self, key: md.Tensor, shape: tuple[int, ...]) -> md.Tensor:
        return self.low + md.random.uniform(key, shape, self.low.dtype) * (self.high - self.low)

    def log_prob(self, value: Any) -> md.Tensor:
        x = self._value(value)
        return md.where((self.low <= x) & (x < self.high), -md.log(self.high - self.low), -math.inf)

    def cdf(self, value: Any) -> md.Tensor:
        return md.clip((self._value(value) - self.low) / (self.high - self.low), 0.0, 1.0)

    def icdf(self, value: Any) -> md.Tensor:
        return value * (self.high - self.low) + self.low

    def entropy(self) -> md.Tensor:
        return md.log(self.high - self.low)


class Exponential(Distribution):
    """rate exp(-rate x) for x >= 0. Raises ValueError for a rate that is not positive.

    >>> Exponential(4.0).mean.item()
    0.25
    """

    arg_constraints: ClassVar = {"rate": constraints.positive}
    support = constraints.nonnegative
    has_rsample = True
    rate: md.Tensor

    def __init__(self, rate: Any, validate_args: bool | None = None):
        self._set(validate_args, rate=rate)

    @property
    def mean(self) -> md.Tensor:
        return 1 / self.rate

    @property
    def mode(self) -> md.Tensor:
        return md.zeros_like(self.rate)

    @property
    def variance(self) -> md.Tensor:
        return 1 / md.square(self.rate)

    @property
    def stddev(self) -> md.Tensor:
        return 1 / self.rate

    def _draw(self, key: md.Tensor, shape: tuple[int, ...]) -> md.Tensor:
        return md.random.exponential(key, shape, self.rate.dtype) / self.rate

    def log_prob(self, value: Any) -> md.Tensor:
        return md.log(self.rate) - self.rate * self._value(value)

    def cdf(self, value: Any) -> md.Tensor:
        return -md.expm1(-self.rate * self._value(value))

    def icdf(self, value: Any) -> md.Tensor:
        return -md.log1p(-md.extend.operand(value, self.rate)) / self.rate

    def entropy(self) -> md.Tensor:
        return 1 - md.log(self.rate)


class HalfNormal(Distribution):
    """The absolute value of a normal number of mean 0 and standard deviation scale. Raises ValueError for a scale that is not positive.

    >>> round(HalfNormal(1.0).mean.item(), 4)
    0.7979
    """

    arg_constraints: ClassVar = {"scale": constraints.positive}
    support = constraints.nonnegative
    has_rsample = True
    scale: md.Tensor

    def __init__(self, scale: Any, validate_args: bool | None = None):
        self._set(validate_args, scale=scale)

    @property
    def mean(self) -> md.Tensor:
        return self.scale * math.sqrt(2 / math.pi)

    @property
    def mode(self) -> md.Tensor:
        return md.zeros_like(self.scale)

    @property
    def variance(self) -> md.Tensor:
        return md.square(self.scale) * (1 - 2 / math.pi)

    def _draw(self, key: md.Tensor, shape: tuple[int, ...]) -> md.Tensor:
        return md.abs(md.random.normal(key, shape, self.scale.dtype)) * self.scale

    def log_prob(self, value: Any) -> md.Tensor:
        x = self._value(value)
        return md.where(x >= 0, math.log(2) + Normal._log_density(x / self.scale) - md.log(self.scale), -math.inf)

    def cdf(self, value: Any) -> md.Tensor:
        return md.erf(self._value(value) / self.scale * math.sqrt(0.5))

    def icdf(self, value: Any) -> md.Tensor:
        return self.scale * math.sqrt(2) * md.erfinv(md.extend.operand(value, self.scale))

    def entropy(self) -> md.Tensor:
        return 0.5 + 0.5 * LOG_2PI - math.log(2) + md.log(self.scale)


class Gamma(Distribution):
    """rate**c x**(c - 1) exp(-rate x) / Gamma(c) for x > 0, c being the concentration; rsample by implicit reparameterization (see md.random.gamma).

    The cdf has no derivative in the concentration but by its series. Raises ValueError for parameters that are not positive.

    >>> d = Gamma(3.0, 2.0)
    >>> d.mean.item(), d.mode.item(), d.variance.item()
    (1.5, 1.0, 0.75)
    """

    arg_constraints: ClassVar = {"concentration": constraints.positive, "rate": constraints.positive}
    support = constraints.nonnegative
    has_rsample = True
    concentration: md.Tensor
    rate: md.Tensor

    def __init__(self, concentration: Any, rate: Any, validate_args: bool | None = None):
        self._set(validate_args, concentration=concentration, rate=rate)

    @property
    def mean(self) -> md.Tensor:
        return self.concentration / self.rate

    @property
    def mode(self) -> md.Tensor:
        return md.maximum(self.concentration - 1, 0.0) / self.rate

    @property
    def variance(self) -> md.Tensor:
        return self.concentration / md.square(self.rate)

    def _draw(self, key: md.Tensor, shape: tuple[int, ...]) -> md.Tensor:
        x = md.random.gamma(key, self.concentration, shape, self.concentration.dtype) / self.rate
        return md.maximum(x, float(md.finfo(x.dtype).smallest_normal))

    def log_prob(self, value: Any) -> md.Tensor:
        x, c = self._value(value), self.concentration
        return md.xlogy(c, self.rate) + md.xlogy(c - 1, x) - self.rate * x - md.lgamma(c)

    def cdf(self, value: Any) -> md.Tensor:
        return md.special.gammainc(self.concentration, self.rate * self._value(value))

    def entropy(self) -> md.Tensor:
        c = self.concentration
        return c - md.log(self.rate) + md.lgamma(c) + (1 - c) * md.digamma(c)


class Chi2(Gamma):
    """The sum of squares of df standard normal numbers: Gamma(df / 2, 1 / 2). Raises ValueError for a df that is not positive.

    >>> Chi2(3.0).variance.item()
    6.0
    """

    def __init__(self, df: Any, validate_args: bool | None = None):
        df = md.asarray(df) if isinstance(df, (list, tuple)) else df
        super().__init__(df * 0.5, 0.5, validate_args)

    @property
    def df(self) -> md.Tensor:
        """The degrees of freedom."""
        return self.concentration * 2


class Beta(Distribution):
    """x**(a - 1) (1 - x)**(b - 1) / B(a, b) on (0, 1), a being concentration1 and b concentration0. Raises ValueError unless both are positive.

    >>> d = Beta(2.0, 2.0)
    >>> d.mean.item(), d.mode.item(), round(d.log_prob(0.5).exp().item(), 6)
    (0.5, 0.5, 1.5)
    """

    arg_constraints: ClassVar = {"concentration1": constraints.positive, "concentration0": constraints.positive}
    support = constraints.unit_interval
    has_rsample = True
    concentration1: md.Tensor
    concentration0: md.Tensor

    def __init__(self, concentration1: Any, concentration0: Any, validate_args: bool | None = None):
        self._set(validate_args, concentration1=concentration1, concentration0=concentration0)

    @property
    def mean(self) -> md.Tensor:
        return self.concentration1 / (self.concentration1 + self.concentration0)

    @property
    def mode(self) -> md.Tensor:
        """The most probable number; 1 where both ends are, as PyTorch's."""
        a, b = (md.maximum(c - 1, 0.0) for c in (self.concentration1, self.concentration0))
        return md.where((self.concentration1 < 1) & (self.concentration0 < 1), 1.0, a / (a + b))

    @property
    def variance(self) -> md.Tensor:
        a, b = self.concentration1, self.concentration0
        return a * b / (md.square(a + b) * (a + b + 1))

    def _log_norm(self) -> md.Tensor:
        a, b = self.concentration1, self.concentration0
        return md.lgamma(a) + md.lgamma(b) - md.lgamma(a + b)

    def _draw(self, key: md.Tensor, shape: tuple[int, ...]) -> md.Tensor:
        return inside(md.random.beta(key, self.concentration1, self.concentration0, shape, self.concentration1.dtype))

    def log_prob(self, value: Any) -> md.Tensor:
        x = self._value(value)
        return md.xlogy(self.concentration1 - 1, x) + md.xlogy(self.concentration0 - 1, 1 - x) - self._log_norm()

    def entropy(self) -> md.Tensor:
        a, b = self.concentration1, self.concentration0
        return self._log_norm() - (a - 1) * md.digamma(a) - (b - 1) * md.digamma(b) + (a + b - 2) * md.digamma(a + b)


class Dirichlet(Distribution):
    """The distribution on the simplex of n numbers with density of prod(x**(concentration - 1)), concentration [..., n].

    Raises ValueError unless all are positive.

    >>> d = Dirichlet(md.tensor([1.0, 3.0]))
    >>> d.mean.tolist(), d.event_shape
    ([0.25, 0.75], (2,))
    """

    arg_constraints: ClassVar = {"concentration": constraints.positive_vector}
    has_rsample = True
    concentration: md.Tensor

    def __init__(self, concentration: Any, validate_args: bool | None = None):
        self._set(validate_args, concentration=concentration)
        if not self.event_shape[0]:
            raise ValueError(f"Dirichlet: concentration is {describe(self.concentration)}; at least one number is wanted")

    @property
    def support(self) -> Any:  # type: ignore[override]
        return constraints.sum_of_one(float(md.finfo(self.concentration.dtype).eps))

    @property
    def _total(self) -> md.Tensor:
        return md.sum(self.concentration, axis=-1, keepdims=True)

    @property
    def mean(self) -> md.Tensor:
        return self.concentration / self._total

    @property
    def mode(self) -> md.Tensor:
        """The most probable point; the first corner where all are, as PyTorch's."""
        over = md.maximum(self.concentration - 1, 0.0)
        corner = md.cumulative_sum(md.ones_like(over), axis=-1) == 1
        return md.where(md.all(self.concentration < 1, axis=-1, keepdims=True), corner.to(over.dtype), over / md.sum(over, axis=-1, keepdims=True))

    @property
    def variance(self) -> md.Tensor:
        c, total = self.concentration, self._total
        return c * (total - c) / (md.square(total) * (total + 1))

    def _draw(self, key: md.Tensor, shape: tuple[int, ...]) -> md.Tensor:
        return md.random.dirichlet(key, self.concentration, shape[:-1], self.concentration.dtype)

    def _log_norm(self) -> md.Tensor:
        return md.sum(md.lgamma(self.concentration), axis=-1) - md.lgamma(self._total[..., 0])

    def log_prob(self, value: Any) -> md.Tensor:
        return md.sum(md.xlogy(self.concentration - 1, self._value(value)), axis=-1) - self._log_norm()

    def entropy(self) -> md.Tensor:
        c, total = self.concentration, self._total[..., 0]
        return self._log_norm() + (total - self.event_shape[0]) * md.digamma(total) - md.sum((c - 1) * md.digamma(c), axis=-1)
