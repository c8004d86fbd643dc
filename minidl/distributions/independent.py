"""`Independent`: the last axes of a batch as axes of one event."""

from __future__ import annotations

from typing import Any

import minidl as md
from minidl.distributions.base import Distribution, Shape, sum_rightmost
from minidl.extend import size_tuple

__all__ = ["Independent"]


class Independent(Distribution):
    """A distribution of which the last reinterpreted_batch_ndims axes of the batch belong to one event: log_prob and entropy are sums over them.

    Raises ValueError for more axes than the batch has.

    >>> d = Independent(md.distributions.Normal(md.zeros((2, 3)), 1.0), 1)
    >>> d.batch_shape, d.event_shape, d.log_prob(md.zeros((2, 3))).shape
    ((2,), (3,), (2,))
    """

    def __init__(self, base_distribution: Distribution, reinterpreted_batch_ndims: int, validate_args: bool | None = None):
        shape, n = base_distribution.batch_shape, reinterpreted_batch_ndims
        if not 0 <= n <= len(shape):
            raise ValueError(f"Independent: reinterpreted_batch_ndims is {n}, and {base_distribution} has batch_shape {shape}")
        super().__init__(shape[: len(shape) - n], shape[len(shape) - n :] + base_distribution.event_shape, validate_args)
        self.base_dist, self.reinterpreted_batch_ndims = base_distribution, n

    @property
    def has_rsample(self) -> bool:  # type: ignore[override]
        return self.base_dist.has_rsample

    @property
    def support(self) -> Any:  # type: ignore[override]
        return self.base_dist.support

    @property
    def _like(self) -> md.Tensor:
        return self.base_dist._like

    @property
    def mean(self) -> md.Tensor:
        return self.base_dist.mean

    @property
    def mode(self) -> md.Tensor:
        return self.base_dist.mode

    @property
    def variance(self) -> md.Tensor:
        return self.base_dist.variance

    def sample(self, sample_shape: Shape = (), *, key: md.Tensor | None = None) -> md.Tensor:
        return self.base_dist.sample(sample_shape, key=key)

    def rsample(self, sample_shape: Shape = (), *, key: md.Tensor | None = None) -> md.Tensor:
        return self.base_dist.rsample(sample_shape, key=key)

    def log_prob(self, value: Any) -> md.Tensor:
        return sum_rightmost(self.base_dist.log_prob(value), self.reinterpreted_batch_ndims)

    def entropy(self) -> md.Tensor:
        return sum_rightmost(self.base_dist.entropy(), self.reinterpreted_batch_ndims)

    def expand(self, batch_shape: Shape) -> Independent:
        n = self.reinterpreted_batch_ndims
        return Independent(self.base_dist.expand(size_tuple(type(self).__name__, batch_shape) + self.event_shape[:n]), n, self._validate_args)

    def __repr__(self) -> str:
        return f"Independent({self.base_dist}, {self.reinterpreted_batch_ndims})"
