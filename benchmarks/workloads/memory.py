"""memory: the peak of a training step above parameters and optimizer state, jitted over eager, on numpy and numba.

Each side is the median of several processes, with an allocator that gives freed memory back at once: the most memory that the process held during
the steps after the first (Linux keeps that mark, VmHWM, and it can be reset), less what it holds once only the parameters and the optimizer's state
are left. Holes that imports and compilation have left in the heap are closed first: an array that finds room in one leaves its pages resident when it
goes, another finds room unseen, and which it is the layout of the heap decides, by a quarter of what LeNet's step takes. So what counts are the
pages of what is alive at once: what any allocator has to find. Work space and idle memory that are kept from call to call count, gradients that a
step leaves behind count, compiled code that stays does not.

The step that drops its gradients at its end shows what a compiler can do: those of mlp are two thirds of all that the eager step holds. "Gradients
kept" is the same step with zero_grad at its beginning: what it leaves for the reader has to exist, whoever makes it.
"""

from __future__ import annotations

import ctypes
import gc
import importlib
import itertools
import os
import re
import statistics
from pathlib import Path
from typing import Any

from benchmarks.timing import Side

GOAL, STEPS, PROCESSES = 0.6, 4, 3
LEAST = 1 << 14  # bytes from which on an array has pages of its own
TASKS = ("mlp", "cnn", "transformer")
#: malloc keeps freed blocks for later otherwise, and the kernel hands out pages of 2 MB.
ENVIRONMENT = {"MALLOC_MMAP_THRESHOLD_": str(LEAST), "MALLOC_TRIM_THRESHOLD_": "0", "MALLOC_TOP_PAD_": "0", "NUMPY_MADVISE_HUGEPAGE": "0"}


def status(field: str) -> int:
    """Bytes that Linux counts for this process: VmRSS now, VmHWM at most since the mark was reset."""
    found = re.search(rf"{field}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    if found is None:
        raise OSError(f"the system does not tell {field}")
    return int(found[1]) * 1024


def trim_heap() -> None:
    """Give the free pages inside malloc's heap back, where malloc can (glibc)."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def fill_holes() -> None:
    """Take the free blocks of LEAST bytes and more inside malloc's heap for good, untouched, where malloc maps what finds no room there (glibc)."""
    libc = ctypes.CDLL(None)
    libc.malloc.restype, libc.malloc.argtypes, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_size_t], [ctypes.c_void_p]
    heap = re.search(r"(\w+)-(\w+) .*\[heap\]", Path("/proc/self/maps").read_text())
    if heap is None:
        return
    low, high = (int(x, 16) for x in heap.groups())
    for bits in range(26, LEAST.bit_length() - 2, -1):
        while low <= (at := libc.malloc(1 << bits) or 0) < high:
            pass
        libc.free(at)


def measured(workload: str, backend: str, jitted: bool, keep: bool = False) -> Side:
    """The side of the child process: its answer is [peak above parameters and state, bytes of these]. keep: the gradients stay after a step."""
    import minidl as md
    from benchmarks.sides import Way
    from benchmarks.workloads import training
    from minidl.backends.numpy_memory import trim

    task: training.Task = importlib.import_module(f"benchmarks.workloads.{workload}").task()
    way = Way(backend, jitted)
    net, optimizer, run = training.minidl_step(task, way, keep)

    def answer() -> list[Any]:
        nonlocal run
        for _ in range(2):  # the first compiles
            run()
        gc.collect()
        trim_heap()
        fill_holes()
        Path("/proc/self/clear_refs").write_text("5")
        for _ in range(STEPS):
            run()
        most = status("VmHWM")
        run = None  # with it the program, its work space and the batch
        for p in net.parameters():
            p.grad = None
        gc.collect()
        trim()
        trim_heap()
        left = status("VmRSS")
        states = [t for s in optimizer.state.values() for t in s.values() if isinstance(t, md.Tensor)]
        return [most - left, sum(t.size * t.dtype.itemsize for t in [*net.parameters(), *states])]

    return Side(lambda: None, answer)


def run(bench: Any) -> None:
    """A row for each network, step and backend."""
    from benchmarks.remote import remote

    if not os.access("/proc/self/clear_refs", os.W_OK):
        bench.note("memory: not measured, for this system keeps no resettable mark of a process's memory")
        return
    for workload, keep in itertools.product(TASKS, (False, True)):
        for backend in (b for b in bench.backends if b in ("numpy", "numba")):
            found, state, name = {}, 0, f"memory: {workload}{', gradients kept' if keep else ''}, minidl {backend}"
            for jitted, way in ((False, "eager"), (True, "jit")):
                peaks = []
                try:
                    for _ in range(PROCESSES):
                        side = remote("benchmarks.workloads.memory:measured", (workload, backend, jitted, keep), ENVIRONMENT)
                        peak, state = side.answer()
                        side.close()
                        peaks.append(peak)
                    found[way] = statistics.median(peaks)
                    bench.row(f"{name} {way}", found[way] / 2**20, "MB")
                except Exception as error:
                    bench.note(f"{name} {way} FAILED: {str(error)[:200]}")
            bench.row(f"{name} parameters and state", state / 2**20 if found else None, "MB")
            bench.row(f"{name} jit / eager", found["jit"] / found["eager"] if len(found) == 2 else None, "x", GOAL)
