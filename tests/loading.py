"""Data sets and functions that the tests of the loader send to worker processes, which import them from here without pytest."""

from __future__ import annotations

import os
import random
import signal
import time

import numpy as np

import minidl as md
from minidl.data import Dataset, IterableDataset, get_worker_info, sample_key


class Noisy(Dataset):
    """Everything that may be random about a sample: a key of minidl's, and the generators of Python and NumPy."""

    def __init__(self, n: int = 23):
        self.n = n

    def __len__(self):
        return self.n

    def __getitem__(self, i):
        if not 0 <= i < self.n:
            raise IndexError(i)
        noise = md.random.normal(sample_key(), (3,)).numpy()
        return np.int64(i), noise, md.asarray(float(i)), random.random(), np.random.rand(), str(i)


class Stream(IterableDataset):
    """The same as a stream."""

    def __init__(self, n: int = 23):
        self.n = n

    def __iter__(self):
        yield from map(Noisy(self.n).__getitem__, range(self.n))


class Divided(IterableDataset):
    """A stream that each worker takes its share of."""

    def __init__(self, n: int):
        self.n = n

    def __iter__(self):
        info = get_worker_info()
        first, step = (0, 1) if info is None else (info.id, info.num_workers)
        return iter(range(first, self.n, step))


class Large(Dataset):
    """Items above the size that is sent through a pipe."""

    def __len__(self):
        return 6

    def __getitem__(self, i):
        return {"x": np.full((40, 40), i, np.float32), "bits": np.full((64, 64), i % 2 == 0), "text": "ab" * (i + 1)}


class Failing(Dataset):
    """One item cannot be had."""

    def __init__(self, error, at: int = 5):
        self.error, self.at = error, at

    def __len__(self):
        return 12

    def __getitem__(self, i):
        if i == self.at:
            raise self.error
        return i


class Odd(Exception):
    """An exception that cannot be made from a text alone."""

    def __init__(self, a, b):
        super().__init__(a, b)


class Dying(Dataset):
    """One item kills its process."""

    def __len__(self):
        return 12

    def __getitem__(self, i):
        if i == 5:
            os.kill(os.getpid(), signal.SIGKILL)
        return i


class Slow(Dataset):
    """Items that take their time."""

    def __init__(self, seconds: float):
        self.seconds = seconds

    def __len__(self):
        return 100

    def __getitem__(self, i):
        time.sleep(self.seconds)
        return os.getpid()


class Where(Dataset):
    """Says what a worker is."""

    def __len__(self):
        return 8

    def __getitem__(self, i):
        info = get_worker_info()
        return (-1, 0) if info is None else (info.id, info.num_workers)


class Mapped(Dataset):
    """Rows of a file that is mapped, not read; and how much of it came in the pickle."""

    def __init__(self, rows):
        self.rows = rows

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, i):
        return self.rows[i], type(self.rows).__name__


def total(items):
    return sum(items)


def only(items):
    (item,) = items
    return item


def unsendable(items):
    return lambda: items


def note(worker: int) -> None:
    random.seed(worker)
    os.environ["MINIDL_TEST_WORKER"] = str(worker)


class Noted(Dataset):
    def __len__(self):
        return 4

    def __getitem__(self, i):
        return int(os.environ.get("MINIDL_TEST_WORKER", -1))
