"""How one process makes batches of a data set: by item numbers, or by running through a stream. A worker does nothing else."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any

import numpy as np

import minidl as md
from minidl.data.collate import host
from minidl.data.dataset import Dataset, IterableDataset, take
from minidl.data.randomness import Draws, Libraries, Words, drawing


class End:
    """What a stream gives when it is over."""


@dataclass
class Task:
    """One batch to make: its number in the pass, the position of its first sample, and the item numbers (None for the next ones of a stream)."""

    number: int
    first: int
    indices: Any = None
    skip: bool = False  # run on, and give nothing


@dataclass
class WorkerInfo:
    """What get_worker_info() says in a worker: its id, how many there are, a seed of its own, and its copy of the data set."""

    id: int
    num_workers: int
    seed: int
    dataset: Any
    asked: bool = field(default=False, repr=False)


_worker: WorkerInfo | None = None


def get_worker_info() -> WorkerInfo | None:
    """In a worker process, which one it is (id, num_workers, seed, dataset); None in any other process.

    A stream that asks divides itself among the workers; see IterableDataset.

    >>> get_worker_info() is None
    True
    """
    if _worker is not None:
        _worker.asked = True
    return _worker


def become_worker(info: WorkerInfo) -> None:
    """Make get_worker_info answer in this process, and md.initial_seed with a seed that no other worker has."""
    global _worker
    _worker = info
    md.manual_seed(info.seed)


def is_stream(dataset: Any) -> bool:
    """Whether a data set is iterated over instead of indexed."""
    if isinstance(dataset, IterableDataset):
        return True
    torch = sys.modules.get("torch.utils.data")
    if torch is not None and isinstance(dataset, torch.IterableDataset):
        return True
    if hasattr(dataset, "__getitem__") and (hasattr(dataset, "__len__") or not hasattr(dataset, "__iter__")):
        return False
    if hasattr(dataset, "__iter__"):
        return True
    raise TypeError(f"DataLoader: a data set has __getitem__ and __len__, or __iter__; {type(dataset).__name__} has not")


class Reader:
    """Makes the batches of a pass in one process. batch_size None: items as they are, not batches (or, by number, batches of given numbers)."""

    def __init__(self, dataset: Any, collate_fn: Callable[[list[Any]], Any] | None, batch_size: int | None, drop_last: bool, batched: bool):
        self.dataset, self.collate_fn, self.batch_size, self.drop_last, self.batched = dataset, collate_fn, batch_size, drop_last, batched
        self.stream = is_stream(dataset)
        self.worker, self.libraries = False, Libraries()
        self.plain = isinstance(dataset, (list, tuple, range, str))  # getting an item draws nothing
        self.start((0, 0))

    def start(self, words: tuple[int, int]) -> None:
        """Begin a pass with this key."""
        self.words, self.draws = words, Draws(Words(words))
        self.items: Iterator[Any] | None = None
        self.read, self.own = 0, 0  # batches read; 1 + the worker's id where the stream divides itself
        self.held: list[Any] = []

    @property
    def owns(self) -> bool:
        """Whether the arrays of a batch are in memory that nobody else holds."""
        return self.batched and self.collate_fn is None

    def __call__(self, task: Task) -> Any:
        """The batch of a task; End where the stream has no more."""
        if self.plain:
            return self._make(task)
        if self.batched and self.collate_fn is None and not self.stream:
            indices = np.asarray(task.indices)
            if isinstance(self.dataset, (np.ndarray, md.Tensor)):
                return take(self.dataset, indices)
            batch = self.dataset.gather(indices) if isinstance(self.dataset, Dataset) else None
            if batch is not None:
                return batch
        with drawing(self.draws), nullcontext() if self.worker else self.libraries.kept():
            return self._make(task)

    def _make(self, task: Task) -> Any:
        if not self.stream and not self.plain:
            self.libraries.reseed(self.words, task.number)
        items = self._stream(task) if self.stream else self._numbered(task)
        if items is End or task.skip:
            return items if items is End else None
        if not self.batched:
            return self.collate_fn(items[0]) if self.collate_fn is not None else items[0]
        return (self.collate_fn or host)(items)

    def _numbered(self, task: Task) -> list[Any]:
        indices = task.indices.tolist() if isinstance(task.indices, np.ndarray) else task.indices
        indices = indices if self.batched else [indices]
        if self.batched and hasattr(self.dataset, "__getitems__"):
            self.draws.at(task.first)
            return self.dataset.__getitems__(indices)
        items = []
        for i, index in enumerate(indices):
            self.draws.at(task.first + i)
            items.append(self.dataset[index])
        return items

    def _stream(self, task: Task) -> Any:
        size = self.batch_size or 1
        if self.items is None:
            self.libraries.reseed(self.words, 0)
            self.draws.at(0)
            self.items = iter(self.dataset)
            self.held = [i for i in [next(self.items, End)] if i is not End]  # most streams look round when the first item is asked for
            self.own = _worker.id + 1 if _worker is not None and _worker.asked else 0
        while not self.own and self.read < task.number:  # what other workers do
            if len(self._next(size)) < size:
                break
        items = self._next(size)
        return End if not items or (len(items) < size and self.drop_last) else items

    def _next(self, size: int) -> list[Any]:
        """The next items of the stream, each with draws of its own position; those of a worker that divides the stream are far from the others'."""
        items, self.held = self.held, []
        assert self.items is not None
        if not items:
            self.libraries.reseed(self.words, self.own << 48 | self.read)
        while len(items) < size:
            self.draws.at((self.own << 34) + self.read * size + len(items))
            item = next(self.items, End)
            if item is End:
                break
            items.append(item)
        self.read += 1
        return items
