"""State that jitted steps write over: who else sees its memory keeps what was there, and large arrays lie on boundaries from their first day."""

from __future__ import annotations

import gc
import subprocess
import sys
import threading

import numpy as np
import pytest

import minidl as md
from minidl.backends import numpy_memory

BACKENDS = [b for b in ("numpy", "numba") if md.backends().get(b) is True]
SIZE = numpy_memory.LEAST // 4 + 3


def state(backend: str):
    with md.use_backend(backend):
        return md.tensor(np.arange(SIZE, dtype=np.float32))


def grown(x):
    @md.jit
    def step():
        x.assign(x * 0.5 + 1.0)

    return step


WATCHERS = {
    "a view": lambda a: a[7:],
    "a view of a view": lambda a: a[7:][::2],
    "a reshaped one": lambda a: a[:4].reshape(2, 2),
    "the memory below": lambda a: a.base if a.base is not None else a,
    "a view of the memory below": lambda a: a.base[256:512] if a.base is not None else a[:2],
    "a memoryview": lambda a: np.frombuffer(memoryview(a), np.float32),
    "DLPack": lambda a: np.from_dlpack(a),
}


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("calls", [0, 1, 3])
@pytest.mark.parametrize("how", WATCHERS)
def test_who_sees_the_memory_of_state_keeps_its_numbers(backend, calls, how):
    x = state(backend)
    step = grown(x)
    for _ in range(calls):
        step()
    seen = WATCHERS[how](x.payload)
    before = seen.copy()
    step()
    step()
    np.testing.assert_array_equal(seen, before)
    expected = np.arange(SIZE, dtype=np.float32)
    for _ in range(calls + 2):
        expected = expected * np.float32(0.5) + np.float32(1)
    np.testing.assert_array_equal(x.numpy(), expected)


@pytest.mark.parametrize("backend", BACKENDS)
def test_what_is_alone_is_written_over_from_the_second_call_on(backend):
    x = state(backend)
    step = grown(x)
    step()  # traces
    step()
    there = x.payload.ctypes.data
    for _ in range(3):
        step()
        assert x.payload.ctypes.data == there
        assert there % numpy_memory.ALIGN == 0


@pytest.mark.parametrize("backend", BACKENDS)
def test_optimizer_state_lies_on_boundaries(backend):
    with md.use_backend(backend):
        p = md.nn.Parameter(md.tensor(np.ones(SIZE, np.float32)))
        optimizer = md.optim.AdamW([p], lr=0.1)

    @md.jit
    def step(g):
        p.grad = g
        optimizer.step()

    with md.use_backend(backend):
        g = md.tensor(np.ones(SIZE, np.float32))
    for _ in range(3):
        step(g)
    arrays = [p.payload, g.payload, *(t.payload for s in optimizer.state.values() for t in s.values() if t.size == SIZE)]
    assert len(arrays) == 4
    assert all(a.ctypes.data % numpy_memory.ALIGN == 0 for a in arrays)


def test_a_users_memory_is_copied_and_so_is_what_may_not_be_written():
    raw = np.zeros(4 * SIZE, np.uint8)
    shown = np.ndarray((SIZE,), np.float32, raw)
    assert numpy_memory.owned(shown) is not shown  # `raw` sees it
    pooled = numpy_memory.empty((SIZE,), np.dtype("f4"), 4 * SIZE)
    assert numpy_memory.owned(pooled) is not pooled  # the pool would lend it again
    alone = numpy_memory.aligned(np.zeros(SIZE, np.float32))
    assert numpy_memory.owned(alone) is alone
    alone.flags.writeable = False
    assert numpy_memory.owned(alone).flags.writeable
    every = np.ndarray((SIZE // 2, 2), np.float32, np.zeros(4 * SIZE, np.uint8), 0, (0, 4))  # one element at many places
    assert numpy_memory.owned(every) is not every
    base = np.zeros(4 * SIZE, np.uint8)
    two = [np.ndarray((SIZE,), np.float32, base), np.ndarray((SIZE,), np.float32, base)]
    del base
    assert numpy_memory.owned(two[0]) is not two[0]
    del two[1:]
    gc.collect()
    assert numpy_memory.owned(two[0]) is two[0]


def test_two_threads_step_their_own_state():
    found = {}

    def work(n):
        x = state("numpy")
        step = grown(x)
        for _ in range(50):
            step()
        found[n] = x.numpy().copy()

    threads = [threading.Thread(target=work, args=(n,)) for n in range(3)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    expected = np.arange(SIZE, dtype=np.float32)
    for _ in range(50):
        expected = expected * np.float32(0.5) + np.float32(1)
    assert len(found) == 3
    for a in found.values():
        np.testing.assert_array_equal(a, expected)


BORROWED = """
import dis, sys
counted = sys.getrefcount

def borrowed(x):  # this call costs a reference more than one of C's, and a name gives none of its own
    frame = sys._getframe(1)
    load = [i for i in dis.get_instructions(frame.f_code) if i.offset < frame.f_lasti and i.opname not in ("PRECALL", "CALL")][-1]
    return counted(x) - 1 - load.opname.startswith("LOAD_FAST")

if sys.version_info < (3, 14):
    sys.getrefcount = borrowed
"""


def test_where_calls_borrow_references_as_in_python_3_14_nothing_in_use_is_written_over():
    text = """
import numpy as np
import minidl as md
from minidl.backends.numpy_memory import LEAST, empty

lent = [empty((LEAST,), np.dtype("u1"), LEAST).ctypes.data for _ in range(3)]
blocks = [empty((LEAST,), np.dtype("u1"), LEAST) for _ in range(3)]
assert len(set(lent)) == 1 and len({b.ctypes.data for b in blocks}) == 3
w = md.zeros((LEAST,), backend="numpy")

@md.jit
def step():
    w.assign(w + 1.0)

places = [(step(), w.payload.ctypes.data)[1] for _ in range(4)]
assert places[-1] == places[-2]
kept = w.payload
step()
assert kept[0] == 4 and w.payload[0] == 5
"""
    subprocess.run([sys.executable, "-c", BORROWED + text], check=True)
