"""Data sets: anything with a length and items by number; tensors, subsets and random splits."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

import minidl as md


class Dataset:
    """The base of data sets: subclasses define __getitem__(number) and __len__.

    A data set that can take many items at once faster than one by one also defines `batch(numbers)`, with a NumPy array of numbers.
    """

    def __getitem__(self, index: int) -> Any:
        raise NotImplementedError(f"{type(self).__name__} is missing the required __getitem__")

    def __len__(self) -> int:
        raise NotImplementedError(f"{type(self).__name__} is missing the required __len__")


class TensorDataset(Dataset):
    """Items are tuples of the slices of some tensors (or NumPy arrays) along their first axis. Raises ValueError for different lengths.

    >>> TensorDataset(md.arange(3), md.arange(3) * 10)[2][1].item()
    20
    """

    def __init__(self, *tensors: Any):
        if len({t.shape[0] for t in tensors}) != 1:
            raise ValueError(f"TensorDataset: tensors of one length are wanted, got shapes {', '.join(str(tuple(t.shape)) for t in tensors)}")
        self.tensors = tensors

    def __getitem__(self, index: int) -> tuple[Any, ...]:
        if not -len(self) <= index < len(self):
            raise IndexError(f"TensorDataset: item {index} of {len(self)}")
        return tuple(t[index] for t in self.tensors)

    def batch(self, numbers: np.ndarray) -> tuple[Any, ...]:
        """Many items at once, stacked."""
        return tuple(t[numbers] if isinstance(t, np.ndarray) else t[md.asarray(numbers, backend=t.backend, device=t.device)] for t in self.tensors)

    def __len__(self) -> int:
        return int(self.tensors[0].shape[0])


class Subset(Dataset):
    """The items of a data set that have the given numbers, in their order."""

    def __init__(self, dataset: Any, indices: Sequence[int] | np.ndarray):
        self.dataset, self.indices = dataset, np.asarray(indices, np.int64)
        if hasattr(dataset, "batch"):
            self.batch = lambda numbers: dataset.batch(self.indices[numbers])

    def __getitem__(self, index: int) -> Any:
        return self.dataset[int(self.indices[index])]

    def __len__(self) -> int:
        return len(self.indices)


def random_split(dataset: Any, lengths: Sequence[int] | Sequence[float], generator: Any = None) -> list[Subset]:
    """Disjoint random subsets of the given lengths, or of the given fractions (which sum to 1; what rounding leaves goes to the first ones).

    generator: a md.random.Generator or a key; the default generator otherwise. Raises ValueError for lengths that do not add up.
    """
    n = len(dataset)
    if math.isclose(sum(lengths), 1) and all(0 <= f <= 1 for f in lengths) and not all(isinstance(f, int) for f in lengths):
        counts = [math.floor(n * f) for f in lengths]
        for i in range(n - sum(counts)):
            counts[i % len(counts)] += 1
    else:
        counts = [int(c) for c in lengths]
    if sum(counts) != n:
        raise ValueError(f"random_split: lengths {list(lengths)} do not add up to the data set's {n}")
    ends = np.cumsum(counts).tolist()
    order = shuffled(n, generator)
    return [Subset(dataset, order[e - c : e]) for c, e in zip(counts, ends, strict=True)]


def shuffled(n: int, generator: Any) -> np.ndarray:
    """0..n-1 in random order, by a generator (advanced), a key, or the default generator."""
    key = generator if isinstance(generator, md.Tensor) else (generator or md.random.default_generator).next_key()
    return md.random.permutation(key, n).numpy()
