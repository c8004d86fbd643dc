"""How long a program took, without the time that the system gave to other programs: what is timed on a loaded machine is what a quiet one shows.

Threads of this very process are another matter: the pools of array libraries spin for a while after their work, on processors that whoever runs next
wants. `settle` waits for them before a clock starts. And threads that have slept for a tenth of a second begin on one processor, where they take
turns: whoever wants to know how quick a loop is lets it run for SPREAD seconds first. (XLA's two took 10 to 25 steps of 2.5 ms on two cores, and 1.3
from then on.)

Linux says of every thread how long it was ready to run while others ran. That is taken off the time that passed, but never more than lies between it
and the processor time of this process, since the threads of a pool wait side by side; sleeping, waiting for a disk or for an accelerator stays in.
Where the system does not say, the time that passed is what is told.
"""

from __future__ import annotations

import os
import threading
import time

_TASKS = "/proc/self/task"
#: Seconds after which Linux has spread threads over several processors.
SPREAD = 0.04 if len(os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1)) > 1 else 0.0


def running() -> int:
    """How many threads of this process run or are ready to, this one apart; 0 where the system does not say."""
    mine, count = str(threading.get_native_id()), 0
    try:
        for thread in os.listdir(_TASKS):
            try:
                with open(f"{_TASKS}/{thread}/stat", "rb") as file:
                    count += thread != mine and file.read().rpartition(b")")[2].split()[0] == b"R"
            except (OSError, IndexError):  # it ended meanwhile
                continue
    except OSError:
        return 0
    return count


def settle(limit: float = 0.5) -> bool:
    """Wait until the threads of this process are still, so many seconds at most; whether they are. OpenBLAS's spin for a tenth of a second.

    >>> settle()
    True
    """
    end = time.perf_counter() + limit
    while running():
        if time.perf_counter() > end:
            return False
        time.sleep(1e-3)
    return True


def waited() -> float:
    """Seconds that the threads of this process were ready to run and did not, all together; 0 where that is not known."""
    total = 0
    try:
        for thread in os.listdir(_TASKS):
            try:
                with open(f"{_TASKS}/{thread}/schedstat", "rb") as file:
                    total += int(file.read().split()[1])
            except (OSError, ValueError, IndexError):  # it ended meanwhile, or the system keeps no account
                continue
    except OSError:
        return 0.0
    return total * 1e-9


class Stopwatch:
    """Runs from when it is made.

    >>> watch = Stopwatch()
    >>> 0 <= watch.seconds() < 60
    True
    """

    __slots__ = ("delay", "start", "work")

    def __init__(self) -> None:
        self.delay, self.work, self.start = waited(), time.process_time(), time.perf_counter()

    def seconds(self) -> float:
        """Seconds so far."""
        passed, work = time.perf_counter() - self.start, time.process_time() - self.work
        return max(passed - max(waited() - self.delay, 0.0), min(passed, work))
