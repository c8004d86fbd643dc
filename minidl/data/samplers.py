"""Samplers: in which order the items of a data set are visited. PyTorch's names; the random ones are functions of a key.

A sampler of minidl answers `order(words)`: all numbers of one pass, from the two words of a key. A loader hands it the key of the pass, unless
the sampler has a generator of its own. That is what makes the order the same on every backend, and what makes it possible to resume in mid-pass.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from types import GenericAlias
from typing import Any

import numpy as np

import minidl as md
from minidl.data.dataset import permutation
from minidl.data.explaining import explain, iterable
from minidl.data.randomness import words_of


class Sampler:
    """The base of samplers: subclasses define __iter__, which gives item numbers, and __len__ if it is known.

    Those that are a function of a key define `order(words)` instead of __iter__. Raises NotImplementedError when it is asked for numbers and a
    subclass defines neither.

    >>> class Backwards(md.data.Sampler):
    ...     def __init__(self, n):
    ...         self.n = n
    ...     def __iter__(self):
    ...         yield from reversed(range(self.n))
    >>> list(Backwards(3))
    [2, 1, 0]
    """

    __class_getitem__: Any = classmethod(GenericAlias)  # Sampler[int], of which nothing is checked
    generator: Any = None
    passes = 0

    def order(self, words: tuple[int, int]) -> np.ndarray:
        """The numbers of a pass, int64, from the two words of its key."""
        raise NotImplementedError(f"{type(self).__name__} defines neither order nor __iter__")

    def __iter__(self) -> Iterator[Any]:
        self.passes += 1
        return iter(self.order(self.words_for(self.passes - 1)).tolist())

    def words_for(self, number: int, words: tuple[int, int] | None = None) -> tuple[int, int]:
        """The key of a pass: the generator's next one, or a key that stands for it folded with the number of the pass.

        Without a generator it is `words`, the key of a loader's pass, and outside a loader one of the default generator.
        """
        if isinstance(self.generator, md.Tensor):
            return folded(self.generator, number)
        return words if words is not None and self.generator is None else words_of(self.generator)


def folded(key: md.Tensor, number: int) -> tuple[int, int]:
    """The words of a key folded with a number."""
    return words_of(md.random.fold_in(key, number))


def _key(words: tuple[int, int]) -> md.Tensor:
    return md.asarray(np.array(words, np.uint32), backend="numpy")


class SequentialSampler(Sampler):
    """0, 1, 2, …

    >>> list(md.data.SequentialSampler(["a", "b"]))
    [0, 1]
    """

    def __init__(self, data_source: Any):
        self.data_source = data_source

    def order(self, words: tuple[int, int]) -> np.ndarray:
        """Every number in order, whatever the key."""
        return np.arange(len(self.data_source))

    def __iter__(self) -> Iterator[int]:
        return iter(range(len(self.data_source)))

    def __len__(self) -> int:
        return len(self.data_source)


class RandomSampler(Sampler):
    """Every number once in random order, or num_samples draws: with replacement, or in as many random orders as it takes.

    Raises ValueError for num_samples below 1. generator: a key or a md.random.Generator.

    >>> sorted(RandomSampler("abcd", generator=md.random.key(0)))
    [0, 1, 2, 3]
    """

    def __init__(self, data_source: Any, replacement: bool = False, num_samples: int | None = None, generator: Any = None):
        if num_samples is not None and num_samples < 1:
            raise ValueError(f"RandomSampler: num_samples must be at least 1, got {num_samples}")
        self.data_source, self.replacement, self._num_samples, self.generator = data_source, replacement, num_samples, generator

    @property
    def num_samples(self) -> int:
        """How many numbers one pass has."""
        return len(self.data_source) if self._num_samples is None else self._num_samples

    def order(self, words: tuple[int, int]) -> np.ndarray:
        """The numbers of a pass."""
        n, wanted = len(self.data_source), self.num_samples
        if n == 0:
            if wanted:
                raise ValueError(f"RandomSampler: {wanted} samples of an empty data set")
            return np.arange(0)
        with md.use_backend("numpy"):
            if self.replacement:
                return md.random.randint(_key(words), (wanted,), 0, n).numpy()
            rounds = [permutation(words if r == 0 else folded(_key(words), r), n) for r in range(math.ceil(wanted / n))]
        return np.concatenate(rounds)[:wanted] if rounds else np.arange(0)

    def __len__(self) -> int:
        return self.num_samples


class SubsetRandomSampler(Sampler):
    """The given numbers in random order.

    >>> sorted(md.data.SubsetRandomSampler([3, 5, 7]))
    [3, 5, 7]
    """

    def __init__(self, indices: Sequence[int], generator: Any = None):
        self.indices, self.generator = indices, generator

    def order(self, words: tuple[int, int]) -> np.ndarray:
        """The numbers of a pass."""
        return np.asarray(self.indices, np.int64)[permutation(words, len(self.indices))]

    def __len__(self) -> int:
        return len(self.indices)


class WeightedRandomSampler(Sampler):
    """num_samples numbers drawn with probabilities in proportion to the weights, with or without replacement.

    With replacement by inverting the distribution function; without, the num_samples largest of u^(1/w) (P. Efraimidis and P. Spirakis, Weighted
    random sampling with a reservoir, 2006). Raises ValueError for weights that are negative, not finite or all 0, and where fewer than
    num_samples weights are positive and nothing is replaced.

    >>> set(WeightedRandomSampler([0.0, 1.0, 1.0], 20, generator=md.random.key(0)))
    {1, 2}
    """

    def __init__(self, weights: Sequence[float], num_samples: int, replacement: bool = True, generator: Any = None):
        w = self.weights = np.asarray(weights.numpy() if hasattr(weights, "numpy") else weights, np.float64)
        if w.ndim != 1 or not np.isfinite(w).all() or (w < 0).any() or not w.any():
            raise ValueError("WeightedRandomSampler: weights are a row of finite numbers, none negative and one at least positive")
        if num_samples < 1:
            raise ValueError(f"WeightedRandomSampler: num_samples must be at least 1, got {num_samples}")
        if not replacement and num_samples > np.count_nonzero(w):
            raise ValueError(f"WeightedRandomSampler: {num_samples} numbers without replacement from {np.count_nonzero(w)} with positive weight")
        self.num_samples, self.replacement, self.generator = num_samples, replacement, generator

    def order(self, words: tuple[int, int]) -> np.ndarray:
        """The numbers of a pass."""
        with md.use_backend("numpy"):
            u = md.random.uniform(_key(words), (self.num_samples if self.replacement else len(self.weights),), md.float64).numpy()
        if self.replacement:
            total = np.cumsum(self.weights)
            return np.searchsorted(total, u * total[-1], side="right")
        with np.errstate(divide="ignore"):
            score = np.log(np.maximum(u, np.finfo(np.float64).tiny)) / self.weights  # log of u^(1/w); -inf where the weight is 0
        return np.argsort(-score, kind="stable")[: self.num_samples]

    def __len__(self) -> int:
        return self.num_samples


class BatchSampler(Sampler):
    """Lists of batch_size numbers of another sampler; drop_last leaves out a last one that is not full. Raises ValueError for a size below 1.

    >>> list(BatchSampler(range(5), 2, drop_last=False))
    [[0, 1], [2, 3], [4]]
    """

    def __init__(self, sampler: Iterable[Any], batch_size: int, drop_last: bool):
        if not isinstance(batch_size, int) or isinstance(batch_size, bool) or batch_size < 1:
            raise ValueError(f"BatchSampler: batch_size must be an integer of at least 1, got {batch_size!r}")
        self.sampler, self.batch_size, self.drop_last = iterable("BatchSampler", "sampler", sampler), batch_size, drop_last

    def __iter__(self) -> Iterator[list[Any]]:
        return self.batches(iter(self.sampler))

    def batches(self, numbers: Iterator[Any]) -> Iterator[list[Any]]:
        """The numbers in groups."""
        batch: list[Any] = []
        for number in numbers:
            batch.append(number)
            if len(batch) == self.batch_size:
                yield batch
                batch = []
        if batch and not self.drop_last:
            yield batch

    def __len__(self) -> int:
        n = len(self.sampler)  # type: ignore[arg-type]
        return n // self.batch_size if self.drop_last else math.ceil(n / self.batch_size)


class DistributedSampler(Sampler):
    """The part of a data set that one of num_replicas processes visits, so that together they visit all of it, each equally much.

    The order is shuffled by the seed and the epoch, alike in every process: call set_epoch before each pass. What does not divide evenly is made up
    by items from the beginning, or dropped (drop_last). num_replicas and rank are those of your launcher (torch.distributed.get_world_size() and
    get_rank(), jax.process_count() and process_index()); minidl starts no processes. Raises ValueError for a rank outside 0 … num_replicas - 1.

    >>> [list(DistributedSampler(range(5), 2, rank, shuffle=False)) for rank in (0, 1)]
    [[0, 2, 4], [1, 3, 0]]
    """

    def __init__(self, dataset: Any, num_replicas: int, rank: int, shuffle: bool = True, seed: int = 0, drop_last: bool = False):
        if not 0 <= rank < num_replicas:
            raise ValueError(f"DistributedSampler: rank {rank} is outside 0 … {num_replicas - 1}")
        self.dataset, self.num_replicas, self.rank, self.shuffle, self.seed, self.drop_last = dataset, num_replicas, rank, shuffle, seed, drop_last
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """The number of the pass, which decides the order."""
        self.epoch = epoch

    def words_for(self, number: int, words: tuple[int, int] | None = None) -> tuple[int, int]:
        """A function of the seed and the epoch alone, alike in every process."""
        return folded(md.random.key(self.seed), self.epoch)

    def order(self, words: tuple[int, int]) -> np.ndarray:
        """The numbers of this process in a pass."""
        n = len(self.dataset)
        everything = permutation(words, n) if self.shuffle else np.arange(n)
        total = len(self) * self.num_replicas
        return np.resize(everything, total)[self.rank :: self.num_replicas] if n else everything

    def __len__(self) -> int:
        n = len(self.dataset)
        return n // self.num_replicas if self.drop_last else math.ceil(n / self.num_replicas)


explain(globals(), ["BatchSampler", "DistributedSampler", "RandomSampler", "SequentialSampler", "SubsetRandomSampler", "WeightedRandomSampler"])
