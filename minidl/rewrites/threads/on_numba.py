"""numba: a kernel in parts, which whoever of a few threads is free takes, one after the other.

Waking a thread takes some tens of microseconds (on a virtual machine 25, and as much for the way back), as long as many a kernel. So whoever waits
looks again and again for about that long before it sleeps: never more than twice what knowing the future would cost (A. Karlin and others,
Competitive randomized algorithms for non-uniform problems, 1990). Parts are smaller than a thread's share: who comes late finds less left, and a
thread that is still asleep when the last part is taken is let sleep, not waited for. Threads are not made anew for each kernel: while the one before
still ends on the other processor, Linux puts a new one behind its maker, and the two run one after the other.

Products are divided likewise, and BLAS has one thread meanwhile. A program whose BLAS cannot be told so leaves large products to BLAS's threads, and
has none of its own.

Promises: a program that runs while others use the threads runs with those that are left, if need be alone; a child process begins its own; what a
kernel computes depends on the number of parts, never on who takes them.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import importlib
import os
import threading
from typing import Any

import numpy as np
from numba import types
from numba.extending import intrinsic

from minidl.backends.numba_kernels import BROUGHT, kernel
from minidl.backends.numba_machine import as_ptr, call, call0, call1, call2, call3, call4, jit
from minidl.backends.numpy_helpers import AVX512, openblas
from minidl.dtypes import DType, float32

BROUGHT.update(dict.fromkeys(("on_threads", "member"), __name__))
DIVIDE, _MEMBER = "def k(a):\n    on_threads(a)\n", "def k(a):\n    member(a)\n"
_LOOKS = 8000  # how often whoever waits looks before it sleeps: each takes 5 ns
_ROWS = 16  # rows or columns of a product that are worth a thread
_DIRECT, _AT_HAND = 10**6, 1 << 19  # multiplications up to which OpenBLAS copies no operand first, and bytes that a cache keeps
_WHOLE = 64  # elements to whose multiples the borders of large parts are moved: lines of cache that two threads write go to and fro
# A gate is one thread's to wait at: whether it is open, how many sleep there, and what POSIX calls a mutex and a condition. A member is the gate at
# which it waits for work, the one at which others wait for it, its work (job, arguments), whether it is free, its thread, where it and the crew are,
# the processor that it keeps off, and those that it may use then (which are so many bytes).
_MUTEX, _CONDITION, _GATE = 16, 80, 192  # bytes
_DONE, _JOB, _ARGS, _FREE, _THREAD, _SELF, _CREW, _AVOIDS, _MASK, _MASKED, _SIZE = 192, 384, 392, 400, 408, 416, 424, 432, 448, 128, 576
# The crew: these functions, what a member runs, how many there are; then the members.
_CREATE, _LOCK, _UNLOCK, _WAIT, _SIGNAL, _HERE, _ALLOWED, _PLACE, _RUN, _COUNT, _FIRST = 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 128
_FUNCTIONS = ("pthread_create", "pthread_mutex_lock", "pthread_mutex_unlock", "pthread_cond_wait", "pthread_cond_signal")
_PLACING = ("sched_getcpu", "sched_getaffinity", "pthread_setaffinity_np")  # Linux's


def _atomic(operation: str) -> Any:
    """(address, operand) → what was there before."""

    def typed(typingctx, address, operand):  # type: ignore[no-untyped-def]
        def generate(context, builder, sig, args):  # type: ignore[no-untyped-def]
            return builder.atomic_rmw(operation, builder.inttoptr(args[0], args[1].type.as_pointer()), args[1], "seq_cst")

        return types.int64(types.int64, types.int64), generate

    return intrinsic(typed)


swap, add = _atomic("xchg"), _atomic("add")


@jit
def let(crew, gate):
    """Open a gate."""
    swap(gate, 1)
    if add(gate + 8, 0):
        c = as_ptr(crew, np.int64)
        call1(c[_LOCK], (gate + _MUTEX,))
        call1(c[_SIGNAL], (gate + _CONDITION,))
        call1(c[_UNLOCK], (gate + _MUTEX,))


@jit
def through(crew, gate):
    """Wait until a gate is open, and close it."""
    for _ in range(_LOOKS):
        if add(gate, 0) and swap(gate, 0):
            return
    c = as_ptr(crew, np.int64)
    call1(c[_LOCK], (gate + _MUTEX,))
    add(gate + 8, 1)
    while swap(gate, 0) == 0:
        call2(c[_WAIT], (gate + _CONDITION, gate + _MUTEX))
    add(gate + 8, -1)
    call1(c[_UNLOCK], (gate + _MUTEX,))


@jit
def aside(c, m):
    """Keep a member off the processor that its caller runs on, among those that the caller may use now: of a virtual machine Linux takes a processor
    that sleeps for one that is taken, and lets who is woken wait behind its waker."""
    here, mask = np.int64(call0(c[_HERE], ())), m[_SELF // 8] + _MASK
    if here == m[_AVOIDS // 8] or not 0 <= here < 8 * _MASKED:
        return
    m[_AVOIDS // 8] = here
    if call3(c[_ALLOWED], (np.int64(0), np.int64(_MASKED), mask)) == 0:
        m[_MASK // 8 + here // 64] &= ~(np.int64(1) << here % 64)
        call3(c[_PLACE], (m[_THREAD // 8], np.int64(_MASKED), mask))  # which changes nothing where no other is left


@jit
def border(n, i, parts):
    """Where part i of so many of an axis begins."""
    at = n * i // parts
    return at // _WHOLE * _WHOLE if n >= 4 * _WHOLE * parts and i < parts else at


@jit
def take(job, args):
    """Do parts of a job (next part, kernel, parts, number of the argument `first`, size of the axis) until none is left."""
    j, p = as_ptr(job, np.int64), as_ptr(args, np.int64)
    while True:
        i = add(job, 1)
        if i >= j[2]:
            return
        p[j[3]], p[j[3] + 1], p[j[3] + 2] = border(j[4], i, j[2]), border(j[4], i + 1, j[2]), i
        call(j[1], args)


@jit
def member(a):
    """What a thread of the crew does, as long as the process lives. a: the member."""
    m, place = as_ptr(a[_CREW // 8], np.int64), a[_SELF // 8]
    while m[_COUNT]:
        through(a[_CREW // 8], place)
        take(a[_JOB // 8], a[_ARGS // 8])
        let(a[_CREW // 8], place + _DONE)


@jit
def on_threads(a):
    """A kernel in parts. a: the crew, how many of it may help, the kernel, parts, number of the argument `first` (then come `last` and the number of
    the part), size of the axis to divide, number of arguments; the arguments.
    """
    crew, most, first, count = a[0], a[1], a[4], a[6]
    c = as_ptr(crew, np.int64)
    block = np.empty(5 + most + (most + 1) * count, np.int64)
    job = block.ctypes.data
    b = as_ptr(job, np.int64)
    b[0], b[1], b[2], b[3], b[4] = 0, a[2], a[3], first, a[5]
    helpers, args = 0, 5 + most
    for j in range(count):
        b[args + j] = a[7 + j]
    for k in range(c[_COUNT]):
        place = crew + _FIRST + _SIZE * k
        if helpers == most:
            break
        if swap(place + _FREE, 0) == 0:
            continue
        m, mine = as_ptr(place, np.int64), args + (helpers + 1) * count
        for j in range(count):
            b[mine + j] = a[7 + j]
        m[_JOB // 8], m[_ARGS // 8] = job, job + 8 * mine
        if m[_THREAD // 8] == 0 and call4(c[_CREATE], (place + _THREAD, np.int64(0), c[_RUN], place)) != 0:
            m[_THREAD // 8] = 0  # no thread is to be had; POSIX leaves open what stands here then, and glibc leaves what it has freed
            swap(place + _FREE, 1)
            break
        if c[_PLACE]:
            aside(c, m)
        let(crew, place)
        b[5 + helpers] = place
        helpers += 1
    take(job, job + 8 * args)
    for k in range(helpers):
        place = b[5 + k]
        if swap(place, 0) == 0:  # else it has not even seen the job
            through(crew, place + _DONE)
        swap(place + _FREE, 1)
    block[0] = helpers  # it must live until here


@functools.cache
def crew() -> int | None:
    """The address of the threads of this process, of which none runs yet; None where the C library has not what they need."""
    try:
        library = ctypes.CDLL(None)
        found = [ctypes.cast(getattr(library, name), ctypes.c_void_p).value for name in _FUNCTIONS]
        inits = [getattr(library, f"pthread_{name}_init") for name in ("mutex", "cond")]
    except (AttributeError, OSError, TypeError):
        return None
    has = all(hasattr(library, name) for name in _PLACING)
    places = [ctypes.cast(getattr(library, name), ctypes.c_void_p).value if has else 0 for name in _PLACING]
    count = min(os.cpu_count() or 1, 64) - 1
    memory = np.zeros((_FIRST + _SIZE * count + 64) // 8, np.int64)
    member = kernel(_MEMBER)
    for needed in (memory, member):  # by threads, until the process ends, which is after Python
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(needed))
    skip = -memory.ctypes.data % 64 // 8
    place, words = memory.ctypes.data + 8 * skip, memory[skip:]

    def begin() -> None:
        words[:] = 0
        words[: _COUNT + 1] = np.array([*found, *places, member.address, count], np.int64)
        for k in range(count):
            at = _FIRST + _SIZE * k
            words[(at + _FREE) // 8], words[(at + _SELF) // 8], words[(at + _CREW) // 8], words[(at + _AVOIDS) // 8] = 1, place + at, place, -1
            for gate in (place + at, place + at + _DONE):
                inits[0](ctypes.c_void_p(gate + _MUTEX), None)
                inits[1](ctypes.c_void_p(gate + _CONDITION), None)

    begin()
    os.register_at_fork(after_in_child=begin)  # threads do not live on in a child
    return place


def threads() -> int:
    """How many threads a large kernel may use: what OMP_NUM_THREADS and NUMBA_NUM_THREADS allow of the processors that the process may run on."""
    here = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    wishes = [os.environ.get(name, "") for name in ("OMP_NUM_THREADS", "NUMBA_NUM_THREADS")]
    most = max(1, min([here, *(int(w) for w in wishes if w.isdecimal())]))
    return most if most == 1 or crew() is not None else 1


_turn = threading.Lock()
_inside = list[int]()  # how many programs run for which BLAS has one thread, and how many it had


@functools.cache
def blas() -> tuple[Any, Any] | None:
    """What reads and what sets how many threads SciPy's BLAS uses; None for another BLAS than OpenBLAS."""
    with contextlib.suppress(AttributeError, ImportError, OSError):
        library = ctypes.CDLL(importlib.import_module("scipy.linalg.cython_blas").__file__)
        for prefix in ("scipy_openblas", "openblas"):
            if hasattr(library, f"{prefix}_set_num_threads"):
                return getattr(library, f"{prefix}_get_num_threads"), getattr(library, f"{prefix}_set_num_threads")
    return None


def _afresh() -> None:
    """In a child, where none of the programs runs that did in its parent."""
    global _turn
    _turn = threading.Lock()
    if _inside:
        (blas() or (int, int))[1](_inside[1])
        _inside.clear()


os.register_at_fork(after_in_child=_afresh)


def alone(run: Any) -> Any:
    """A program that divides its products itself, with BLAS on one thread while it runs: BLAS's others would spin for a tenth of a second on the
    processors that ours need, and the system shares those every few milliseconds only."""
    get, put = blas() or (int, int)

    def quiet(*args: int) -> None:
        with _turn:
            if not _inside:
                _inside[:] = 0, get()
                put(1)
            _inside[0] += 1
        try:
            run(*args)
        finally:
            with _turn:
                _inside[0] -= 1
                if not _inside[0]:
                    put(_inside[1])
                    _inside.clear()

    return quiet


def pieces(dtype: DType, shape: tuple[int, int, int], turned: tuple[bool, bool], lanes: int) -> tuple[int, int, int, tuple[int, int, int]]:
    """One product x[m, k] @ y[k, n] in equal pieces of rows or of columns: how many, the rows and columns of each, and the elements from one to the
    next in x, in y and in the result. For the threads that it is worth; and for OpenBLAS to read a y that the cache keeps where it lies, as its
    kernels for AVX-512 do for few rows: else it copies all of y first, which of 32 rows takes a third of the time."""
    (m, n, k), (tx, ty) = shape, turned
    direct = dtype is float32 and not tx and not ty and m <= 64 and 4 * n * k <= _AT_HAND and m * n * k > _DIRECT and openblas() in AVX512
    if parts := _parts(m, lanes, 4 if direct else _ROWS, n * k if direct else 0):
        return parts, m // parts, n, (m // parts * (1 if tx else k), 0, m // parts * n)
    if parts := _parts(n, lanes, _ROWS):
        return parts, m, n // parts, (0, n // parts * (k if ty else 1), n // parts)
    return 1, m, n, (0, 0, 0)


def _parts(size: int, lanes: int, least: int, one: int = 0) -> int:
    """In how many parts of at least so much an axis is divided, where one of it takes so many multiplications; 0: not at all."""
    some = (p for p in range(max(lanes, 2), size // least + 1) if size % p == 0 and size // p * one <= _DIRECT)
    return next(some, 0) if lanes > 1 or one else 0
