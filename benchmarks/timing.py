"""How everything here is timed: pinned cores, all sides of a workload in turns.

Promises: `pin` is called before any array library is imported; the sides take turns in rounds, in rotating order, so that a slow moment of the
machine hits all of them, and what other programs took is left out where the system says so; a value is the best of many blocks, and the quartiles of
the round-by-round ratios say how far to trust it. With more than one thread a block begins when the threads that the side before left spinning are
still, or after half a second, and when the side's own have been spread over the cores by steps that do not count. A side that needs a process of its
own (see remote.py) measures its block there, on the same cores, while this process waits.
"""

from __future__ import annotations

import gc
import os
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import repeat
from typing import Any

THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")


def pin(threads: int = 1, device: str = "cpu") -> tuple[int, ...]:
    """As many cores as threads for this process and its children; their numbers, or () where the system cannot pin."""
    for name in THREADS:
        os.environ[name] = str(threads)
    if threads == 1:
        os.environ["XLA_FLAGS"] = (os.environ.get("XLA_FLAGS", "") + " --xla_cpu_multi_thread_eigen=false").strip()
    if device == "cpu":
        os.environ.setdefault("JAX_PLATFORMS", "cpu")
    else:
        os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # torch needs memory of the same device
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    if not hasattr(os, "sched_setaffinity"):
        return ()
    if device != "cpu":
        return ()  # the libraries' own helper threads need the other cores
    cores = tuple(sorted(os.sched_getaffinity(0))[-threads:])
    os.sched_setaffinity(0, cores)
    return cores


_last = [0.0]


def progress(text: str) -> None:
    """The progress line on stderr: rewritten in place on a terminal, a line every five seconds elsewhere."""
    if sys.stderr.isatty():
        sys.stderr.write(f"\r\x1b[K{text}")
    elif time.perf_counter() - _last[0] > 5:
        _last[0] = time.perf_counter()
        sys.stderr.write(text + "\n")
    sys.stderr.flush()


@dataclass
class Side:
    """One contestant: `step()` is timed, `sync(result)` waits for it, `answer()` gives arrays that all sides must agree on."""

    step: Callable[[], Any]
    answer: Callable[[], list[Any]]
    sync: Callable[[Any], Any] = lambda out: None
    block: Callable[[int], float] | None = None  # seconds per step over so many steps, where this process cannot run them
    close: Callable[[], None] = lambda: None


@dataclass
class Times:
    """Seconds per step, one sample a round."""

    samples: list[float] = field(default_factory=list)

    @property
    def best(self) -> float:
        """The quickest round: noise only ever adds."""
        return min(self.samples)

    @property
    def median(self) -> float:
        """The middle round."""
        return statistics.median(self.samples)


def spread(values: list[float]) -> tuple[float, float]:
    """The first and third quartile."""
    if len(values) < 2:
        return values[0], values[0]
    low, _, high = statistics.quantiles(values, n=4)
    return low, high


def quiet() -> bool:
    """Wait for the libraries' pools of threads; False with one thread, where there are none."""
    from minidl import stopwatch

    if os.environ.get(THREADS[0]) == "1":
        return False
    stopwatch.settle()
    return True


def spread_out(side: Side) -> None:
    """Let a side run until its threads lie on several cores."""
    from minidl import stopwatch

    end = time.perf_counter() + stopwatch.SPREAD
    while time.perf_counter() < end:
        side.sync(side.step())


def block(side: Side, count: int) -> float:
    """Seconds per step over `count` steps and one wait, without what the system gave to other programs."""
    from minidl.stopwatch import Stopwatch  # which imports NumPy

    several = quiet()
    if side.block is not None:
        return side.block(count)
    if several:
        spread_out(side)
    step, out = side.step, None
    watch = Stopwatch()
    for _ in repeat(None, count):
        out = step()
    side.sync(out)
    return watch.seconds() / count


def interleave(sides: dict[str, Side], seconds: float, label: str, least: float = 0.01, rounds: int = 7) -> dict[str, Times]:
    """Time all sides in turns for about `seconds` altogether, in blocks of at least `least` seconds, in at least `rounds` rounds."""
    counts = {}
    for name, side in sides.items():
        block(side, 2)
        counts[name] = int(least / block(side, 2)) + 1
    gc.collect()
    gc.freeze()  # the libraries' own objects: the collector stays on, as in a user's program, and has only the step's garbage to look at
    times = {name: Times() for name in sides}
    names, start, done = list(sides), time.perf_counter(), 0
    while done < min(rounds, 3 + int(seconds)) or time.perf_counter() - start < seconds:
        for name in names[done % len(names) :] + names[: done % len(names)]:
            times[name].samples.append(block(sides[name], counts[name]))
        done += 1
        if done % 10 == 0 or done == rounds:
            progress(f"{label}: round {done}, {time.perf_counter() - start:.0f} of about {seconds:.0f} s, {len(names)} sides")
    gc.unfreeze()
    return times
