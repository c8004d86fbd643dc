"""Data sets: anything with a length and items by number, or anything that can be iterated over; and how they are combined and split.

torch.utils.data's names. A data set that can take many items at once faster than one by one defines `gather`; a loader then makes a batch of it
in one step.
"""

from __future__ import annotations

import bisect
import itertools
import math
from collections.abc import Iterable, Iterator, Sequence
from types import GenericAlias
from typing import Any

import numpy as np

import minidl as md
from minidl.data.explaining import explain, explains, iterable
from minidl.data.randomness import words_of


class Dataset:
    """The base of data sets: subclasses define __getitem__(number) and __len__. A loader takes anything else that has these two as well.

    Raises NotImplementedError for the method that a subclass did not define.

    >>> class Squares(Dataset):
    ...     def __len__(self):
    ...         return 3
    ...     def __getitem__(self, i):
    ...         return i * i
    >>> len(Squares() + Squares())
    6
    """

    def __getitem__(self, index: int) -> Any:
        raise NotImplementedError(f"{type(self).__name__} is missing the required __getitem__")

    def __len__(self) -> int:
        raise NotImplementedError(f"{type(self).__name__} is missing the required __len__")

    __class_getitem__: Any = classmethod(GenericAlias)  # Dataset[int], of which nothing is checked

    def __add__(self, other: Any) -> ConcatDataset:
        return ConcatDataset([self, other])

    def gather(self, numbers: np.ndarray) -> Any:
        """The items of these numbers as one batch, in new memory; None (as here) where items are taken one by one and collated."""
        return None


class IterableDataset:
    """The base of data sets that are streams: subclasses define __iter__. A loader takes any other iterable as well.

    With worker processes, every worker runs through the whole stream and prepares every so-and-so-many-th batch, which gives the same batches as
    one process does. A stream that calls `get_worker_info()` at its start divides itself, as in PyTorch: each worker then gives all that it has.
    Raises NotImplementedError when a subclass did not define __iter__.

    >>> class Count(md.data.IterableDataset):
    ...     def __iter__(self):
    ...         yield from range(3)
    >>> list(md.data.DataLoader(Count(), batch_size=None))
    [0, 1, 2]
    """

    __class_getitem__: Any = classmethod(GenericAlias)

    def __iter__(self) -> Iterator[Any]:
        raise NotImplementedError(f"{type(self).__name__} is missing the required __iter__")

    def __add__(self, other: Any) -> ChainDataset:
        return ChainDataset([self, other])


def _checked(name: str, index: int, length: int) -> int:
    if not -length <= index < length:
        raise IndexError(f"{name}: item {index} of {length}")
    return index + length if index < 0 else index


class TensorDataset(Dataset):
    """Items are tuples of the slices of some tensors (or NumPy arrays, memmaps too) along their first axis; a slice of it, as in dataset[:100], is
    the tuple of the tensors' slices. Raises ValueError for different lengths.

    >>> dataset = TensorDataset(md.arange(3), md.arange(3) * 10)
    >>> dataset[2][1].item(), dataset[1:][1].tolist()
    (20, [10, 20])
    """

    def __init__(self, *tensors: Any):
        if len({t.shape[0] if t.ndim else None for t in tensors}) != 1 or not tensors[0].ndim:
            raise ValueError(f"TensorDataset: tensors of one length are wanted, got shapes {', '.join(str(tuple(t.shape)) for t in tensors)}")
        self.tensors = tensors

    def __getitem__(self, index: int | slice) -> tuple[Any, ...]:
        if isinstance(index, slice):
            return tuple(t[index] for t in self.tensors)
        index = _checked("TensorDataset", index, len(self))
        return tuple(_row(t, index) for t in self.tensors)

    def gather(self, numbers: np.ndarray) -> list[Any]:
        """Many items at once, one gather per tensor."""
        try:
            return [take(t, numbers) for t in self.tensors]
        except IndexError:
            for number in numbers:
                _checked("TensorDataset", int(number), len(self))
            raise

    def __len__(self) -> int:
        return int(self.tensors[0].shape[0])


def _row(x: Any, index: int) -> Any:
    """x[index], without what jax would compile for each number."""
    if not isinstance(x, md.Tensor) or x.requires_grad:
        return x[index]
    if x.device != "cpu":
        return md.take(x, md.asarray([index], backend=x.backend, device=x.device), axis=0).reshape(x.shape[1:])
    return md.asarray(np.asarray(x, copy=False)[index], backend=x.backend, device=x.device)


def take(x: Any, numbers: np.ndarray) -> Any:
    """Entries of x along its first axis in new memory: a NumPy array, or a Tensor where x is on another device than the CPU, or requires grad."""
    if isinstance(x, md.Tensor):
        if x.device != "cpu" or x.requires_grad:
            return x[md.asarray(numbers, backend=x.backend, device=x.device)]
        x = np.asarray(x, copy=False)
    return np.take(np.asarray(x), numbers, axis=0)


class StackDataset(Dataset):
    """Items are tuples (or dicts, with keyword arguments) of the items of several data sets of one length. Raises ValueError for different lengths.

    >>> StackDataset(image=[1, 2], label=["one", "two"])[1]
    {'image': 2, 'label': 'two'}
    """

    def __init__(self, *args: Any, **kwargs: Any):
        if bool(args) == bool(kwargs):
            raise ValueError("StackDataset: data sets are wanted, either all by position or all by keyword")
        self.datasets: Any = kwargs or args
        parts = list(kwargs.values()) if kwargs else list(args)
        if len({len(d) for d in parts}) != 1:
            raise ValueError(f"StackDataset: data sets of one length are wanted, got {', '.join(str(len(d)) for d in parts)}")
        self._length = len(parts[0])

    def __getitem__(self, index: int) -> Any:
        index = _checked("StackDataset", index, self._length)
        if isinstance(self.datasets, dict):
            return {k: d[index] for k, d in self.datasets.items()}
        return tuple(d[index] for d in self.datasets)

    def gather(self, numbers: np.ndarray) -> Any:
        """The batches of the parts, where each can make one."""
        parts = self.datasets.values() if isinstance(self.datasets, dict) else self.datasets
        found: list[Any] = []
        for part in parts:
            batch = part.gather(numbers) if isinstance(part, Dataset) else None
            if batch is None:
                return None
            found.append(batch)
        return dict(zip(self.datasets, found, strict=True)) if isinstance(self.datasets, dict) else found

    def __len__(self) -> int:
        return self._length


class ConcatDataset(Dataset):
    """The items of several data sets, one data set after the other. Raises ValueError for none, and for a stream (which ChainDataset takes).

    >>> ConcatDataset([[1, 2], [3]])[2]
    3
    """

    def __init__(self, datasets: Iterable[Any]):
        self.datasets = list(datasets)
        if not self.datasets:
            raise ValueError("ConcatDataset: at least one data set is wanted")
        for d in self.datasets:
            if isinstance(d, IterableDataset):
                raise ValueError("ConcatDataset: an IterableDataset has no items by number; use ChainDataset")
        self.cumulative_sizes = list(itertools.accumulate(len(d) for d in self.datasets))

    def __getitem__(self, index: int) -> Any:
        index = _checked("ConcatDataset", index, len(self))
        which = bisect.bisect_right(self.cumulative_sizes, index)
        return self.datasets[which][index - (self.cumulative_sizes[which - 1] if which else 0)]

    def gather(self, numbers: np.ndarray) -> Any:
        """The batch as one, where each part that has items in it can make one."""
        numbers = np.where(numbers < 0, numbers + len(self), numbers)
        which = np.searchsorted(self.cumulative_sizes, numbers, side="right")
        batches, places = [], []
        for w in np.unique(which).tolist():
            place = np.flatnonzero(which == w)
            part = self.datasets[w]
            start = self.cumulative_sizes[w - 1] if w else 0
            batch = part.gather(numbers[place] - start) if isinstance(part, Dataset) else None
            if batch is None or any(isinstance(v, md.Tensor) for v in md.tree.leaves(batch)):
                return None
            batches.append(batch)
            places.append(place)
        if len(batches) == 1:
            return batches[0]
        back = np.argsort(np.concatenate(places))
        return md.tree.map(lambda *vs: np.concatenate(vs)[back], *batches)

    def __len__(self) -> int:
        return self.cumulative_sizes[-1]


class ChainDataset(IterableDataset):
    """The items of several streams, one stream after the other.

    >>> list(ChainDataset([range(2), "ab"]))
    [0, 1, 'a', 'b']
    """

    def __init__(self, datasets: Iterable[Iterable[Any]]):
        self.datasets = [iterable("ChainDataset", "each of the data sets", d) for d in datasets]

    def __iter__(self) -> Iterator[Any]:
        return itertools.chain.from_iterable(self.datasets)


class Subset(Dataset):
    """The items of a data set that have the given numbers, in their order. A number that the data set does not have is its error when its turn comes,
    in a loop over the items, too.

    >>> list(md.data.Subset(["a", "b", "c"], [2, 0]))
    ['c', 'a']
    """

    def __init__(self, dataset: Any, indices: Sequence[int] | np.ndarray):
        self.dataset, self.indices = dataset, np.asarray(indices, np.int64)

    def __getitem__(self, index: int) -> Any:
        return self.dataset[int(self.indices[index])]

    def __iter__(self) -> Iterator[Any]:
        return (self[i] for i in range(len(self)))  # without this, an IndexError of the data set would look like the end

    def gather(self, numbers: np.ndarray) -> Any:
        """The batch that the data set makes, if it can."""
        return self.dataset.gather(self.indices[numbers]) if isinstance(self.dataset, Dataset) else None

    def __len__(self) -> int:
        return len(self.indices)


@explains
def random_split(dataset: Any, lengths: Sequence[int] | Sequence[float], generator: Any = None) -> list[Subset]:
    """Disjoint random subsets of the given lengths, or of the given fractions (which sum to 1; what rounding leaves goes to the first ones).

    generator: a md.random.Generator or a key; the default generator otherwise. Raises ValueError for lengths that do not add up.

    >>> a, b = md.data.random_split(range(10), [7, 3])
    >>> len(a), len(b), sorted([*a, *b]) == list(range(10))
    (7, 3, True)
    """
    n = len(dataset)
    if math.isclose(sum(lengths), 1) and all(0 <= f <= 1 for f in lengths) and not all(isinstance(f, int) for f in lengths):
        counts = [math.floor(n * f) for f in lengths]
        for i in range(n - sum(counts)):
            counts[i % len(counts)] += 1
    else:
        counts = [int(c) for c in lengths]
    if sum(counts) != n or min(counts) < 0:
        raise ValueError(f"random_split: lengths {list(lengths)} do not add up to the data set's {n}")
    ends = np.cumsum(counts).tolist()
    order = permutation(words_of(generator), n)
    return [Subset(dataset, order[e - c : e]) for c, e in zip(counts, ends, strict=True)]


def permutation(words: tuple[int, int], n: int) -> np.ndarray:
    """0..n-1 in the random order of a key."""
    with md.use_backend("numpy"):
        return md.random.permutation(md.asarray(np.array(words, np.uint32)), n).numpy()


explain(globals(), ["ChainDataset", "ConcatDataset", "StackDataset", "Subset", "TensorDataset"])
