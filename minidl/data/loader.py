"""DataLoader: batches of a data set, in order or shuffled by minidl's own random numbers."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

import minidl as md
from minidl.data.datasets import shuffled


def default_collate(items: list[Any]) -> Any:
    """A list of items as one batch: tensors, arrays and numbers are stacked, tuples and dicts field by field, anything else stays a list."""
    first = items[0]
    if isinstance(first, md.Tensor):
        return md.stack(items)
    if isinstance(first, (np.ndarray, np.generic)):
        return md.asarray(np.stack(items))
    if isinstance(first, (bool, int, float, complex)):
        return md.asarray(items)
    if isinstance(first, Mapping):
        return {k: default_collate([item[k] for item in items]) for k in first}
    if isinstance(first, (tuple, list)):
        fields = [default_collate(list(column)) for column in zip(*items, strict=True)]
        return type(first)(*fields) if hasattr(first, "_fields") else fields
    return items


class DataLoader:
    """Iterates over batches of a data set; the tensors lie on the default backend of the moment.

    shuffle draws a new order for each pass from `generator` (a md.random.Generator; the default one if None), or from a key, with which the
    k-th pass always has the same order. drop_last leaves out a last batch that is not full. num_workers is accepted for PyTorch's sake: items
    are loaded in this process. Raises ValueError for a batch size below 1.

    >>> from minidl.data import TensorDataset
    >>> [x.shape for x, in DataLoader(TensorDataset(md.arange(5)), batch_size=2)]
    [(2,), (2,), (1,)]
    """

    def __init__(
        self,
        dataset: Any,
        batch_size: int = 1,
        shuffle: bool = False,
        *,
        drop_last: bool = False,
        collate_fn: Callable[[list[Any]], Any] | None = None,
        generator: Any = None,
        num_workers: int = 0,
    ):
        if batch_size < 1:
            raise ValueError(f"DataLoader: batch_size must be at least 1, got {batch_size}")
        self.dataset, self.batch_size, self.shuffle, self.drop_last = dataset, batch_size, shuffle, drop_last
        self.collate_fn, self.generator, self.num_workers = collate_fn, generator, num_workers
        self.passes = 0

    def __len__(self) -> int:
        n = len(self.dataset)
        return n // self.batch_size if self.drop_last else math.ceil(n / self.batch_size)

    def _order(self) -> np.ndarray:
        n = len(self.dataset)
        if not self.shuffle:
            return np.arange(n)
        source = md.random.fold_in(self.generator, self.passes) if isinstance(self.generator, md.Tensor) else self.generator
        self.passes += 1
        return shuffled(n, source)

    def __iter__(self) -> Iterator[Any]:
        order = self._order()
        for i in range(len(self)):
            yield self._batch(order[i * self.batch_size : (i + 1) * self.batch_size])

    def _batch(self, numbers: np.ndarray) -> Any:
        if self.collate_fn is None and hasattr(self.dataset, "batch"):
            return _here(list(self.dataset.batch(numbers)))
        return _here((self.collate_fn or default_collate)([self.dataset[int(i)] for i in numbers]))


def _here(batch: Any) -> Any:
    """Tensors and arrays of a batch on the default backend."""
    where = md.empty(0)
    return md.tree.map(lambda v: md.asarray(v, backend=where.backend, device=where.device) if isinstance(v, (md.Tensor, np.ndarray)) else v, batch)
