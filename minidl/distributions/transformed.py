"""`TransformedDistribution`, and LogNormal, which is one."""

from __future__ import annotations

from typing import Any, ClassVar

import minidl as md
from minidl.distributions import constraints
from minidl.distributions.base import Distribution, Shape, sum_rightmost
from minidl.distributions.independent import Independent
from minidl.distributions.location_scale import Normal
from minidl.distributions.transforms import ComposeTransform, ExpTransform, Transform
from minidl.extend import operand, size_tuple

__all__ = ["LogNormal", "TransformedDistribution"]


class TransformedDistribution(Distribution):
    """The distribution of transforms, applied one after the other, to a number of base_distribution. Its density is that of what comes back through
    them, less the logarithms of their Jacobians.

    Raises TypeError for what is no Transform, ValueError for one of more axes than the base has.

    >>> d = TransformedDistribution(Normal(0.0, 1.0), [md.distributions.AffineTransform(1.0, 2.0), ExpTransform()])
    >>> round(d.log_prob(1.0).item(), 4), round(LogNormal(1.0, 2.0).log_prob(1.0).item(), 4)
    (-1.7371, -1.7371)
    """

    def __init__(self, base_distribution: Distribution, transforms: Transform | list[Transform], validate_args: bool | None = None):
        self.transforms = [transforms] if isinstance(transforms, Transform) else list(transforms)
        if wrong := [t for t in self.transforms if not isinstance(t, Transform)]:
            raise TypeError(f"TransformedDistribution: a Transform is wanted, got {wrong[0]!r}")
        base = base_distribution
        shape = base.batch_shape + base.event_shape
        self._whole = ComposeTransform(self.transforms)
        events, n = self._whole.event_dim, len(base.event_shape)
        made = self._whole.forward_shape(shape)
        shape = self._whole.inverse_shape(made)  # a transform with parameters of its own broadcasts
        if len(shape) < events:
            raise ValueError(f"TransformedDistribution: a transform of {events} axes, and {base} has shape {shape}")
        base = base.expand(shape[: len(shape) - n]) if shape != base.batch_shape + base.event_shape else base
        if events > n:
            base = Independent(base, events - n)
        n = len(base.event_shape) + self._whole.out_dim - events
        super().__init__(made[: len(made) - n], made[len(made) - n :], validate_args)
        self.base_dist = base

    @property
    def has_rsample(self) -> bool:  # type: ignore[override]
        return self.base_dist.has_rsample

    @property
    def _like(self) -> md.Tensor:
        return self.base_dist._like

    def sample(self, sample_shape: Shape = (), *, key: md.Tensor | None = None) -> md.Tensor:
        with md.no_grad():
            return self._whole(self.base_dist.sample(sample_shape, key=key))

    def rsample(self, sample_shape: Shape = (), *, key: md.Tensor | None = None) -> md.Tensor:
        return self._whole(self.base_dist.rsample(sample_shape, key=key))

    def log_prob(self, value: Any) -> md.Tensor:
        y, n, less = self._value(value), len(self.event_shape), None
        for t in reversed(self.transforms):
            x = t._inv_call(y)
            n += t.event_dim - t.out_dim
            part = sum_rightmost(t.log_abs_det_jacobian(x, y), n - t.event_dim)
            less, y = part if less is None else less + part, x
        out = self.base_dist.log_prob(y)
        return out if less is None else out - less

    def _monotone(self, what: str) -> Any:
        if any(t.event_dim for t in self.transforms) or self.event_shape:
            raise NotImplementedError(f"{type(self).__name__}: no {what} in closed form: events have axes")
        return self._whole.sign

    def cdf(self, value: Any) -> md.Tensor:
        sign = self._monotone("cdf")
        return sign * (self.base_dist.cdf(self._whole._inv_call(self._value(value))) - 0.5) + 0.5

    def icdf(self, value: Any) -> md.Tensor:
        sign = self._monotone("icdf")
        return self._whole(self.base_dist.icdf(sign * (operand(value, self._like) - 0.5) + 0.5))

    def expand(self, batch_shape: Shape) -> Any:
        shape = size_tuple(type(self).__name__, batch_shape)
        return TransformedDistribution(self.base_dist.expand(shape), self.transforms, self._validate_args)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.base_dist}, {self.transforms})"


class LogNormal(TransformedDistribution):
    """exp of a normal number of mean loc and standard deviation scale. Raises ValueError for a scale that is not positive.

    >>> round(LogNormal(0.0, 1.0).mean.item(), 4)
    1.6487
    """

    arg_constraints: ClassVar = Normal.arg_constraints
    support = constraints.positive
    base_dist: Normal

    def __init__(self, loc: Any, scale: Any, validate_args: bool | None = None):
        super().__init__(Normal(loc, scale, validate_args), ExpTransform(), validate_args)

    @property
    def loc(self) -> md.Tensor:
        """The mean of the logarithm."""
        return self.base_dist.loc

    @property
    def scale(self) -> md.Tensor:
        """The standard deviation of the logarithm."""
        return self.base_dist.scale

    @property
    def mean(self) -> md.Tensor:
        return md.exp(self.loc + md.square(self.scale) / 2)

    @property
    def mode(self) -> md.Tensor:
        return md.exp(self.loc - md.square(self.scale))

    @property
    def variance(self) -> md.Tensor:
        squared = md.square(self.scale)
        return md.expm1(squared) * md.exp(2 * self.loc + squared)

    def entropy(self) -> md.Tensor:
        return self.base_dist.entropy() + self.loc

    def expand(self, batch_shape: Shape) -> LogNormal:
        base = self.base_dist.expand(batch_shape)
        return LogNormal(base.loc, base.scale, self._validate_args)
