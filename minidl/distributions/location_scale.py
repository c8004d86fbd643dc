"""Distributions of loc + scale * z for a fixed distribution of z: Normal, Laplace, Cauchy, Gumbel. Each is what z is."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import minidl as md
from minidl.distributions import constraints
from minidl.distributions.base import EULER, LOG_2PI, Distribution

__all__ = ["Cauchy", "Gumbel", "Laplace", "Normal"]


class LocationScale(Distribution):
    """loc + scale * z; a class gives the mean, variance and entropy of z (its mode is 0), its log-density, cdf and icdf, and how it is drawn."""

    arg_constraints: ClassVar = {"loc": constraints.real, "scale": constraints.positive}
    support = constraints.real
    has_rsample = True
    moments: ClassVar[tuple[float, float, float]]  # mean, variance, entropy
    draws: ClassVar[str]
    loc: md.Tensor
    scale: md.Tensor

    def __init__(self, loc: Any, scale: Any, validate_args: bool | None = None):
        self._set(validate_args, loc=loc, scale=scale)

    @staticmethod
    def _log_density(z: md.Tensor) -> md.Tensor:
        raise NotImplementedError

    @staticmethod
    def _cdf(z: md.Tensor) -> md.Tensor:
        raise NotImplementedError

    @staticmethod
    def _icdf(q: md.Tensor) -> md.Tensor:
        raise NotImplementedError

    @property
    def mean(self) -> md.Tensor:
        return self.loc + self.scale * self.moments[0] if self.moments[0] else self.loc

    @property
    def mode(self) -> md.Tensor:
        return self.loc

    @property
    def variance(self) -> md.Tensor:
        return md.square(self.scale) * self.moments[1]

    @property
    def stddev(self) -> md.Tensor:
        return self.scale * math.sqrt(self.moments[1])

    def entropy(self) -> md.Tensor:
        return self.moments[2] + md.log(self.scale)

    def _draw(self, key: md.Tensor, shape: tuple[int, ...]) -> md.Tensor:
        return self.loc + self.scale * getattr(md.random, self.draws)(key, shape, self.loc.dtype)

    def log_prob(self, value: Any) -> md.Tensor:
        return self._log_density((self._value(value) - self.loc) / self.scale) - md.log(self.scale)

    def cdf(self, value: Any) -> md.Tensor:
        return self._cdf((self._value(value) - self.loc) / self.scale)

    def icdf(self, value: Any) -> md.Tensor:
        return self.loc + self.scale * self._icdf(md.extend.operand(value, self.loc))


class Normal(LocationScale):
    """The normal distribution of mean loc and standard deviation scale. Raises ValueError for a scale that is not positive.

    >>> d = Normal(md.tensor([0.0, 1.0]), 2.0)
    >>> d.mean.tolist(), d.variance.tolist(), round(d.cdf(0.0)[0].item(), 3)
    ([0.0, 1.0], [4.0, 4.0], 0.5)
    """

    moments, draws = (0.0, 1.0, 0.5 + 0.5 * LOG_2PI), "normal"

    @staticmethod
    def _log_density(z: md.Tensor) -> md.Tensor:
        return -0.5 * md.square(z) - 0.5 * LOG_2PI

    @staticmethod
    def _cdf(z: md.Tensor) -> md.Tensor:
        return 0.5 * md.erfc(z * -math.sqrt(0.5))

    @staticmethod
    def _icdf(q: md.Tensor) -> md.Tensor:
        return math.sqrt(2) * md.erfinv(2 * q - 1)


class Laplace(LocationScale):
    """exp(-|x - loc| / scale) / (2 scale). Raises ValueError for a scale that is not positive.

    >>> Laplace(0.0, 1.0).variance.item()
    2.0
    """

    moments, draws = (0.0, 2.0, 1 + math.log(2)), "laplace"

    @staticmethod
    def _log_density(z: md.Tensor) -> md.Tensor:
        return -md.abs(z) - math.log(2)

    @staticmethod
    def _cdf(z: md.Tensor) -> md.Tensor:
        return 0.5 - 0.5 * md.sign(z) * md.expm1(-md.abs(z))

    @staticmethod
    def _icdf(q: md.Tensor) -> md.Tensor:
        return -md.sign(q - 0.5) * md.log1p(-2 * md.abs(q - 0.5))


class Cauchy(LocationScale):
    """The distribution of a ratio of centred normals, with median loc and half the interquartile range scale; its mean is nan, its variance inf.

    Raises ValueError for a scale that is not positive.

    >>> Cauchy(0.0, 1.0).cdf(0.0).item()
    0.5
    """

    moments, draws = (math.nan, math.inf, math.log(4 * math.pi)), "cauchy"

    @staticmethod
    def _log_density(z: md.Tensor) -> md.Tensor:
        return -md.log1p(md.square(z)) - math.log(math.pi)

    @staticmethod
    def _cdf(z: md.Tensor) -> md.Tensor:
        return md.atan(z) / math.pi + 0.5

    @staticmethod
    def _icdf(q: md.Tensor) -> md.Tensor:
        return md.tan(math.pi * (q - 0.5))


class Gumbel(LocationScale):
    """The distribution of the largest of many, with mode loc. Raises ValueError for a scale that is not positive.

    >>> round(Gumbel(0.0, 1.0).mean.item(), 4)
    0.5772
    """

    moments, draws = (EULER, math.pi**2 / 6, 1 + EULER), "gumbel"

    @staticmethod
    def _log_density(z: md.Tensor) -> md.Tensor:
        return -(z + md.exp(-z))

    @staticmethod
    def _cdf(z: md.Tensor) -> md.Tensor:
        return md.exp(-md.exp(-z))

    @staticmethod
    def _icdf(q: md.Tensor) -> md.Tensor:
        return -md.log(-md.log(q))
