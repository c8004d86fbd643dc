"""Memory for the large arrays of NumPy programs: blocks that are used again as soon as nothing refers to them.

A fresh array of some megabytes costs more in page faults than an addition of its elements. A block is lent out while any array shows it, which its
reference count says: views, DLPack capsules and asynchronous readers all hold a reference, so no memory in use is ever handed out again.

Promises: arrays start on a 64-byte boundary; safe under threads and re-entrancy; no block is added while more than IDLE bytes lie idle, and what has
not been asked for the longest goes first. Where reference counts say nothing (an interpreter without a global lock), every array is new.
"""

from __future__ import annotations

import sys
import threading
from collections import OrderedDict

import numpy as np

ALIGN = 64
#: Smaller arrays come from NumPy, whose own cache is as fast.
LEAST = 1 << 17
#: Bytes from which an array that comes from outside is given a boundary; below, copying it once more is as quick as the finding of one.
SMALL = 1 << 12
#: Bytes that may lie idle.
IDLE = 1 << 28

_lock = threading.RLock()  # a collection inside it may run code that comes back here
_blocks: OrderedDict[int, list[tuple[np.ndarray, np.ndarray]]] = OrderedDict()  # size → (memory, the aligned part of it)
_total = 0


def _free_count() -> int:
    """The reference count of the memory of a block that nobody uses; 0 where an array that shows a block does not raise it."""
    memory = np.empty(2, np.uint8)
    block = (memory, memory[1:])
    del memory
    count = sys.getrefcount(block[0])
    user = np.ndarray((1,), np.uint8, block[1])
    return count if sys.getrefcount(block[0]) == count + 1 and user.size else 0


_FREE = _free_count() if getattr(sys, "_is_gil_enabled", lambda: True)() and hasattr(sys, "getrefcount") else 0


def empty(shape: tuple[int, ...], dtype: np.dtype, nbytes: int) -> np.ndarray:
    """An uninitialised array of so many bytes.

    >>> empty((2, 3), np.dtype("f4"), 24).shape
    (2, 3)
    """
    if nbytes < LEAST or not _FREE:
        return np.empty(shape, dtype)
    with _lock:
        if nbytes in _blocks:
            _blocks.move_to_end(nbytes)
            for memory, part in _blocks[nbytes]:  # held while it is looked at: code that a collection runs in between sees it in use
                if sys.getrefcount(memory) == _FREE + 1:
                    return np.ndarray(shape, dtype, part)
        memory, part = block = _new(nbytes)
        _blocks.setdefault(nbytes, []).append(block)
        return np.ndarray(shape, dtype, part)


def aligned(value: np.ndarray) -> np.ndarray:
    """A copy of an array in C order that starts on a boundary, as compilers' programs like it and jax needs it in order to share it.

    >>> aligned(np.arange(6.0)).ctypes.data % ALIGN
    0
    """
    memory = np.empty(value.nbytes + ALIGN, np.uint8)
    out: np.ndarray = np.ndarray(value.shape, value.dtype, memory, -memory.ctypes.data % ALIGN)
    out[...] = value
    return out


def _new(nbytes: int) -> tuple[np.ndarray, np.ndarray]:
    global _total
    if _total + nbytes > IDLE:
        trim(IDLE - nbytes)
    _total += nbytes
    memory = np.empty(nbytes + ALIGN, np.uint8)
    start = -memory.ctypes.data % ALIGN
    return memory, memory[start : start + nbytes]


def trim(limit: int = 0) -> int:
    """Give idle blocks back until at most `limit` bytes lie idle; returns how many still do."""
    global _total
    with _lock:
        idle = sum(size for size, blocks in _blocks.items() for b in blocks if sys.getrefcount(b[0]) == _FREE)
        for size in list(_blocks):
            blocks = _blocks[size]
            for i in range(len(blocks) - 1, -1, -1):
                if idle > limit and sys.getrefcount(blocks[i][0]) == _FREE:
                    del blocks[i]
                    idle -= size
            if not blocks:
                del _blocks[size]
        _total = sum(size * len(blocks) for size, blocks in _blocks.items())
        return idle
