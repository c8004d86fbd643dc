"""Distributions of counts: Bernoulli, Binomial, Geometric, NegativeBinomial (by probs or logits) and Poisson."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

import minidl as md
from minidl.distributions import constraints
from minidl.distributions.base import Distribution, clamped

__all__ = ["Bernoulli", "Binomial", "Geometric", "NegativeBinomial", "Poisson"]


def one_of(name: str, **given: Any) -> dict[str, Any]:
    """The one parameter that was given. Raises ValueError for none or several."""
    kept = {n: x for n, x in given.items() if x is not None}
    if len(kept) != 1:
        raise ValueError(f"{name}: exactly one of {', '.join(given)} is wanted, got {', '.join(kept) or 'none'}")
    return kept


class ByProbability(Distribution):
    """A distribution given by the probability of success or its logit; the other follows from it."""

    arg_constraints: ClassVar = {"total_count": constraints.count, "probs": constraints.unit_interval, "logits": constraints.real}

    def __init__(self, probs: Any = None, logits: Any = None, validate_args: bool | None = None):
        self._set(validate_args, **one_of(type(self).__name__, probs=probs, logits=logits))

    @property
    def probs(self) -> md.Tensor:
        return self._probs if "probs" in self._parameters else md.sigmoid(self._logits)

    @probs.setter
    def probs(self, value: md.Tensor) -> None:
        self._probs = value

    @property
    def logits(self) -> md.Tensor:
        if "logits" in self._parameters:
            return self._logits
        p = clamped(self._probs)
        return md.log(p) - md.log1p(-p)

    @logits.setter
    def logits(self, value: md.Tensor) -> None:
        self._logits = value

    def _coin_entropy(self) -> md.Tensor:
        return self._crossed(self.probs, self._misses)

    @property
    def _misses(self) -> md.Tensor:
        return 1 - self._probs if "probs" in self._parameters else md.sigmoid(-self._logits)

    def _crossed(self, hits: md.Tensor, misses: md.Tensor) -> md.Tensor:
        """-log of the probability of so many hits and misses in one order: a sum of two terms of one sign, so that no digits cancel."""
        return hits * md.softplus(-self.logits) + misses * md.softplus(self.logits)

    def _uniform(self, key: md.Tensor, shape: tuple[int, ...]) -> md.Tensor:
        dtype = md.float64 if self._like.dtype is md.float64 else md.float32  # half floats have few numbers near 0
        return md.random.uniform(key, shape, dtype, minval=float(md.finfo(md.float32).smallest_normal), maxval=1.0)


class Bernoulli(ByProbability):
    """1 with probability probs (or sigmoid(logits)), else 0, as floats. Raises ValueError unless exactly one of the two is given, in its range.

    >>> d = Bernoulli(0.25)
    >>> d.mean.item(), round(d.log_prob(1.0).exp().item(), 6), Bernoulli(logits=0.0).probs.item()
    (0.25, 0.25, 0.5)
    """

    support = constraints.boolean
    has_enumerate_support = True

    @property
    def mean(self) -> md.Tensor:
        return self.probs

    @property
    def mode(self) -> md.Tensor:
        p = self.probs
        return md.where(p == 0.5, md.nan, (p >= 0.5).to(p.dtype))

    @property
    def variance(self) -> md.Tensor:
        return self.probs * (1 - self.probs)

    def _draw(self, key: md.Tensor, shape: tuple[int, ...]) -> md.Tensor:
        p = md.stop_gradient(self.probs)
        return md.random.bernoulli(key, p, shape).to(p.dtype)

    def log_prob(self, value: Any) -> md.Tensor:
        x = self._value(value)
        return -self._crossed(x, 1 - x)

    def entropy(self) -> md.Tensor:
        return self._coin_entropy()

    def enumerate_support(self, expand: bool = True) -> md.Tensor:
        return counted(self, 2, expand)


def counted(d: Distribution, n: int, expand: bool) -> md.Tensor:
    """0 to n - 1 along a new first axis."""
    values = range_of(d, n, d._like.dtype).reshape((n,) + (1,) * len(d.batch_shape))
    return md.broadcast_to(values, (n, *d.batch_shape)) if expand else values


def range_of(d: Distribution, n: int, dtype: md.DType) -> md.Tensor:
    """0 to n - 1, where the parameters are."""
    return md.extend.from_numpy(np.arange(n), md.extend.home(d._like)).to(dtype)


class Geometric(ByProbability):
    """How many failures come before the first success, of probability probs (or sigmoid(logits)). Raises ValueError unless exactly one of the two is
    given, in its range (probs above 0).

    >>> Geometric(0.25).mean.item()
    3.0
    """

    arg_constraints: ClassVar = {"probs": constraints.Constraint("above 0, at most 1", lambda x: (x > 0) & (x <= 1)), "logits": constraints.real}
    support = constraints.count

    @property
    def mean(self) -> md.Tensor:
        return 1 / self.probs - 1

    @property
    def mode(self) -> md.Tensor:
        return md.zeros_like(self._like)

    @property
    def variance(self) -> md.Tensor:
        return (1 / self.probs - 1) / self.probs

    def _draw(self, key: md.Tensor, shape: tuple[int, ...]) -> md.Tensor:
        u = self._uniform(key, shape)
        return md.floor(md.log(u) / md.log1p(-md.stop_gradient(self.probs).to(u.dtype))).to(self._like.dtype)

    def log_prob(self, value: Any) -> md.Tensor:
        k, p = self._value(value), self.probs
        return md.where(k == 0, 0.0, k * md.log1p(-md.where(k == 0, 0.0, p))) + md.log(p)

    def entropy(self) -> md.Tensor:
        return self._coin_entropy() / self.probs


class Binomial(ByProbability):
    """How many of total_count trials succeed, each with probability probs (or sigmoid(logits)), as floats.

    Draws halve the count by the rank of a beta number until nothing is left, which is exact and takes log2(total_count) steps (D. A. Relles, A simple
    algorithm for generating binomial random variables when N is large, JASA 67, 1972). Raises ValueError unless exactly one of probs and logits is
    given, and for a total_count that is no count; `enumerate_support` and `entropy` want one count for the whole batch, whose value can be looked at.

    >>> d = Binomial(4, 0.5)
    >>> d.mean.item(), d.mode.item(), round(d.log_prob(2.0).exp().item(), 6)
    (2.0, 2.0, 0.375)
    """

    has_enumerate_support = True
    total_count: md.Tensor

    def __init__(self, total_count: Any = 1, probs: Any = None, logits: Any = None, validate_args: bool | None = None):
        self._set(validate_args, **one_of("Binomial", probs=probs, logits=logits), total_count=total_count)

    @property
    def support(self) -> Any:  # type: ignore[override]
        most = md.extend.seen(self.total_count)
        if most is None:
            return constraints.count
        return constraints.Constraint("an integer from 0 to total_count", lambda x: (x >= 0) & (x <= most[0]) & (x % 1 == 0))

    @property
    def mean(self) -> md.Tensor:
        return self.total_count * self.probs

    @property
    def mode(self) -> md.Tensor:
        return md.minimum(md.floor((self.total_count + 1) * self.probs), self.total_count)

    @property
    def variance(self) -> md.Tensor:
        return self.total_count * self.probs * (1 - self.probs)

    def _draw(self, key: md.Tensor, shape: tuple[int, ...]) -> md.Tensor:
        n, p = (md.broadcast_to(md.stop_gradient(x).to(md.float64), shape) for x in (self.total_count, self.probs))

        def step(carry: Any) -> Any:
            i, n, p, k = carry
            active = n > 0
            a = 1 + md.floor(n / 2)
            b = md.where(active, n + 1 - a, 1.0)
            x = md.random.beta(md.random.fold_in(key, i), a, b, dtype=md.float64)
            above = x >= p
            p = md.where(above, p / md.where(above, x, 1.0), (p - x) / md.where(above, 1.0, 1 - x))
            k = md.where(active & ~above, k + a, k)
            return i + 1, md.where(active, md.where(above, a - 1, b - 1), 0.0), md.clip(p, 0.0, 1.0), k

        i = md.sum(md.zeros_like(n).to(md.int64))
        drawn = md.while_loop(lambda carry: md.any(carry[1] > 0), step, (i, n, p, md.zeros_like(n)))[3]
        return drawn.to(self._like.dtype)

    def log_prob(self, value: Any) -> md.Tensor:
        k, n = self._value(value), self.total_count
        ways = md.lgamma(n + 1) - md.lgamma(k + 1) - md.lgamma(n - k + 1)
        return ways - self._crossed(k, n - k)

    def _count(self, what: str) -> int:
        n = md.extend.deciding(self.total_count, f"Binomial.{what}", "it wants a total_count outside of jit and vmap")
        if n.size and (n != n.max()).any():
            raise NotImplementedError(f"Binomial: {what} wants one total_count for the whole batch, got {int(n.min())} to {int(n.max())}")
        return int(n.max()) if n.size else 0

    def entropy(self) -> md.Tensor:
        self._count("entropy")
        logs = self.log_prob(self.enumerate_support(False))
        return -md.sum(md.exp(logs) * logs, axis=0)

    def enumerate_support(self, expand: bool = True) -> md.Tensor:
        return counted(self, self._count("enumerate_support") + 1, expand)


class NegativeBinomial(ByProbability):
    """How many trials succeed, each with probability probs (or sigmoid(logits)), before total_count, which need be no integer, have failed: a Poisson
    number whose rate has a Gamma distribution.

    Raises ValueError unless exactly one of probs and logits is given, with probs below 1, and for a negative total_count.

    >>> d = NegativeBinomial(3.0, 0.5)
    >>> d.mean.item(), d.variance.item(), round(d.log_prob(0.0).exp().item(), 6)
    (3.0, 6.0, 0.125)
    """

    arg_constraints: ClassVar = {
        "total_count": constraints.nonnegative, "probs": constraints.Constraint("at least 0, below 1", lambda x: (x >= 0) & (x < 1)),
        "logits": constraints.real,
    }  # fmt: skip
    support = constraints.count
    total_count: md.Tensor

    def __init__(self, total_count: Any, probs: Any = None, logits: Any = None, validate_args: bool | None = None):
        self._set(validate_args, **one_of("NegativeBinomial", probs=probs, logits=logits), total_count=total_count)

    @property
    def mean(self) -> md.Tensor:
        return self.total_count * md.exp(self.logits)

    @property
    def mode(self) -> md.Tensor:
        return md.maximum(md.floor((self.total_count - 1) * md.exp(self.logits)), 0.0)

    @property
    def variance(self) -> md.Tensor:
        return self.mean / md.sigmoid(-self.logits)

    def _draw(self, key: md.Tensor, shape: tuple[int, ...]) -> md.Tensor:
        n, odds = md.stop_gradient(self.total_count), md.stop_gradient(md.exp(self.logits))
        rate = md.random.gamma(md.random.fold_in(key, 0), md.where(n > 0, n, 1.0), shape, n.dtype) * odds
        return md.random.poisson(md.random.fold_in(key, 1), md.where(n > 0, rate, 0.0), shape).to(n.dtype)

    def log_prob(self, value: Any) -> md.Tensor:
        k, n = self._value(value), self.total_count
        some = n + k > 0  # of nothing 0 is sure
        ways = md.lgamma(md.where(some, n + k, 1.0)) - md.lgamma(1 + k) - md.lgamma(md.where(some, n, 1.0))
        return ways - self._crossed(k, n)


class Poisson(Distribution):
    """How many of many rare events happen, rate on average, as floats. Raises ValueError for a negative rate.

    >>> Poisson(2.0).variance.item(), round(Poisson(2.0).log_prob(0.0).item(), 6)
    (2.0, -2.0)
    """

    arg_constraints: ClassVar = {"rate": constraints.nonnegative}
    support = constraints.count
    rate: md.Tensor

    def __init__(self, rate: Any, validate_args: bool | None = None):
        self._set(validate_args, rate=rate)

    @property
    def mean(self) -> md.Tensor:
        return self.rate

    @property
    def mode(self) -> md.Tensor:
        return md.floor(self.rate)

    @property
    def variance(self) -> md.Tensor:
        return self.rate

    def _draw(self, key: md.Tensor, shape: tuple[int, ...]) -> md.Tensor:
        return md.random.poisson(key, md.stop_gradient(self.rate), shape).to(self.rate.dtype)

    def log_prob(self, value: Any) -> md.Tensor:
        k = self._value(value)
        return md.xlogy(k, self.rate) - self.rate - md.lgamma(k + 1)
