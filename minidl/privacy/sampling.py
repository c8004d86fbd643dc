"""Batches to which each example belongs by chance, independently of all others: what the accounting assumes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

import minidl as md


class PoissonSampler:
    """Batches of positions below n, each position with probability `rate`, as (positions, weights) of one size: so a jitted step compiles once.

    n examples; positions int64 [size] and weights float32 [size], 1 for an example and 0 for padding (position 0). size: default far enough above the
    expected rate · n that more come about once in a million batches (ten standard deviations); a batch that is larger raises RuntimeError rather than
    dropping examples, which the accounting would not know. key: of md.random, on whose backend and device the batches are, alike on all. Iterating
    gives ceil(1 / rate) batches, an epoch's worth, and goes on with new ones the next time. Raises ValueError for numbers out of range.

    >>> import minidl as md
    >>> sampler = PoissonSampler(1000, 0.1, md.random.key(0))
    >>> positions, weights = next(iter(sampler))
    >>> positions.shape == weights.shape, 60 < weights.sum().item() < 140, len(sampler)
    (True, True, 10)
    """

    def __init__(self, n: int, rate: float, key: md.Tensor, size: int | None = None):
        if n < 1 or not 0 < rate <= 1:
            raise ValueError(f"PoissonSampler: at least one example and a rate in (0, 1] are wanted, got {n} and {rate}")
        spread = (n * rate * (1 - rate)) ** 0.5
        self.n, self.rate, self.key, self.batch = n, rate, key, 0
        self.size = min(n, int(n * rate + 10 * spread + 10)) if size is None else size

    @property
    def expected(self) -> float:
        """The expected number of examples in a batch."""
        return self.n * self.rate

    def __len__(self) -> int:
        return int(np.ceil(1 / self.rate))

    def __iter__(self) -> Iterator[tuple[md.Tensor, md.Tensor]]:
        for _ in range(len(self)):
            drawn = md.random.uniform(md.random.fold_in(self.key, self.batch), (self.n,), md.float64).numpy() < self.rate
            self.batch += 1
            chosen = np.flatnonzero(drawn)
            if len(chosen) > self.size:
                raise RuntimeError(f"PoissonSampler: {len(chosen)} examples were drawn, and a batch holds {self.size}; give a larger size")
            positions, weights = np.zeros(self.size, np.int64), np.zeros(self.size, np.float32)
            positions[: len(chosen)], weights[: len(chosen)] = chosen, 1.0
            there: Any = {"backend": self.key.backend, "device": self.key.device}
            yield md.asarray(positions, **there), md.asarray(weights, **there)

    def state_dict(self) -> dict[str, int]:
        """The number of batches drawn so far, for a checkpoint."""
        return {"batch": self.batch}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go on after so many batches."""
        self.batch = int(state["batch"])
