"""Distributions whose draws move with their parameters, in the place of ones of classes: RelaxedBernoulli, RelaxedOneHotCategorical;
LogisticNormal."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import minidl as md
from minidl.distributions import constraints
from minidl.distributions.base import Shape
from minidl.distributions.categorical import Classes
from minidl.distributions.discrete import ByProbability, one_of
from minidl.distributions.location_scale import Normal
from minidl.distributions.transformed import TransformedDistribution
from minidl.distributions.transforms import ExpTransform, SigmoidTransform, StickBreakingTransform
from minidl.extend import size_tuple

__all__ = ["ExpRelaxedCategorical", "LogisticNormal", "LogitRelaxedBernoulli", "RelaxedBernoulli", "RelaxedOneHotCategorical"]


class LogitRelaxedBernoulli(ByProbability):
    """The logit of a RelaxedBernoulli's draw.

    >>> round(LogitRelaxedBernoulli(0.5, logits=0.0).log_prob(0.0).exp().item(), 4)
    0.125
    """

    arg_constraints: ClassVar = {**ByProbability.arg_constraints, "temperature": constraints.positive}
    support = constraints.real
    has_rsample = True
    temperature: md.Tensor

    def __init__(self, temperature: Any, probs: Any = None, logits: Any = None, validate_args: bool | None = None):
        self._set(validate_args, **one_of(type(self).__name__, probs=probs, logits=logits), temperature=temperature)

    def _draw(self, key: md.Tensor, shape: tuple[int, ...]) -> md.Tensor:
        noise = md.random.logistic(key, shape, self._like.dtype)
        return (noise + self.logits) / self.temperature

    def log_prob(self, value: Any) -> md.Tensor:
        far = self.logits - self._value(value) * self.temperature
        return md.log(self.temperature) + far - 2 * md.softplus(far)


class _Relaxed(TransformedDistribution):
    base_dist: Any

    @property
    def temperature(self) -> md.Tensor:
        """How far draws are from ones of classes: at 0 they are such."""
        return self.base_dist.temperature  # type: ignore[no-any-return]

    @property
    def probs(self) -> md.Tensor:
        """The probabilities."""
        return self.base_dist.probs  # type: ignore[no-any-return]

    @property
    def logits(self) -> md.Tensor:
        """The logits."""
        return self.base_dist.logits  # type: ignore[no-any-return]

    def expand(self, batch_shape: Shape) -> Any:
        out = TransformedDistribution.expand(self, batch_shape)
        out.__class__ = type(self)
        return out


class RelaxedBernoulli(_Relaxed):
    """sigmoid((logits + a logistic number) / temperature), between 0 and 1 (C. J. Maddison and others, The concrete distribution, 2017).

    Raises ValueError unless exactly one of probs and logits is given, and for a temperature that is not positive.

    >>> round(RelaxedBernoulli(0.5, logits=0.0).log_prob(0.5).exp().item(), 4)
    0.5
    """

    arg_constraints: ClassVar = LogitRelaxedBernoulli.arg_constraints
    support = constraints.unit_interval

    def __init__(self, temperature: Any, probs: Any = None, logits: Any = None, validate_args: bool | None = None):
        super().__init__(LogitRelaxedBernoulli(temperature, probs, logits, validate_args), SigmoidTransform(), validate_args)


class ExpRelaxedCategorical(Classes):
    """The logarithm of a RelaxedOneHotCategorical's draw.

    >>> ExpRelaxedCategorical(1.0, logits=md.zeros(2)).event_shape
    (2,)
    """

    arg_constraints: ClassVar = {"temperature": constraints.positive, **Classes.arg_constraints}
    support = constraints.real_vector
    has_rsample, has_enumerate_support = True, False
    temperature: md.Tensor

    def __init__(self, temperature: Any, probs: Any = None, logits: Any = None, validate_args: bool | None = None):
        given = one_of(type(self).__name__, probs=probs, logits=logits)
        self._set(validate_args, temperature=temperature, **given)
        (name,) = given
        x = getattr(self, f"_{name}")
        setattr(self, name, x / md.sum(x, axis=-1, keepdims=True) if name == "probs" else md.log_softmax(x, axis=-1))

    def _draw(self, key: md.Tensor, shape: tuple[int, ...]) -> md.Tensor:
        logits = self.logits
        return md.log_softmax((logits + md.random.gumbel(key, shape, logits.dtype)) / self.temperature[..., None], axis=-1)

    def log_prob(self, value: Any) -> md.Tensor:
        n, t = self.event_shape[0], self.temperature
        score = md.log_softmax(self.logits - self._value(value) * t[..., None], axis=-1)
        return md.sum(score, axis=-1) + math.lgamma(n) + (n - 1) * md.log(t)

    def entropy(self) -> md.Tensor:
        return self._missing("entropy")  # type: ignore[no-any-return]


class RelaxedOneHotCategorical(_Relaxed):
    """softmax((logits + Gumbel numbers) / temperature) over the last axis (C. J. Maddison and others, The concrete distribution, 2017).

    Raises ValueError unless exactly one of probs and logits is given, and for a temperature that is not positive.

    >>> d = RelaxedOneHotCategorical(0.5, md.tensor([0.25, 0.75]))
    >>> d.event_shape, round(d.rsample().sum().item(), 4)
    ((2,), 1.0)
    """

    arg_constraints: ClassVar = ExpRelaxedCategorical.arg_constraints
    support = constraints.simplex

    def __init__(self, temperature: Any, probs: Any = None, logits: Any = None, validate_args: bool | None = None):
        super().__init__(ExpRelaxedCategorical(temperature, probs, logits, validate_args), ExpTransform(), validate_args)


class LogisticNormal(TransformedDistribution):
    """StickBreakingTransform of normal numbers [..., n]: vectors [..., n + 1] on the simplex. Raises ValueError for a scale that is not positive.

    >>> LogisticNormal(md.zeros(2), md.ones(2)).sample().shape
    (3,)
    """

    arg_constraints: ClassVar = Normal.arg_constraints
    support = constraints.simplex
    base_dist: Any

    def __init__(self, loc: Any, scale: Any, validate_args: bool | None = None):
        base = Normal(loc, scale, validate_args)
        super().__init__(base if base.batch_shape else base.expand((1,)), StickBreakingTransform(), validate_args)

    @property
    def loc(self) -> md.Tensor:
        """The means of the normal numbers."""
        return self.base_dist.base_dist.loc  # type: ignore[no-any-return]

    @property
    def scale(self) -> md.Tensor:
        """The standard deviations of the normal numbers."""
        return self.base_dist.base_dist.scale  # type: ignore[no-any-return]

    def expand(self, batch_shape: Shape) -> LogisticNormal:
        base = self.base_dist.base_dist.expand((*size_tuple("LogisticNormal", batch_shape), self.event_shape[0] - 1))
        return LogisticNormal(base.loc, base.scale, self._validate_args)

