"""DataLoader: batches of a data set as tensors, in order or shuffled by key, loaded here or by worker processes.

Promises: the same key gives the same batches on every backend and for any number of workers, what random transforms draw included; the position is
saved in mid-pass and resumed with the batches that would have followed; a worker that fails or dies is an error and never a hang.
"""

from __future__ import annotations

import itertools
import math
import weakref
from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping
from typing import Any

import numpy as np

import minidl as md
from minidl.data.collate import tensors
from minidl.data.explaining import explain, iterable
from minidl.data.randomness import Libraries, words_of
from minidl.data.reading import End, Reader, Task, is_stream
from minidl.data.samplers import BatchSampler, RandomSampler, Sampler, SequentialSampler, folded
from minidl.data.workers import Pool

Key = tuple[int, int]


class DataLoader:
    """Iterates over batches of a data set; the tensors lie on the default backend of the moment, or on the `backend` and `device` given.

    dataset: anything with __getitem__ and __len__ (minidl's, torch's or Hugging Face's data sets, lists, arrays, memmaps) or any iterable.
    shuffle, sampler, batch_sampler, drop_last, collate_fn: as in PyTorch; batch_size=None gives single items. generator: a md.random.Generator (the
    default one if None), of which each pass takes a key, or a key, with which the k-th pass always has the same order.
    num_workers: processes that load, started by "spawn" unless multiprocessing_context says otherwise, so that a script needs the usual
    `if __name__ == "__main__":`; worker_init_fn(id) runs in each, prefetch_factor batches are prepared ahead for each, timeout is the longest wait
    for a batch in seconds, persistent_workers keeps them for the next pass. On a device other than the CPU the next batch is sent ahead: pin_memory
    and pin_memory_device, by which PyTorch speeds that up, are accepted and change nothing, as is worker_init_fn without workers.

    state_dict() and load_state_dict() save and resume the position: two integers and a key.

    Raises ValueError for options that exclude each other or would do nothing, TypeError for what is no data set or cannot be sent to a worker,
    RuntimeError for a worker that died or a timeout; an error of a worker is raised with its class and its traceback.

    >>> from minidl.data import TensorDataset
    >>> [x.shape for x, in DataLoader(TensorDataset(md.arange(5)), batch_size=2)]
    [(2,), (2,), (1,)]
    """

    def __init__(
        self,
        dataset: Any,
        batch_size: int | None = 1,
        shuffle: bool | None = None,
        sampler: Any = None,
        batch_sampler: Any = None,
        num_workers: int = 0,
        collate_fn: Callable[[list[Any]], Any] | None = None,
        pin_memory: bool = False,
        drop_last: bool = False,
        timeout: float = 0,
        worker_init_fn: Callable[[int], None] | None = None,
        multiprocessing_context: Any = None,
        generator: Any = None,
        *,
        prefetch_factor: int | None = None,
        persistent_workers: bool = False,
        pin_memory_device: str = "",
        in_order: bool = True,
        backend: str | None = None,
        device: str | None = None,
    ):
        if not in_order:
            raise ValueError("DataLoader: batches always come in order (in_order=True)")
        if generator is not None and not isinstance(generator, md.random.Generator):
            words_of(generator)  # must be a key
        stream = is_stream(dataset)
        self._check_order(stream, batch_size, shuffle, sampler, batch_sampler, drop_last)
        self._check_workers(num_workers, timeout, multiprocessing_context, prefetch_factor, persistent_workers)
        if batch_sampler is not None:
            batch_size, drop_last = None, False
        elif sampler is None and not stream:
            sampler = RandomSampler(dataset) if shuffle else SequentialSampler(dataset)
        self.dataset, self.batch_size, self.drop_last, self.collate_fn, self.generator = dataset, batch_size, drop_last, collate_fn, generator
        self.sampler, self.batch_sampler = sampler, batch_sampler
        self.num_workers, self.timeout, self.worker_init_fn = num_workers, timeout, worker_init_fn
        self.multiprocessing_context = multiprocessing_context
        self.prefetch_factor = 2 if prefetch_factor is None and num_workers else prefetch_factor
        self.persistent_workers, self.backend, self.device = persistent_workers, backend, device
        self.passes = 0  # begun so far
        self._done = 0  # batches handed out of the pass at work; then its key, and its sampler's
        self._words: Key | None = None
        self._order_words: Key | None = None
        self._resuming = False
        self._turn: object = None  # whose batches are counted
        self._pool: Pool | None = None

    # ---- what may be asked for --------------------------------------------------------------------------------------------------------------
    @staticmethod
    def _check_order(stream: bool, batch_size: Any, shuffle: Any, sampler: Any, batch_sampler: Any, drop_last: bool) -> None:
        if stream and (shuffle or sampler is not None or batch_sampler is not None):
            raise ValueError("DataLoader: a stream has an order of its own; shuffle and samplers are for data sets with items by number")
        for name, value in (("sampler", sampler), ("batch_sampler", batch_sampler)):
            if value is not None:
                iterable("DataLoader", name, value)
        if sampler is not None and shuffle:
            raise ValueError("DataLoader: sampler and shuffle exclude each other")
        if batch_sampler is not None:
            if batch_size != 1 or shuffle or sampler is not None or drop_last:
                raise ValueError("DataLoader: batch_sampler excludes batch_size, shuffle, sampler and drop_last")
        elif batch_size is None:
            if drop_last:
                raise ValueError("DataLoader: batch_size=None gives single items; drop_last would do nothing")
        elif not isinstance(batch_size, int) or isinstance(batch_size, bool) or batch_size < 1:
            raise ValueError(f"DataLoader: batch_size must be at least 1 (or None for single items), got {batch_size!r}")

    @staticmethod
    def _check_workers(num_workers: int, timeout: float, context: Any, prefetch: Any, persistent: bool) -> None:
        if num_workers < 0 or timeout < 0:
            raise ValueError(f"DataLoader: num_workers and timeout must not be negative, got {num_workers} and {timeout}")
        if prefetch is not None and prefetch < 1:
            raise ValueError(f"DataLoader: prefetch_factor must be at least 1, got {prefetch}")
        if num_workers == 0:
            options = {"timeout": timeout, "multiprocessing_context": context, "prefetch_factor": prefetch}
            given = [name for name, value in (options | {"persistent_workers": persistent}).items() if value]
            if given:
                raise ValueError(f"DataLoader: {', '.join(given)} would do nothing without workers; set num_workers")

    def __len__(self) -> int:
        if self.batch_sampler is not None:
            return len(self.batch_sampler)
        n = len(self.dataset if self.sampler is None else self.sampler)
        if self.batch_size is None:
            return n
        return n // self.batch_size if self.drop_last else math.ceil(n / self.batch_size)

    # ---- one pass -------------------------------------------------------------------------------------------------------------------------
    def __iter__(self) -> Iterator[Any]:
        if not self._resuming:
            self._words = folded(self.generator, self.passes) if isinstance(self.generator, md.Tensor) else words_of(self.generator)
            source = self._source()
            self._order_words = self._words if source is None else source.words_for(self.passes, self._words)
            self.passes, self._done = self.passes + 1, 0
        self._resuming, self._turn = False, object()
        assert self._words is not None and self._order_words is not None
        return self._handed(self._turn, self._batches(self._words, self._order_words, self._done))

    def _handed(self, turn: object, batches: Generator[Any]) -> Iterator[Any]:
        """Batches as tensors, the position counted as each is handed out, unless a later pass or another position is what counts; sent one ahead to
        a device that is not the CPU."""
        waiting: deque[Any] = deque()
        try:
            for batch, owned in batches:
                where = md.empty(0, backend=self.backend, device=self.device)
                waiting.append(tensors(batch, owned=owned, backend=where.backend, device=where.device))
                if len(waiting) > (where.device != "cpu"):
                    self._done += turn is self._turn
                    yield waiting.popleft()
            while waiting:
                self._done += turn is self._turn
                yield waiting.popleft()
            if turn is self._turn:
                self._done, self._words, self._order_words = 0, None, None
        finally:
            batches.close()

    def _batches(self, words: Key, order: Key, done: int) -> Generator[Any]:
        """(batch as the loading side makes it, whether its memory is its own) of the rest of a pass."""
        reader = Reader(self.dataset, self.collate_fn, self.batch_size, self.drop_last, self.batch_size is not None or self.batch_sampler is not None)
        if not self.num_workers:
            reader.start(words)
            for task in self._tasks(reader, order, done):
                batch = reader(task)
                if batch is End:
                    return
                yield batch, reader.owns
            return
        pool, kept = self._workers(reader, words)
        pool.busy = True
        try:
            found = pool.run(words, self._tasks(reader, order, done), self.prefetch_factor or 1, self.timeout)
            for batch in itertools.islice(found, done if reader.stream else 0, None):
                yield batch, True
        except GeneratorExit:  # left early: what is still in work is dropped when it comes
            raise
        except BaseException:
            kept, self._pool = False, self._pool if pool is not self._pool else None
            raise
        finally:
            pool.busy = False
            if not kept:
                pool.close()

    def _workers(self, reader: Reader, words: Key) -> tuple[Pool, bool]:
        """(the workers for a pass, whether they are kept afterwards)."""
        if self._pool is not None and not self._pool.busy:
            return self._pool, True
        pool = Pool(reader, self.num_workers, self.multiprocessing_context, self.worker_init_fn, words[0] << 31 | words[1])
        if self.persistent_workers and self._pool is None:
            self._pool = pool
            weakref.finalize(self, pool.close)
            return pool, True
        return pool, False

    def _tasks(self, reader: Reader, order: Key, done: int) -> Iterator[Task]:
        if reader.stream:
            size = self.batch_size or 1
            start = 0 if self.num_workers else done  # each worker runs to its place by itself
            yield from (Task(n, n * size, None, skip=n < done) for n in itertools.count(start))
        first = 0
        for number, indices in enumerate(self._indices(order)):
            if number >= done:
                yield Task(number, first, indices)
            first += len(indices) if reader.batched else 1

    def _source(self) -> Sampler | None:
        """The sampler whose order is a function of a key, if there is one."""
        inner = self.sampler if self.batch_sampler is None else getattr(self.batch_sampler, "sampler", None)
        ours = self.batch_sampler is None or type(self.batch_sampler) is BatchSampler
        return inner if ours and isinstance(inner, Sampler) and type(inner).order is not Sampler.order else None

    def _indices(self, words: Key) -> Iterator[Any]:
        """The item numbers of each batch (or each item's, without batches)."""
        source = self._source()
        if source is not None:
            order: Any = source.order(words)
            if self.batch_sampler is not None:
                return self.batch_sampler.batches(iter(order.tolist()))
            if self.batch_size is None:
                return iter(order.tolist())
            ends = range(self.batch_size, len(order) + (0 if self.drop_last else self.batch_size - 1) + 1, self.batch_size)
            return (order[end - self.batch_size : end] for end in ends)
        order = self.sampler if self.batch_sampler is None else self.batch_sampler
        if hasattr(order, "__len__"):  # drawn at once, from generators that the key of the pass decides, so that it can be resumed
            libraries = Libraries()
            with libraries.kept():
                libraries.reseed(words, 0)
                order = list(order)
        if self.batch_sampler is not None or self.batch_size is None:
            return iter(order)
        return BatchSampler(order, self.batch_size, self.drop_last).batches(iter(order))

    # ---- the position -----------------------------------------------------------------------------------------------------------------------
    def state_dict(self) -> dict[str, Any]:
        """The position: passes begun, batches handed out in this one, its keys, and the state of generators that were given to this loader.

        Integers, lists of them and None. The default generator is not in it: save that beside it if later passes draw from it.

        >>> loader = DataLoader(range(6), batch_size=2, shuffle=True, generator=md.random.key(0))
        >>> batches = iter(loader)
        >>> first, state = next(batches), loader.state_dict()
        >>> again = DataLoader(range(6), batch_size=2, shuffle=True, generator=md.random.key(0))
        >>> again.load_state_dict(state)
        >>> [b.tolist() for b in again] == [b.tolist() for b in batches]
        True
        """
        return {
            "pass": self.passes, "batch": self._done, "key": _listed(self._words), "order": _listed(self._order_words),
            "generators": [g.key.tolist() for g in self._generators()], **self._settings(),
        }  # fmt: skip

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go to a position that state_dict gave: the next pass gives what is left of that one, and later passes follow as they would have.

        A stream runs through what was read before; one that divides itself among workers needs as many workers as then. Raises ValueError for a
        state that is damaged, or of a loader with another length or batch size.
        """
        try:
            settings = {name: state[name] for name in self._settings()}
            passes, done = int(state["pass"]), int(state["batch"])
            key, order = (None if state[name] is None else (int(state[name][0]), int(state[name][1])) for name in ("key", "order"))
            generators = [np.array([int(w) for w in words], np.uint32) for words in state["generators"]]
        except (KeyError, TypeError, ValueError, IndexError, OverflowError) as error:
            raise ValueError(f"DataLoader: this is no state of a loader ({type(error).__name__}: {error})") from error
        if settings != self._settings():
            raise ValueError(f"DataLoader: the state is of a loader with {settings}, and this one has {self._settings()}")
        if passes < 0 or done < 0 or (key is None) != (order is None) or len(generators) != len(self._generators()):
            raise ValueError("DataLoader: the state is damaged, or of a loader with other generators")
        self.passes, self._done, self._words, self._order_words, self._resuming = passes, done, key, order, key is not None
        self._turn = None
        for generator, words in zip(self._generators(), generators, strict=True):
            generator.restore(md.asarray(words))

    def _generators(self) -> list[md.random.Generator]:
        source = self._source()
        own = [self.generator, None if source is None else source.generator]
        return [g for g in own if isinstance(g, md.random.Generator) and g is not md.random.default_generator]

    def _settings(self) -> dict[str, Any]:
        """What a position means nothing without."""
        counted = self.sampler if self.sampler is not None else self.batch_sampler
        return {"length": len(counted) if hasattr(counted, "__len__") else None, "batch_size": self.batch_size, "drop_last": self.drop_last}


def _listed(words: Key | None) -> list[int] | None:
    return None if words is None else list(words)


explain(globals(), ["DataLoader"])
