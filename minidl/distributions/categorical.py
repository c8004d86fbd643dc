"""Distributions over n classes: Categorical, whose events are their numbers, OneHotCategorical, whose events are unit vectors, and Multinomial, of
how often each came."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import minidl as md
from minidl.distributions import constraints
from minidl.distributions.base import Distribution, Shape, clamped
from minidl.distributions.discrete import Binomial, one_of, range_of
from minidl.extend import describe

__all__ = ["Categorical", "Multinomial", "OneHotCategorical", "OneHotCategoricalStraightThrough"]


class Classes(Distribution):
    """The parameters of both: `probs` [..., n], which are normalised, or `logits` [..., n], of which logsumexp is taken."""

    arg_constraints: ClassVar = {"probs": constraints.weights, "logits": constraints.real_vector}
    has_enumerate_support = True

    def __init__(self, probs: Any = None, logits: Any = None, validate_args: bool | None = None):
        given = one_of(type(self).__name__, probs=probs, logits=logits)
        self._set(validate_args, **given)
        (name,) = given
        x = getattr(self, f"_{name}")
        if x.shape[-1] < 1:
            raise ValueError(f"{type(self).__name__}: {name} is {describe(x)}; at least one class is wanted")
        self._num_events = x.shape[-1]
        setattr(self, name, x / md.sum(x, axis=-1, keepdims=True) if name == "probs" else md.log_softmax(x, axis=-1))

    @property
    def probs(self) -> md.Tensor:
        """The probabilities, normalised."""
        return self._probs if "probs" in self._parameters else md.softmax(self._logits, axis=-1)

    @probs.setter
    def probs(self, value: md.Tensor) -> None:
        self._probs = value

    @property
    def logits(self) -> md.Tensor:
        """The logarithms of the probabilities."""
        return self._logits if "logits" in self._parameters else md.log(clamped(self._probs))

    @logits.setter
    def logits(self, value: md.Tensor) -> None:
        self._logits = value

    def _numbers(self, key: md.Tensor, shape: tuple[int, ...]) -> md.Tensor:
        logits = md.stop_gradient(self._logits) if "logits" in self._parameters else md.log(md.stop_gradient(self._probs))
        return md.random.categorical(key, logits, shape=shape)

    def entropy(self) -> md.Tensor:
        """The entropy in nats, [*batch_shape]; a class that never comes adds nothing."""
        logits = self.logits
        return -md.sum(md.maximum(logits, float(md.finfo(logits.dtype).min)) * self.probs, axis=-1)


def one_hot(numbers: md.Tensor, n: int, dtype: Any) -> md.Tensor:
    """Unit vectors of a float dtype."""
    return md.nn.functional.one_hot(numbers, n).to(dtype)


class Categorical(Classes):
    """The numbers 0 to n-1 with probabilities probs [..., n] (normalised) or softmax(logits [..., n]); events are int64.

    Raises ValueError unless exactly one of the two is given, in its range. Mean and variance are nan, as PyTorch's.

    >>> d = Categorical(md.tensor([1.0, 1.0, 2.0]))
    >>> d.probs.tolist(), d.mode.item(), round(d.log_prob(2).exp().item(), 6)
    ([0.25, 0.25, 0.5], 2, 0.5)
    """

    _integral = True

    def __init__(self, probs: Any = None, logits: Any = None, validate_args: bool | None = None):
        super().__init__(probs, logits, validate_args)
        self.event_shape = ()

    @property
    def support(self) -> Any:  # type: ignore[override]
        n = self._num_events
        return constraints.Constraint(f"an integer from 0 to {n - 1}", lambda x: (x >= 0) & (x < n) & (x % 1 == 0))

    @property
    def param_shape(self) -> tuple[int, ...]:
        return self._like.shape

    @property
    def mean(self) -> md.Tensor:
        return md.sum(md.zeros_like(self._like), axis=-1) + md.nan

    @property
    def variance(self) -> md.Tensor:
        return self.mean

    @property
    def mode(self) -> md.Tensor:
        return md.argmax(self._like, axis=-1)

    def _draw(self, key: md.Tensor, shape: tuple[int, ...]) -> md.Tensor:
        return self._numbers(key, shape)

    def log_prob(self, value: Any) -> md.Tensor:
        number, logits = self._value(value).to(md.int64), self.logits
        shape = md.broadcast_shapes(number.shape, self.batch_shape)
        at = md.broadcast_to(number, shape)[..., None]
        return md.take_along_axis(md.broadcast_to(logits, (*shape, self._num_events)), at, axis=-1)[..., 0]

    def enumerate_support(self, expand: bool = True) -> md.Tensor:
        n = self._num_events
        values = range_of(self, n, md.int64).reshape((n,) + (1,) * len(self.batch_shape))
        return md.broadcast_to(values, (n, *self.batch_shape)) if expand else values


class OneHotCategorical(Classes):
    """Unit vectors of n with probabilities probs [..., n] (normalised) or softmax(logits [..., n]), as floats.

    Raises ValueError unless exactly one of the two is given, in its range.

    >>> d = OneHotCategorical(md.tensor([0.0, 1.0]))
    >>> d.sample().tolist(), d.event_shape
    ([0.0, 1.0], (2,))
    """

    support = constraints.one_hot

    @property
    def mean(self) -> md.Tensor:
        return self.probs

    @property
    def mode(self) -> md.Tensor:
        return one_hot(md.argmax(self._like, axis=-1), self._num_events, self._like.dtype)

    @property
    def variance(self) -> md.Tensor:
        return self.probs * (1 - self.probs)

    def _draw(self, key: md.Tensor, shape: tuple[int, ...]) -> md.Tensor:
        return one_hot(self._numbers(key, shape[:-1]), self._num_events, self._like.dtype)

    def log_prob(self, value: Any) -> md.Tensor:
        x, logits = self._value(value), self.logits
        shape = md.broadcast_shapes(x.shape, logits.shape)
        at = md.argmax(md.broadcast_to(x, shape), axis=-1)[..., None]
        return md.take_along_axis(md.broadcast_to(logits, shape), at, axis=-1)[..., 0]

    def enumerate_support(self, expand: bool = True) -> md.Tensor:
        n = self._num_events
        values = one_hot(range_of(self, n, md.int64), n, self._like.dtype).reshape((n,) + (1,) * len(self.batch_shape) + (n,))
        return md.broadcast_to(values, (n, *self.batch_shape, n)) if expand else values


class Multinomial(Classes):
    """How often each of n classes came in total_count draws, with probabilities probs [..., n] (normalised) or softmax(logits [..., n]), as floats.

    total_count is one integer for the whole batch; without validate_args log_prob takes any counts, and theirs is the total. Raises ValueError unless
    it is at least 0 and exactly one of probs and logits is given, in its range; TypeError where it is no integer.

    >>> d = Multinomial(4, md.tensor([0.25, 0.75]))
    >>> d.mean.tolist(), round(d.log_prob([1.0, 3.0]).exp().item(), 6), d.sample().sum().item()
    ([1.0, 3.0], 0.421875, 4.0)
    """

    has_enumerate_support = False

    def __init__(self, total_count: int = 1, probs: Any = None, logits: Any = None, validate_args: bool | None = None):
        if not isinstance(total_count, int):
            raise TypeError(f"Multinomial: total_count is one integer for the whole batch, not {total_count!r}")
        if total_count < 0:
            raise ValueError(f"Multinomial: total_count must be at least 0, got {total_count}")
        super().__init__(probs, logits, validate_args)
        self.total_count = total_count

    @property
    def support(self) -> Any:  # type: ignore[override]
        n = self.total_count
        return constraints.Constraint(
            f"integers of at least 0 with sum {n}", lambda x: ((x >= 0) & (x % 1 == 0)).all(axis=-1) & (x.sum(axis=-1) == n), 1
        )

    @property
    def mean(self) -> md.Tensor:
        return self.probs * self.total_count

    @property
    def variance(self) -> md.Tensor:
        return self.total_count * self.probs * (1 - self.probs)

    def _draw(self, key: md.Tensor, shape: tuple[int, ...]) -> md.Tensor:
        numbers = self._numbers(key, (self.total_count, *shape[:-1]))
        return md.sum(one_hot(numbers, self._num_events, self._like.dtype), axis=0)

    def log_prob(self, value: Any) -> md.Tensor:
        x = self._value(value)
        ways = md.lgamma(md.sum(x, axis=-1) + 1) - md.sum(md.lgamma(x + 1), axis=-1)
        return ways + md.sum(md.where(x == 0, 0.0, x * md.where(x == 0, 0.0, self.logits)), axis=-1)

    def entropy(self) -> md.Tensor:
        n = self.total_count
        k = range_of(self, n + 1, self._like.dtype).reshape((n + 1,) + (1,) * len(self._like.shape))
        terms = md.exp(Binomial(n, self.probs).log_prob(k)) * md.lgamma(k + 1)
        return n * super().entropy() - math.lgamma(n + 1) + md.sum(terms, axis=(0, -1))


class OneHotCategoricalStraightThrough(OneHotCategorical):
    """OneHotCategorical whose rsample has the gradient of its probabilities (Y. Bengio et al., Estimating or propagating gradients through stochastic
    neurons, 2013).

    >>> d = OneHotCategoricalStraightThrough(logits=md.zeros(3))
    >>> d.rsample().sum().item()
    1.0
    """

    has_rsample = True

    def rsample(self, sample_shape: Shape = (), *, key: md.Tensor | None = None) -> md.Tensor:
        """A unit vector, with the gradient of probs."""
        return self.sample(sample_shape, key=key) + (self.probs - md.stop_gradient(self.probs))
