"""Distributions on an interval or a circle: ContinuousBernoulli, Kumaraswamy, VonMises; and GeneralizedPareto, whose end depends on its shape."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import minidl as md
from minidl.distributions import constraints
from minidl.distributions.base import EULER, Distribution, clamped
from minidl.distributions.discrete import ByProbability
from minidl.extend import operand

__all__ = ["ContinuousBernoulli", "GeneralizedPareto", "Kumaraswamy", "VonMises"]


class ContinuousBernoulli(ByProbability):
    """Of a density on [0, 1] in proportion to probs**x (1 - probs)**(1 - x) (G. Loaiza-Ganem, J. P. Cunningham, The continuous Bernoulli, 2019).

    lims: between these the normalising constant, whose formula is 0 / 0 at 1/2, is that of its series. Raises ValueError unless exactly one of probs
    and logits is given, in its range.

    >>> round(ContinuousBernoulli(0.5).log_prob(0.3).item(), 4), round(ContinuousBernoulli(0.5).mean.item(), 4)
    (0.0, 0.5)
    """

    support = constraints.unit_interval
    has_rsample = True

    def __init__(
        self, probs: Any = None, logits: Any = None, lims: tuple[float, float] = (0.499, 0.501), validate_args: bool | None = None
    ):  # fmt: skip
        super().__init__(probs, logits, validate_args)
        self._lims = lims

    def _parts(self) -> tuple[md.Tensor, md.Tensor, md.Tensor, md.Tensor]:
        """The probability, whether the formulas hold for it, it where they do, and the logarithm of its odds there."""
        p = clamped(self.probs)
        outside = (p <= self._lims[0]) | (p > self._lims[1])
        cut = md.where(outside, p, self._lims[0])
        return p, outside, cut, md.log1p(-cut) - md.log(cut)

    def _log_norm(self) -> md.Tensor:
        p, outside, cut, odds = self._parts()
        low = cut <= 0.5
        far = md.log(md.abs(odds)) - md.where(low, md.log1p(-2 * md.where(low, cut, 0.0)), md.log(2 * md.where(low, 1.0, cut) - 1))
        x = md.square(p - 0.5)
        return md.where(outside, far, math.log(2) + (4 / 3 + 104 / 45 * x) * x)

    @property
    def mean(self) -> md.Tensor:
        p, outside, cut, odds = self._parts()
        x = p - 0.5
        return md.where(outside, cut / (2 * cut - 1) + 1 / odds, 0.5 + (1 / 3 + 16 / 45 * md.square(x)) * x)

    @property
    def variance(self) -> md.Tensor:
        p, outside, cut, odds = self._parts()
        x = md.square(p - 0.5)
        return md.where(outside, cut * (cut - 1) / md.square(1 - 2 * cut) + 1 / md.square(odds), 1 / 12 - (1 / 15 - 128 / 945 * x) * x)

    def _draw(self, key: md.Tensor, shape: tuple[int, ...]) -> md.Tensor:
        return self.icdf(self._uniform(key, shape).to(self._like.dtype))

    def log_prob(self, value: Any) -> md.Tensor:
        x = self._value(value)
        return self._log_norm() - self._crossed(x, 1 - x)

    def cdf(self, value: Any) -> md.Tensor:
        x = self._value(value)
        _, outside, cut, _ = self._parts()
        inner = md.clip(x, 0.0, 1.0)
        far = (md.pow(cut, inner) * md.pow(1 - cut, 1 - inner) + cut - 1) / (2 * cut - 1)
        return md.where(x <= 0, 0.0, md.where(x >= 1, 1.0, md.where(outside, far, x)))

    def icdf(self, value: Any) -> md.Tensor:
        x = operand(value, self._like)
        _, outside, cut, odds = self._parts()
        return md.where(outside, (md.log1p(-cut) - md.log1p(x * (2 * cut - 1) - cut)) / odds, x)

    def entropy(self) -> md.Tensor:
        p = self._parts()[0]
        none, one = md.log1p(-p), md.log(p)
        return self.mean * (none - one) - self._log_norm() - none


class Kumaraswamy(Distribution):
    """Of the cdf 1 - (1 - x**concentration1)**concentration0 on [0, 1]. Raises ValueError for parameters that are not positive.

    >>> round(Kumaraswamy(2.0, 3.0).cdf(0.5).item(), 4)
    0.5781
    """

    arg_constraints: ClassVar = {"concentration1": constraints.positive, "concentration0": constraints.positive}
    support = constraints.unit_interval
    has_rsample = True
    concentration1: md.Tensor
    concentration0: md.Tensor

    def __init__(self, concentration1: Any, concentration0: Any, validate_args: bool | None = None):
        self._set(validate_args, concentration1=concentration1, concentration0=concentration0)

    def _moment(self, n: int) -> md.Tensor:
        a, b = 1 + n / self.concentration1, self.concentration0
        return b * md.exp(md.lgamma(a) + md.lgamma(b) - md.lgamma(a + b))

    @property
    def mean(self) -> md.Tensor:
        return self._moment(1)

    @property
    def mode(self) -> md.Tensor:
        a, b = self.concentration1, self.concentration0
        inner = (a >= 1) & (b >= 1) & (a * b > 1)
        ratio = (a - 1) / md.where(inner, a * b - 1, 1.0)
        return md.where(inner, md.pow(md.where(inner, ratio, 1.0), 1 / a), md.nan)

    @property
    def variance(self) -> md.Tensor:
        return self._moment(2) - md.square(self.mean)

    def _draw(self, key: md.Tensor, shape: tuple[int, ...]) -> md.Tensor:
        dtype = self.concentration1.dtype
        return self.icdf(md.random.uniform(key, shape, dtype, minval=float(md.finfo(dtype).smallest_normal)))

    def log_prob(self, value: Any) -> md.Tensor:
        x, a, b = self._value(value), self.concentration1, self.concentration0
        inner, far = self._far(x)
        return md.log(a) + md.log(b) + md.xlogy(a - 1, x) + md.where(inner, (b - 1) * far, md.xlogy(b - 1, md.where(inner, 1.0, 1 - x)))

    def _far(self, x: md.Tensor) -> tuple[md.Tensor, md.Tensor]:
        """Where x is not at the upper end, and log(1 - x**concentration1) there: at the end it is infinite, and slopes would be nan."""
        power = md.pow(x, self.concentration1)
        return power < 1, md.log1p(-md.where(power < 1, power, 0.0))

    def cdf(self, value: Any) -> md.Tensor:
        inner, far = self._far(self._value(value))
        return md.where(inner, -md.expm1(self.concentration0 * far), 1.0)

    def icdf(self, value: Any) -> md.Tensor:
        x, b = operand(value, self.concentration1), self.concentration0
        inner = x < 1  # the logarithm at 1 is infinite, and the slope by b would be nan
        part = -md.expm1(md.log1p(-md.where(inner, x, 0.0)) / b)
        return md.pow(md.where(inner, part, 1 - md.pow(1 - md.where(inner, 0.0, x), 1 / b)), 1 / self.concentration1)

    def entropy(self) -> md.Tensor:
        a, b = self.concentration1, self.concentration0
        return 1 - 1 / b + (1 - 1 / a) * (md.digamma(b + 1) + EULER) - md.log(a) - md.log(b)


class VonMises(Distribution):
    """An angle between -pi and pi, of a density in proportion to exp(concentration cos(x - loc)). The variance is that of directions, 1 - E cos.

    Draws are those of D. J. Best and N. I. Fisher, Efficient simulation of the von Mises distribution, Applied Statistics 28, 1979. Raises ValueError
    for a concentration that is not positive.

    >>> d = VonMises(0.0, 1.0)
    >>> d.mean.item(), round(d.log_prob(0.0).item(), 4)
    (0.0, -1.0738)
    """

    arg_constraints: ClassVar = {"loc": constraints.real, "concentration": constraints.positive}
    support = constraints.real
    loc: md.Tensor
    concentration: md.Tensor

    def __init__(self, loc: Any, concentration: Any, validate_args: bool | None = None):
        self._set(validate_args, loc=loc, concentration=concentration)

    @property
    def mean(self) -> md.Tensor:
        return self.loc

    @property
    def mode(self) -> md.Tensor:
        return self.loc

    @property
    def variance(self) -> md.Tensor:
        return 1 - md.special.i1e(self.concentration) / md.special.i0e(self.concentration)

    def _draw(self, key: md.Tensor, shape: tuple[int, ...]) -> md.Tensor:
        loc, k = (md.broadcast_to(md.stop_gradient(x).to(md.float64), shape) for x in (self.loc, self.concentration))
        k = md.where(k >= 0, md.maximum(k, 1e-30), md.nan)
        few, many = k < 1e-5, ~(k < 1e12)  # far up, and for nan, nothing would be accepted; a normal number differs by less than rounding there
        normal = md.random.normal(md.random.fold_in(key, 2**31 - 1), shape, md.float64) / md.sqrt(k)
        tau = 1 + md.sqrt(1 + 4 * md.square(k))
        rho = (tau - md.sqrt(2 * tau)) / (2 * md.where(few, 1.0, k))
        r = md.where(few, 1 / k + k, (1 + md.square(rho)) / (2 * md.where(few, 1.0, rho)))

        def step(carry: Any) -> Any:
            i, done, x = carry
            first, second, third = (md.random.uniform(md.random.fold_in(key, 3 * i + j), shape, md.float64, 1e-300) for j in range(3))
            z = md.cos(math.pi * first)
            f = (1 + r * z) / (r + z)
            c = k * (r - f)
            accepted = (c * (2 - c) - second > 0) | (md.log(c / second) + 1 - c >= 0)
            angle = md.sign(third - 0.5) * md.acos(md.clip(f, -1.0, 1.0))
            return i + 1, done | accepted, md.where(done, x, angle)

        start = (md.sum(md.zeros_like(k).to(md.int64)), many, md.where(many, normal, 0.0))
        x = md.while_loop(lambda carry: md.any(~carry[1]), step, start)[2]
        return (md.remainder(x + math.pi + loc, 2 * math.pi) - math.pi).to(self.loc.dtype)

    def log_prob(self, value: Any) -> md.Tensor:
        k = self.concentration
        return k * (md.cos(self._value(value) - self.loc) - 1) - math.log(2 * math.pi) - md.log(md.special.i0e(k))


class GeneralizedPareto(Distribution):
    """Excesses over loc: of the density (1 + concentration z)**(-1 - 1 / concentration) / scale with z = (x - loc) / scale, exp(-z) / scale for a
    concentration of 0. Raises ValueError for a scale that is not positive.

    >>> GeneralizedPareto(0.0, 1.0, 0.5).mean.item(), round(GeneralizedPareto(0.0, 1.0, 0.0).cdf(1.0).item(), 4)
    (2.0, 0.6321)
    """

    arg_constraints: ClassVar = {"loc": constraints.real, "scale": constraints.positive, "concentration": constraints.real}
    has_rsample = True
    loc: md.Tensor
    scale: md.Tensor
    concentration: md.Tensor

    def __init__(self, loc: Any, scale: Any, concentration: Any, validate_args: bool | None = None):
        self._set(validate_args, loc=loc, scale=scale, concentration=concentration)

    def _curved(self) -> tuple[md.Tensor, md.Tensor]:
        """Whether the concentration is other than 0, and it where it is."""
        curved = md.abs(self.concentration) > 1e-8
        return curved, md.where(curved, self.concentration, 1.0)

    @property
    def mean(self) -> md.Tensor:
        c = self.concentration
        return md.where(c < 1, self.loc + self.scale / (1 - md.where(c < 1, c, 0.0)), math.inf)

    @property
    def mode(self) -> md.Tensor:
        return self.loc

    @property
    def variance(self) -> md.Tensor:
        c = md.where(self.concentration < 0.5, self.concentration, 0.0)
        return md.where(self.concentration < 0.5, md.square(self.scale / (1 - c)) / (1 - 2 * c), math.inf)

    def _draw(self, key: md.Tensor, shape: tuple[int, ...]) -> md.Tensor:
        return self.icdf(md.random.uniform(key, shape, self.loc.dtype))

    def _place(self, value: Any) -> tuple[md.Tensor, md.Tensor, md.Tensor]:
        """z, where it lies in the support, and log(1 + concentration z) / concentration."""
        z = (self._value(value) - self.loc) / self.scale
        curved, c = self._curved()
        inside = (z >= 0) & (1 + self.concentration * z > 0)
        z = md.where(inside, z, 0.0)
        return z, inside, md.where(curved, md.log1p(c * z) / c, z - 0.5 * self.concentration * z * z)

    def log_prob(self, value: Any) -> md.Tensor:
        _, inside, far = self._place(value)
        return md.where(inside, -(1 + self.concentration) * far - md.log(self.scale), -math.inf)

    def cdf(self, value: Any) -> md.Tensor:
        x = self._value(value)
        _, inside, far = self._place(x)
        return md.where(inside, -md.expm1(-far), (x > self.loc).to(x.dtype))

    def icdf(self, value: Any) -> md.Tensor:
        curved, c = self._curved()
        rest = md.log1p(-operand(value, self.loc))
        return self.loc + self.scale * md.where(curved, md.expm1(-c * rest) / c, 0.5 * self.concentration * rest * rest - rest)

    def entropy(self) -> md.Tensor:
        return md.log(self.scale) + self.concentration + 1
