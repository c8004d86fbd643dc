"""Worker processes of a DataLoader.

Workers are started afresh ("spawn") unless told otherwise: a fork copies the locks, but not the threads, of jax, torch and OpenBLAS, and can hang in
the child. It costs the start of Python and the import of what the data set needs, once for each pass, or once at all with persistent_workers.

Each worker has a connection of its own, and the parent sends and receives while it waits for a batch: no threads, no locks that a killed process
could hold. A worker that dies ends its connection, which the parent sees at once; a parent that dies ends all of them, and the workers leave.
Ctrl-C is the parent's business: workers ignore it and are told to stop.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from multiprocessing import connection
from typing import Any

import minidl as md
from minidl.data import sharing
from minidl.data.reading import End, Reader, Task, WorkerInfo, become_worker
from minidl.data.sharing import Packet, receive, send, sendable

LAMBDA = (
    "Define classes and functions at the top of a module that can be imported (lambdas and local classes cannot be sent), or load in this process "
    'with num_workers=0; multiprocessing_context="fork" sends nothing, where no other thread is at work'
)


# ---- in the worker --------------------------------------------------------------------------------------------------------------------------
def main(wire: Any, number: int, count: int, setup: Any = None, inherited: Sequence[Any] = ()) -> None:
    """What a worker process does: make batches until it is told to stop, or until the parent is gone, whose ends of connections are closed here:
    a fork has them too, and none would end while it lives."""
    for end in inherited:
        end.close()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # a fork has its parent's handlers
    parent = os.getppid()
    try:
        with md.use_backend("numpy"):  # a data set that is sent may hold tensors or make some: none on a device that the parent uses
            reader, init, seed, sharing.SHARED = setup or receive(wire)
            become_worker(WorkerInfo(number, count, seed + number, reader.dataset))
            reader.worker = True
            if "torch" in sys.modules:
                sys.modules["torch"].set_num_threads(1)
            if init is not None:
                init(number)
            send(wire, (None, None, True))
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return
    except BaseException as error:
        with suppress(OSError):
            send(wire, (None, _told(error), False))
        return
    with md.use_backend("numpy"), suppress(EOFError, BrokenPipeError, ConnectionResetError):
        _serve(wire, reader, parent)


def _serve(wire: Any, reader: Reader, parent: int) -> None:
    current = None
    while True:
        while not wire.poll(2.0):
            if os.getppid() != parent:  # what was forked later may hold the parent's end open
                return
        message = receive(wire)
        if message is None:
            return
        which, words, task = message
        if which != current:
            reader.start(words)
            current = which
        try:
            packet = sendable("DataLoader: this batch", ((which, task.number), reader(task), True), "Give arrays, numbers, text, containers of them")
        except BaseException as error:
            packet = Packet(((which, task.number), _told(error), False))
        try:
            packet.send(wire)
        finally:
            packet.close()


def _told(error: BaseException) -> tuple[type | None, str]:
    """The class of an error, if the parent can have it, and its traceback as text."""
    text = "".join(traceback.format_exception(error))
    try:
        Packet(type(error)).close()
    except Exception:
        return None, text
    return type(error), text


# ---- in the parent --------------------------------------------------------------------------------------------------------------------------
class Worker:
    """One process, its connection, and what it has been asked and has not answered."""

    def __init__(self, context: Any, number: int, count: int, setup: Any, before: Sequence[Worker]):
        self.number, self.waiting, self.turn, self.over = number, 0, 0, False
        self.wire, theirs = context.Pipe(duplex=True)
        inherited = [w.wire for w in (*before, self)] if context.get_start_method() == "fork" else ()
        task = (theirs, number, count, setup, inherited)
        self.process = context.Process(target=main, args=task, name=f"minidl data worker {number}", daemon=True)
        try:
            self.process.start()
        finally:
            theirs.close()

    def died(self) -> RuntimeError:
        """What to raise when it is no longer there."""
        self.process.join(5)
        code = self.process.exitcode
        how = f"was killed by {signal.Signals(-code).name}" if code is not None and code < 0 else f"ended with exit code {code}"
        hint = (
            "memory may have run out"
            if code == -9
            else "its own message stands above; a script that uses workers must start its work under `if __name__ == '__main__':`"
        )
        return RuntimeError(f"DataLoader: worker {self.number} (process {self.process.pid}) {how} before its batch was ready ({hint})")


class _Text(str):
    """A message of several lines in an error that shows the repr of its argument, as KeyError does."""

    __slots__ = ()

    def __repr__(self) -> str:
        return str(self)


def _raise(number: int, told: tuple[type[BaseException] | None, str]) -> None:
    kind, text = told
    name = "an error" if kind is None else kind.__name__
    message = f"Caught {name} in DataLoader worker process {number}.\nOriginal {text}"
    if kind is None or not issubclass(kind, Exception) or issubclass(kind, (StopIteration, StopAsyncIteration)):
        raise RuntimeError(message)
    try:
        error: Exception = kind(_Text(message))
    except Exception:  # it takes other arguments
        error = RuntimeError(message)
    raise error


@contextmanager
def _interrupts_later() -> Iterator[None]:
    """Ctrl-C waits; and a process that is started inside never gets it, not even while Python starts."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class Pool:
    """Some workers with copies of one reader. Raises TypeError for what cannot be sent to them, ValueError for an unknown way to start processes."""

    def __init__(self, reader: Reader, count: int, context: Any, init: Callable[[int], None] | None, seed: int):
        if context is None or isinstance(context, str):
            context = multiprocessing.get_context(context or "spawn")
        self.workers: list[Worker] = []
        self.passes, self.stream, self.busy = 0, reader.stream, False
        setup = (reader, init, seed, sharing.SHARED)
        forked = context.get_start_method() == "fork"
        unset = multiprocessing.get_start_method(allow_none=True) is None
        packet = None if forked else sendable("DataLoader: the data set, collate_fn or worker_init_fn", setup, LAMBDA)
        try:
            for i in range(count):
                with _interrupts_later():
                    self.workers.append(Worker(context, i, count, setup if forked else None, self.workers))
                if packet is not None:
                    with suppress(OSError):  # gone already: noticed when its first answer is awaited
                        packet.send(self.workers[-1].wire)
        except BaseException:
            self.close()
            raise
        finally:
            if packet is not None:
                packet.close()
            if unset:  # to start a process chooses the default way for good, which is for the user to do
                multiprocessing.set_start_method(None, force=True)

    def run(self, words: tuple[int, int], tasks: Iterator[Task], window: int, timeout: float) -> Iterator[Any]:
        """The batches of the tasks, in their order; those of skipped tasks are None. At most `window` are in work for each worker."""
        window = window if sharing.SHARED else 1  # where a message can fill a pipe, only a worker that waits for it is sent one
        self.passes += 1
        for each in self.workers:
            each.over, each.turn = False, 0
        ready: dict[int, tuple[Worker, Any, bool]] = {}
        asked: deque[int] = deque()  # numbers of tasks in order, not yet handed on
        more = True
        while True:
            while more and len(asked) < window * len(self.workers) and (worker := self._next_worker(window)) is not None:
                task = next(tasks, None)
                more = task is not None
                if task is not None:
                    self._ask(worker, (self.passes, words, task))
                    asked.append(task.number)
            if not asked and not (more and any(not w.over for w in self.workers)):
                return
            end = time.monotonic() + timeout if timeout else None
            while asked[0] not in ready if asked else self._next_worker(window) is None:
                self._hear(ready, timeout, end)
            if asked:
                origin, answer, fine = ready.pop(asked.popleft())
                if not fine:
                    _raise(origin.number, answer)
                if answer is not End:
                    yield answer

    def _next_worker(self, window: int) -> Worker | None:
        """Who is asked next: of a stream each in turn, so that the order of batches does not depend on speed; otherwise who has least to do."""
        there = [w for w in self.workers if not w.over]
        if self.stream:
            there = sorted(there, key=lambda w: (w.turn, w.number))[:1]
        free = [w for w in there if w.waiting < window]
        return min(free, key=lambda w: w.waiting) if free else None

    def _ask(self, worker: Worker, message: Any) -> None:
        try:
            send(worker.wire, message)
        except OSError:
            raise worker.died() from None
        worker.waiting += 1
        worker.turn += 1

    def _hear(self, ready: dict[int, tuple[Worker, Any, bool]], timeout: float, end: float | None) -> None:
        """Take what has come, and wait for it if nothing has."""
        owners = {w.wire: w for w in self.workers} | {w.process.sentinel: w for w in self.workers}
        found = connection.wait(owners, None if end is None else max(0.0, end - time.monotonic()))
        if not found:
            raise RuntimeError(f"DataLoader: timed out: no batch within {timeout} seconds")
        for worker in dict.fromkeys(owners[handle] for handle in found):  # type: ignore[index]
            try:
                if not worker.wire.poll():
                    raise EOFError
                tag, answer, fine = receive(worker.wire)
            except (EOFError, OSError):
                raise worker.died() from None
            if tag is None:  # it has started, or failed to
                if not fine:
                    _raise(worker.number, answer)
                continue
            worker.waiting -= 1
            if tag[0] == self.passes:
                worker.over |= answer is End
                ready[tag[1]] = worker, answer, fine

    def close(self) -> None:
        """Tell the workers to stop, and stop those that do not within two seconds."""
        for worker in self.workers:
            with suppress(OSError):
                if not worker.waiting:
                    send(worker.wire, None)
            worker.wire.close()
        end = time.monotonic() + 2
        for stop in ("terminate", "kill"):
            for worker in self.workers:
                worker.process.join(max(0.0, end - time.monotonic()))
                if worker.process.is_alive():
                    getattr(worker.process, stop)()
            end = time.monotonic() + 2
        for worker in self.workers:
            worker.process.join(2)
            with suppress(ValueError):
                worker.process.close()
        self.workers = []
