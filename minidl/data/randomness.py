"""Random numbers that belong to a sample: what random transforms draw does not depend on which process loads the sample, or when.

A pass of a DataLoader has one key. The sample at position p of the pass draws words of threefry from that key and p, in the order in which its
transforms ask. Outside a loader, draws come from `md.random.default_generator`. A data set that calls `md.rand`, `random` or NumPy's, torchvision
or albumentations draws from generators of its process; those of minidl, Python, NumPy and torch are seeded for each batch from the same key, and put
back afterwards.
"""

from __future__ import annotations

import random
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

import minidl as md

_numpy: Any = np.random  # its stubs do not have the two functions that exchange the global generator
BLOCK, WIDTH = 1024, 4  # words are drawn for so many samples at once, so many for each


class Words:
    """The uint32 words of each position of a pass, from the two words of its key."""

    def __init__(self, key: tuple[int, int]):
        self.key = key
        self._blocks: dict[tuple[int, int], np.ndarray] = {}

    def __call__(self, position: int, number: int) -> int:
        (block, row), (part, column) = divmod(position, BLOCK), divmod(number, WIDTH)
        found = self._blocks.get((block, part))
        if found is None:
            if len(self._blocks) >= 8:
                self._blocks.clear()
            with md.use_backend("numpy"):
                key = md.random.fold_in(md.random.fold_in(md.asarray(np.array(self.key, np.uint32)), part), block)
                found = self._blocks[block, part] = md.random.bits(key, (BLOCK, WIDTH)).numpy()
        return int(found[row, column])


class Draws:
    """The random numbers of one sample, one after the other."""

    __slots__ = ("number", "position", "words")

    def __init__(self, words: Words, position: int = 0):
        self.words, self.position, self.number = words, position, 0

    def at(self, position: int) -> None:
        """Start on the numbers of another sample."""
        self.position, self.number = position, 0

    def word(self) -> int:
        """32 random bits."""
        self.number += 1
        return self.words(self.position, self.number - 1)

    def uniform(self, low: float = 0.0, high: float = 1.0) -> float:
        """A number in [low, high)."""
        return low + (high - low) * (self.word() / 2**32)

    def below(self, n: int) -> int:
        """An integer in [0, n), by D. Lemire's multiplication (2019) without rejection: for n < 2**16 uniform to one in 2**16."""
        return self.word() * n >> 32

    def key(self) -> md.Tensor:
        """A key for md.random, on the default backend."""
        return md.asarray(np.array([self.word(), self.word()], np.uint32))


_now = threading.local()


@contextmanager
def drawing(draws: Draws) -> Iterator[Draws]:
    """Samples loaded inside draw from these numbers."""
    before = getattr(_now, "draws", None)
    _now.draws = draws
    try:
        yield draws
    finally:
        _now.draws = before


def loading() -> bool:
    """Whether a loader is loading a sample in this thread."""
    return getattr(_now, "draws", None) is not None


def words_of(key: Any) -> tuple[int, int]:
    """The two words of a key, or of the next one of a Generator (of the default one for None). Raises TypeError for anything else."""
    if key is None:
        key = md.random.default_generator
    if isinstance(key, md.random.Generator):
        key = key.next_key()
    if not isinstance(key, md.Tensor) or key.shape != (2,) or key.dtype is not md.uint32:
        raise TypeError(f"a key (md.random.key(seed)) or a md.random.Generator is wanted, got {type(key).__name__}")
    a, b = key.tolist()
    return a, b


def draws(key: Any = None) -> Draws:
    """The numbers to draw from now: those of a key if one is given, of the sample that a loader is loading, or else of the default generator."""
    if key is not None:
        return Draws(Words(words_of(key)))
    found = getattr(_now, "draws", None)
    return found if found is not None else Draws(Words(words_of(None)))


def sample_key() -> md.Tensor:
    """A fresh key for the sample that is being loaded, for random transforms of your own; each call gives another.

    Inside a DataLoader it depends on the loader's key, the pass and the position of the sample alone, so that results are the same for any number
    of workers. Outside, it comes from the default generator.

    >>> from minidl.data import DataLoader
    >>> class Noisy:
    ...     def __len__(self):
    ...         return 4
    ...     def __getitem__(self, i):
    ...         return md.random.normal(md.data.sample_key(), (2,))
    >>> one, two = (DataLoader(Noisy(), batch_size=size, generator=md.random.key(0)) for size in (4, 2))
    >>> bool((next(iter(one))[:2] == next(iter(two))).all())
    True
    """
    return draws().key()


class Libraries:
    """The global generators of minidl, Python, NumPy and torch (if it is loaded): start them from a key, and put them back."""

    def __init__(self) -> None:
        self._philox = np.random.Philox(0)

    def reseed(self, words: tuple[int, int], number: int) -> None:
        """Start them from a key and a number below 2**64."""
        high = words[0] << 32 | words[1]
        random.seed(high << 64 | number)
        self._philox.state = {
            "bit_generator": "Philox", "state": {"counter": np.zeros(4, np.uint64), "key": np.array([number, high], np.uint64)},
            "buffer": np.zeros(4, np.uint64), "buffer_pos": 4, "has_uint32": 0, "uinteger": 0,
        }  # fmt: skip
        _numpy.set_bit_generator(self._philox)
        own_key = np.array([(~words[0] ^ number >> 32) & 0xFFFFFFFF, (words[1] ^ number) & 0xFFFFFFFF], np.uint32)  # no key of a sample's
        md.random.default_generator.restore(md.asarray(own_key, backend="numpy"))
        own = getattr(sys.modules.get("torch"), "default_generator", None)
        if own is not None:
            own.manual_seed((high ^ number) & (2**63 - 1))

    @contextmanager
    def kept(self) -> Iterator[None]:
        """Put them back afterwards."""
        own = getattr(sys.modules.get("torch"), "default_generator", None)
        before = random.getstate(), _numpy.get_bit_generator(), own.get_state() if own is not None else None
        state = md.random.default_generator.get_state()
        try:
            yield
        finally:
            random.setstate(before[0])
            _numpy.set_bit_generator(before[1])
            md.random.default_generator.restore(state)
            if own is not None:
                own.set_state(before[2])
