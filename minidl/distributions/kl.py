"""`kl_divergence`: a table of closed forms by pairs of classes, to which `register_kl` adds."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import minidl as md
from minidl.distributions.base import EULER, Distribution, sum_rightmost
from minidl.distributions.bounded import ContinuousBernoulli
from minidl.distributions.categorical import Categorical, OneHotCategorical
from minidl.distributions.continuous import Beta, Dirichlet, Exponential, Gamma, HalfNormal, Uniform
from minidl.distributions.discrete import Bernoulli, Binomial, Geometric, Poisson
from minidl.distributions.independent import Independent
from minidl.distributions.location_scale import Cauchy, Gumbel, Laplace, Normal
from minidl.distributions.multivariate import MultivariateNormal, log_det, solved
from minidl.distributions.transformed import LogNormal, TransformedDistribution
from minidl.distributions.transforms import ExpTransform, SigmoidTransform, TanhTransform

__all__ = ["kl_divergence", "register_kl"]

_TABLE: dict[tuple[type, type], Callable[[Any, Any], md.Tensor]] = {}


def register_kl(type_p: type[Distribution], type_q: type[Distribution]) -> Callable[[Any], Any]:
    """A decorator that makes a function of two distributions the divergence of these classes and, where they have none nearer, of their subclasses.

    >>> class Mine(Normal):
    ...     pass
    >>> @register_kl(Mine, Mine)
    ... def _(p, q):
    ...     return md.zeros(())
    >>> kl_divergence(Mine(0.0, 1.0), Mine(1.0, 1.0)).item(), kl_divergence(Mine(0.0, 1.0), Normal(1.0, 1.0)).item()
    (0.0, 0.5)
    """

    def keep(function: Any) -> Any:
        _TABLE[type_p, type_q] = function
        return function

    return keep


def kl_divergence(p: Distribution, q: Distribution) -> md.Tensor:
    """The mean under p of log p - log q, [*batch_shape]; differentiable in the parameters of both. inf where p has events that q has not.

    Raises NotImplementedError for a pair of classes without a closed form here.

    >>> kl_divergence(Normal(0.0, 1.0), Normal(1.0, 1.0)).item()
    0.5
    """
    pairs = ((a, b) for a in type(p).__mro__ for b in type(q).__mro__ if (a, b) in _TABLE)
    nearest = min(pairs, key=lambda ab: type(p).__mro__.index(ab[0]) + type(q).__mro__.index(ab[1]), default=None)
    if nearest is None:
        raise NotImplementedError(f"kl_divergence: no closed form of {type(p).__name__} from {type(q).__name__}; register_kl adds one")
    return _TABLE[nearest](p, q)


@register_kl(Normal, Normal)
def _normal(p: Normal, q: Normal) -> md.Tensor:
    ratio = md.square(p.scale / q.scale)
    return 0.5 * (ratio + md.square((p.loc - q.loc) / q.scale) - 1 - md.log(ratio))


@register_kl(Laplace, Laplace)
def _laplace(p: Laplace, q: Laplace) -> md.Tensor:
    ratio, far = p.scale / q.scale, md.abs(p.loc - q.loc)
    return far / q.scale + ratio * md.exp(-far / p.scale) - 1 - md.log(ratio)


@register_kl(Cauchy, Cauchy)
def _cauchy(p: Cauchy, q: Cauchy) -> md.Tensor:
    return md.log(md.square(p.scale + q.scale) + md.square(p.loc - q.loc)) - md.log(4 * p.scale * q.scale)


@register_kl(Gumbel, Gumbel)
def _gumbel(p: Gumbel, q: Gumbel) -> md.Tensor:
    ratio, far = p.scale / q.scale, (q.loc - p.loc) / q.scale
    return ratio * EULER - md.log(ratio) - far + md.exp(far + md.lgamma(1 + ratio)) - (1 + EULER)


def _never(p: md.Tensor, q: md.Tensor, term: md.Tensor) -> md.Tensor:
    """p * log(p/q) given that term: 0 where p is 0, else inf where q is 0."""
    return md.where(p == 0, 0.0, md.where(q == 0, math.inf, term))


@register_kl(Bernoulli, Bernoulli)
def _bernoulli(p: Bernoulli, q: Bernoulli) -> md.Tensor:
    a, b = p.probs, q.probs
    hit = _never(a, b, a * (md.softplus(-q.logits) - md.softplus(-p.logits)))
    return hit + _never(1 - a, 1 - b, (1 - a) * (md.softplus(q.logits) - md.softplus(p.logits)))


@register_kl(Binomial, Binomial)
def _binomial(p: Binomial, q: Binomial) -> md.Tensor:
    counts = md.extend.seen(p.total_count, q.total_count)
    if counts is not None and (counts[0] < counts[1]).any():
        raise NotImplementedError("kl_divergence: no closed form of a Binomial from one of a larger total_count")
    return md.where(p.total_count > q.total_count, math.inf, p.total_count * _bernoulli(p, q))  # type: ignore[arg-type]


@register_kl(Geometric, Geometric)
def _geometric(p: Geometric, q: Geometric) -> md.Tensor:
    return -p.entropy() - md.log1p(-q.probs) / p.probs - q.logits


@register_kl(Poisson, Poisson)
def _poisson(p: Poisson, q: Poisson) -> md.Tensor:
    return md.xlogy(p.rate, p.rate) - md.xlogy(p.rate, q.rate) - (p.rate - q.rate)


@register_kl(OneHotCategorical, OneHotCategorical)
@register_kl(Categorical, Categorical)
def _categorical(p: Categorical, q: Categorical) -> md.Tensor:
    a, b = p.probs, q.probs
    return md.sum(_never(a, b, a * (p.logits - q.logits)), axis=-1)


@register_kl(Independent, Independent)
def _independent(p: Independent, q: Independent) -> md.Tensor:
    n = p.reinterpreted_batch_ndims
    if n != q.reinterpreted_batch_ndims:
        raise NotImplementedError(f"kl_divergence: Independent of {n} from one of {q.reinterpreted_batch_ndims} axes")
    return sum_rightmost(kl_divergence(p.base_dist, q.base_dist), n)


@register_kl(Uniform, Uniform)
def _uniform(p: Uniform, q: Uniform) -> md.Tensor:
    return md.where((q.low > p.low) | (q.high < p.high), math.inf, md.log((q.high - q.low) / (p.high - p.low)))


@register_kl(Exponential, Exponential)
def _exponential(p: Exponential, q: Exponential) -> md.Tensor:
    ratio = q.rate / p.rate
    return ratio - 1 - md.log(ratio)


@register_kl(HalfNormal, HalfNormal)
def _half_normal(p: HalfNormal, q: HalfNormal) -> md.Tensor:
    ratio = md.square(p.scale / q.scale)
    return 0.5 * (ratio - 1 - md.log(ratio))


@register_kl(LogNormal, LogNormal)
def _log_normal(p: LogNormal, q: LogNormal) -> md.Tensor:
    return _normal(p.base_dist, q.base_dist)


@register_kl(TransformedDistribution, TransformedDistribution)
def _transformed(p: TransformedDistribution, q: TransformedDistribution) -> md.Tensor:
    fixed = (ExpTransform, SigmoidTransform, TanhTransform)  # those that have no parameters
    alike = [a is b or (type(a) is type(b) and type(a) in fixed) for a, b in zip(p.transforms, q.transforms, strict=False)]
    if len(p.transforms) != len(q.transforms) or not all(alike) or p.event_shape != q.event_shape:
        raise NotImplementedError(f"kl_divergence: no closed form of {p} from {q}, whose transforms are not the same")
    return kl_divergence(p.base_dist, q.base_dist)


@register_kl(Gamma, Gamma)
def _gamma(p: Gamma, q: Gamma) -> md.Tensor:
    a, b = p.concentration, q.concentration
    scales = b * md.log(p.rate / q.rate) + (q.rate - p.rate) * (a / p.rate)
    return scales + md.lgamma(b) - md.lgamma(a) + (a - b) * md.digamma(a)


@register_kl(Beta, Beta)
def _beta(p: Beta, q: Beta) -> md.Tensor:
    a1, a0, b1, b0 = p.concentration1, p.concentration0, q.concentration1, q.concentration0
    return q._log_norm() - p._log_norm() + (a1 - b1) * md.digamma(a1) + (a0 - b0) * md.digamma(a0) + (b1 + b0 - a1 - a0) * md.digamma(a1 + a0)


@register_kl(Dirichlet, Dirichlet)
def _dirichlet(p: Dirichlet, q: Dirichlet) -> md.Tensor:
    a, b = p.concentration, q.concentration
    return q._log_norm() - p._log_norm() + md.sum((a - b) * (md.digamma(a) - md.digamma(p._total)), axis=-1)


@register_kl(MultivariateNormal, MultivariateNormal)
def _multivariate(p: MultivariateNormal, q: MultivariateNormal) -> md.Tensor:
    if p.event_shape != q.event_shape:
        raise ValueError(f"kl_divergence: events of shape {p.event_shape} and {q.event_shape}")
    spread = md.linalg.triangular_solve(*(md.broadcast_to(x, md.broadcast_shapes(p._tril.shape, q._tril.shape)) for x in (q._tril, p._tril)))
    distance = md.sum(md.square(solved(q._tril, q.loc - p.loc)), axis=-1)
    return log_det(q._tril) - log_det(p._tril) + 0.5 * (md.sum(md.square(spread), axis=(-2, -1)) + distance - p.event_shape[0])


@register_kl(Normal, Laplace)
def _normal_laplace(p: Normal, q: Laplace) -> md.Tensor:
    away, ratio = (p.loc - q.loc) / p.scale, p.scale / q.scale
    mean_distance = math.sqrt(2 / math.pi) * md.exp(-0.5 * md.square(away)) + away * md.erf(math.sqrt(0.5) * away)
    return ratio * mean_distance - md.log(ratio) - 0.5 * (1 + math.log(math.pi / 2))


@register_kl(Laplace, Normal)
def _laplace_normal(p: Laplace, q: Normal) -> md.Tensor:
    ratio = md.square(p.scale / q.scale)
    return ratio + 0.5 * md.square((p.loc - q.loc) / q.scale) - 0.5 * md.log(2 / math.pi * ratio) - 1


@register_kl(Uniform, Normal)
def _uniform_normal(p: Uniform, q: Normal) -> md.Tensor:
    width, middle = p.high - p.low, (p.high + p.low) / 2
    spread = (md.square(width) / 12 + md.square(middle - q.loc)) / md.square(q.scale)
    return md.log(math.sqrt(2 * math.pi) * q.scale / width) + 0.5 * spread


@register_kl(ContinuousBernoulli, ContinuousBernoulli)
def _continuous_bernoulli(p: ContinuousBernoulli, q: ContinuousBernoulli) -> md.Tensor:
    return p.mean * (p.logits - q.logits) + p.log_prob(0.0) - q.log_prob(0.0)


@register_kl(ContinuousBernoulli, Exponential)
def _continuous_bernoulli_exponential(p: ContinuousBernoulli, q: Exponential) -> md.Tensor:
    return q.rate * p.mean - md.log(q.rate) - p.entropy()


@register_kl(ContinuousBernoulli, Normal)
def _continuous_bernoulli_normal(p: ContinuousBernoulli, q: Normal) -> md.Tensor:
    spread = (p.variance + md.square(p.mean - q.loc)) / md.square(q.scale)
    return 0.5 * spread + md.log(math.sqrt(2 * math.pi) * q.scale) - p.entropy()


@register_kl(ContinuousBernoulli, Uniform)
def _continuous_bernoulli_uniform(p: ContinuousBernoulli, q: Uniform) -> md.Tensor:
    return md.where((q.low <= 0) & (q.high >= 1), md.log(q.high - q.low) - p.entropy(), math.inf)
