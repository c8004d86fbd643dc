"""`Distribution`: what all have in common. A class says what its parameters may be, in `arg_constraints`; the base makes Tensors of them, broadcasts
them, looks at their values where that is allowed, and draws.
"""

from __future__ import annotations

import copy
import math
from typing import Any, ClassVar, Self

import numpy as np

import minidl as md
from minidl.distributions.constraints import Constraint
from minidl.extend import describe, operand, seen, size_tuple

Shape = int | tuple[int, ...] | list[int]


def sum_rightmost(x: md.Tensor, n: int) -> md.Tensor:
    """x summed over its last n axes."""
    return md.sum(x, axis=tuple(range(-n, 0))) if n else x


def taken(x: Any, like: md.Tensor | None, who: str) -> md.Tensor:
    """An argument, a list too, as a Tensor where `like` is."""
    if not isinstance(x, (list, tuple)):
        return operand(x, like, who)
    return md.asarray(x) if like is None else md.asarray(x, backend=like.backend, device=like.device)


def inside(x: md.Tensor) -> md.Tensor:
    """x between 0 and 1, the nearest numbers between where it is one of these."""
    limits = md.finfo(x.dtype)
    return md.clip(x, float(limits.smallest_normal), 1 - float(limits.eps))


def clamped(probs: md.Tensor) -> md.Tensor:
    """Probabilities with finite logits: at least eps of their dtype from 0 and 1, as PyTorch's."""
    eps = float(md.finfo(probs.dtype).eps)
    return md.clip(probs, eps, 1 - eps)


class Distribution:
    """A distribution over events of event_shape, one for each element of batch_shape.

    Parameters are Tensors, numbers or arrays that broadcast; they are differentiable, and those of now: after an optimizer's step make another.
    `sample` draws [*sample_shape, *batch_shape, *event_shape] from md.random.default_generator, or from a `key`, without a gradient; `rsample`, where
    there is one (has_rsample), moves with the parameters.
    A class of your own gives __init__ that calls `_set`, `arg_constraints`, `support`, `_draw(key, shape)` and `log_prob`.

    validate_args: whether parameters and values are looked at, where that is allowed (eager, on a CPU); by default they are, see
    set_default_validate_args. Raises ValueError for parameters and values out of range and shapes that do not broadcast, TypeError for complex ones,
    NotImplementedError for what a distribution does not have in closed form.

    >>> d = md.distributions.Normal(md.zeros(3), 1.0)
    >>> d.batch_shape, d.event_shape, d.sample((2,)).shape, d.log_prob(0.0).shape
    ((3,), (), (2, 3), (3,))
    """

    arg_constraints: ClassVar[dict[str, Constraint]] = {}
    support: Any = None
    has_rsample = False
    has_enumerate_support = False
    _validate_args: bool = True
    _integral = False  # whether events are integers, which the parameters' dtype may not hold
    _parameters: tuple[str, ...] = ()  # those that were given
    batch_shape: tuple[int, ...]
    event_shape: tuple[int, ...] = ()

    def __init__(self, batch_shape: tuple[int, ...] = (), event_shape: tuple[int, ...] = (), validate_args: bool | None = None):
        self.batch_shape, self.event_shape = tuple(batch_shape), tuple(event_shape)
        if validate_args is not None:
            self._validate_args = validate_args

    @staticmethod
    def set_default_validate_args(value: bool) -> None:
        """Whether distributions made from now on look at values, unless they are told."""
        Distribution._validate_args = bool(value)

    def _set(self, validate_args: bool | None, **given: Any) -> None:
        """Keep the parameters as attributes, broadcast to one batch_shape; event_shape is that of the last."""
        name = type(self).__name__
        like = next((x for x in given.values() if isinstance(x, md.Tensor) and x.dtype.is_float), None)
        if like is None:
            like = next((x for x in given.values() if isinstance(x, md.Tensor)), None)
        made, lead = {}, []
        for n, x in given.items():
            x = taken(x, like, f"{name}: {n}")
            if x.dtype.is_complex:
                raise TypeError(f"{name}: {n} is {describe(x)}; real numbers are wanted")
            made[n] = x if x.dtype.is_float else x.to(like.dtype if like is not None and like.dtype.is_float else md.get_default_dtype())
            events = self.arg_constraints[n].event_dim
            if made[n].ndim < events:
                raise ValueError(f"{name}: {n} has {made[n].ndim} axes ({describe(made[n])}); {self.arg_constraints[n].text} is wanted")
            lead.append(made[n].shape[: made[n].ndim - events])
        try:
            Distribution.__init__(self, md.broadcast_shapes(*lead), (), validate_args)
        except ValueError:
            raise ValueError(f"{name}: parameters do not broadcast: {', '.join(f'{n} {describe(x)}' for n, x in made.items())}") from None
        self._parameters = tuple(made)
        for n, x in made.items():
            event = x.shape[x.ndim - self.arg_constraints[n].event_dim :]
            setattr(self, n, x if x.shape == self.batch_shape + event else md.broadcast_to(x, self.batch_shape + event))
            if self._validate_args:
                self._look(n, x, self.arg_constraints[n])
        self.event_shape = event[-1:] if event else ()

    def _look(self, what: str, x: md.Tensor, wanted: Constraint) -> None:
        if (values := seen(x)) is None:
            return
        value = values[0] if values[0].dtype.kind in "iu" or values[0].dtype.itemsize > 2 else values[0].astype(np.float32)
        with np.errstate(all="ignore"):
            good = np.asarray(wanted.holds(value))
        if not good.all():
            each = np.broadcast_to(value, good.shape + value.shape[value.ndim - wanted.event_dim :])
            bad = each[np.unravel_index(np.argmin(good), good.shape)]
            raise ValueError(f"{type(self).__name__}: {what} must be {wanted.text}, got {bad.tolist()} in {describe(x)}")

    @property
    def _like(self) -> md.Tensor:
        """A parameter, whose dtype and backend draws and values have."""
        return getattr(self, self._parameters[0])

    def _value(self, value: Any) -> md.Tensor:
        """A value as a Tensor of the parameters' dtype, whose shape and, where that is allowed, numbers were looked at."""
        name = type(self).__name__
        x = taken(value, self._like, f"{name}: value")
        if x.dtype.is_complex:
            raise TypeError(f"{name}: value is {describe(x)}; real numbers are wanted")
        x = x if x.dtype.is_float or self._integral else x.to(self._like.dtype)
        n = len(self.event_shape)
        if x.ndim < n or x.shape[x.ndim - n :] != self.event_shape:
            raise ValueError(f"{name}: value {describe(x)} does not end with the shape of an event, {self.event_shape}")
        try:
            md.broadcast_shapes(x.shape[: x.ndim - n], self.batch_shape)
        except ValueError:
            raise ValueError(f"{name}: value {describe(x)} does not broadcast to batch_shape {self.batch_shape}") from None
        if self._validate_args and isinstance(self.support, Constraint):
            self._look("value", x, self.support)
        return x

    def _missing(self, what: str) -> Any:
        raise NotImplementedError(f"{type(self).__name__}: no {what} in closed form")

    @property
    def mean(self) -> md.Tensor:
        """The mean, [*batch_shape, *event_shape]; nan where there is none."""
        return self._missing("mean")

    @property
    def mode(self) -> md.Tensor:
        """The most probable event."""
        return self._missing("mode")

    @property
    def variance(self) -> md.Tensor:
        """The variance of each element of an event."""
        return self._missing("variance")

    @property
    def stddev(self) -> md.Tensor:
        """The square root of the variance."""
        return md.sqrt(self.variance)

    def _extended_shape(self, sample_shape: Shape = ()) -> tuple[int, ...]:
        return (*size_tuple(type(self).__name__, sample_shape), *self.batch_shape, *self.event_shape)

    def _draw(self, key: md.Tensor, shape: tuple[int, ...]) -> md.Tensor:
        return self._missing("way to draw")

    def _keyed(self, key: md.Tensor | None) -> md.Tensor:
        return md.random.default_generator.next_key(like=self._like) if key is None else key

    def sample(self, sample_shape: Shape = (), *, key: md.Tensor | None = None) -> md.Tensor:
        """Draws without a gradient, [*sample_shape, *batch_shape, *event_shape]."""
        with md.no_grad():
            return md.stop_gradient(self._draw(self._keyed(key), self._extended_shape(sample_shape)))

    def rsample(self, sample_shape: Shape = (), *, key: md.Tensor | None = None) -> md.Tensor:
        """Draws that are differentiable in the parameters: the same numbers as `sample`'s. Raises NotImplementedError where has_rsample is false."""
        if not self.has_rsample:
            raise NotImplementedError(f"{type(self).__name__}: rsample has no gradient here (has_rsample is False); use sample, and log_prob for one")
        return self._draw(self._keyed(key), self._extended_shape(sample_shape))

    def log_prob(self, value: Any) -> md.Tensor:
        """The logarithm of the density, or of the probability, at value: [*sample_shape, *batch_shape]."""
        return self._missing("log_prob")

    def cdf(self, value: Any) -> md.Tensor:
        """The probability of at most value."""
        return self._missing("cdf")

    def icdf(self, value: Any) -> md.Tensor:
        """The number whose cdf is value."""
        return self._missing("icdf")

    def entropy(self) -> md.Tensor:
        """The entropy in nats, [*batch_shape]."""
        return self._missing("entropy")

    def perplexity(self) -> md.Tensor:
        """exp(entropy)."""
        return md.exp(self.entropy())

    def enumerate_support(self, expand: bool = True) -> md.Tensor:
        """All events, along a new first axis; broadcast over the batch if expand."""
        return self._missing("list of events")

    def expand(self, batch_shape: Shape) -> Self:
        """The same distribution with its parameters broadcast to a batch_shape."""
        shape, new = size_tuple(type(self).__name__, batch_shape), copy.copy(self)
        if len(shape) < len(self.batch_shape) or any(n not in (1, m) for n, m in zip(self.batch_shape[::-1], shape[::-1], strict=False)):
            raise ValueError(f"{type(self).__name__}: batch_shape {self.batch_shape} does not expand to {shape}")
        for n in self._parameters:
            x = getattr(self, n)
            setattr(new, n, md.broadcast_to(x, shape + x.shape[len(self.batch_shape) :]))
        new.batch_shape = shape
        return new

    def __repr__(self) -> str:
        shown = (f"{n}: {x.item() if x.ndim == 0 and seen(x) else describe(x)}" for n in self._parameters if n[0] != "_" for x in [getattr(self, n)])
        return f"{type(self).__name__}({', '.join(shown)})"


LOG_2PI, EULER = math.log(2 * math.pi), 0.57721566490153286061
