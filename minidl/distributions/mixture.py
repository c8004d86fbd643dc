"""`MixtureSameFamily`: one of several distributions of a kind, chosen by a Categorical."""

from __future__ import annotations

from typing import Any

import minidl as md
from minidl.distributions.base import Distribution, Shape
from minidl.distributions.categorical import Categorical
from minidl.extend import size_tuple

__all__ = ["MixtureSameFamily"]


class MixtureSameFamily(Distribution):
    """Draws of component_distribution, whose last batch axis is the components, by the numbers that mixture_distribution draws.

    Raises ValueError for a mixture that is no Categorical of as many components, or whose batch_shape does not go with theirs.

    >>> parts = md.distributions.Normal(md.tensor([-1.0, 3.0]), 1.0)
    >>> d = MixtureSameFamily(Categorical(md.tensor([0.5, 0.5])), parts)
    >>> d.mean.item(), d.variance.item(), d.batch_shape
    (1.0, 5.0, ())
    """

    def __init__(self, mixture_distribution: Categorical, component_distribution: Distribution, validate_args: bool | None = None):
        mixture, parts = mixture_distribution, component_distribution
        if not isinstance(mixture, Categorical) or not parts.batch_shape or parts.batch_shape[-1] != mixture._num_events:
            raise ValueError(f"MixtureSameFamily: a Categorical over the last axis of the components' batch is wanted, got {mixture} and {parts}")
        lead = mixture.batch_shape
        batch = parts.batch_shape[:-1]
        if len(lead) > len(batch) or any(n not in (1, m) for n, m in zip(lead[::-1], batch[::-1], strict=False)):
            raise ValueError(f"MixtureSameFamily: a mixture of batch_shape {lead} for components of {parts.batch_shape}")
        self._mixture_distribution, self._component_distribution, self._num_component = mixture, parts, parts.batch_shape[-1]
        super().__init__(parts.batch_shape[:-1], parts.event_shape, validate_args)

    mixture_distribution = property(lambda self: self._mixture_distribution, doc="The Categorical.")
    component_distribution = property(lambda self: self._component_distribution, doc="What it chooses from.")

    @property
    def support(self) -> Any:  # type: ignore[override]
        return self._component_distribution.support

    @property
    def _like(self) -> md.Tensor:
        return self._component_distribution._like

    def _weighted(self, x: md.Tensor) -> md.Tensor:
        n = len(self.event_shape)
        p = self._mixture_distribution.probs
        return md.sum(p.reshape((*p.shape, *(1,) * n)) * x, axis=-1 - n)

    def _padded(self, x: md.Tensor) -> md.Tensor:
        return md.expand_dims(x, axis=x.ndim - len(self.event_shape))

    @property
    def mean(self) -> md.Tensor:
        return self._weighted(self._component_distribution.mean)

    @property
    def variance(self) -> md.Tensor:
        parts = self._component_distribution
        between = md.square(parts.mean - md.expand_dims(self.mean, axis=-1 - len(self.event_shape)))
        return self._weighted(parts.variance) + self._weighted(between)

    def _draw(self, key: md.Tensor, shape: tuple[int, ...]) -> md.Tensor:
        n = len(self.event_shape)
        lead = shape[: len(shape) - n]
        sample_shape = lead[: len(lead) - len(self.batch_shape)]
        chosen = self._mixture_distribution.expand(self.batch_shape).sample(sample_shape, key=md.random.fold_in(key, 0))
        drawn = self._component_distribution.sample(sample_shape, key=md.random.fold_in(key, 1))
        at = md.broadcast_to(chosen.reshape((*lead, 1, *(1,) * n)), (*lead, 1, *self.event_shape))
        return md.squeeze(md.take_along_axis(drawn, at, axis=len(lead)), axis=len(lead))

    def log_prob(self, value: Any) -> md.Tensor:
        logs = self._component_distribution.log_prob(self._padded(self._value(value)))
        return md.logsumexp(logs + self._mixture_distribution.logits, axis=-1)

    def cdf(self, value: Any) -> md.Tensor:
        if self.event_shape:
            self._missing("cdf")
        return md.sum(self._component_distribution.cdf(self._padded(self._value(value))) * self._mixture_distribution.probs, axis=-1)

    def expand(self, batch_shape: Shape) -> MixtureSameFamily:
        shape = size_tuple(type(self).__name__, batch_shape)
        parts = self._component_distribution.expand((*shape, self._num_component))
        return MixtureSameFamily(self._mixture_distribution.expand(shape), parts, self._validate_args)

    def __repr__(self) -> str:
        return f"MixtureSameFamily({self._mixture_distribution}, {self._component_distribution})"
