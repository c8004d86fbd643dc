"""Memory for the large arrays of NumPy programs: blocks that are used again as soon as nothing refers to them.

A fresh array of some megabytes costs more in page faults than an addition of its elements. A block is lent out while any array shows it, which its
reference count says: views, DLPack capsules and asynchronous readers all hold a reference, so no memory in use is ever handed out again.

Promises: arrays start on a boundary of ALIGN bytes; safe under threads and re-entrancy; no block is added while more than IDLE bytes lie idle, and
what has not been asked for the longest goes first. Where reference counts say nothing (an interpreter without a global lock), every array is new.
"""

from __future__ import annotations

import functools
import sys
import threading
from collections import OrderedDict
from typing import Any

import numpy as np

from minidl.backends.base import NAMED, beside

#: Arrays that begin at distances of 64 bytes or so, modulo 4096, hold each other up: a processor takes the read of one for the last write of another.
ALIGN = 256
#: Smaller arrays come from the C library, whose own cache is as fast.
LEAST = 1 << 17
#: Bytes from which an array begins on a boundary of at least 64 bytes, which jax needs in order to share it; below, copying it once more is as quick.
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
        return apart(shape, dtype, nbytes) if SMALL <= nbytes < LEAST and boundaries() else np.empty(shape, dtype)
    with _lock:
        if nbytes in _blocks:
            _blocks.move_to_end(nbytes)
            for memory, part in _blocks[nbytes]:  # held while it is looked at: code that a collection runs in between sees it in use
                if sys.getrefcount(memory) == _FREE - 1 + NAMED:
                    return np.ndarray(shape, dtype, part)
        memory, part = block = _new(nbytes)
        _blocks.setdefault(nbytes, []).append(block)
        return np.ndarray(shape, dtype, part)


def aligned(value: np.ndarray) -> np.ndarray:
    """A copy of an array in C order that starts on a boundary, as compilers' programs like it and jax needs it in order to share it.

    >>> aligned(np.arange(6.0)).ctypes.data % ALIGN
    0
    """
    out = apart(value.shape, value.dtype, value.nbytes)
    out[...] = value
    return out


def apart(shape: tuple[int, ...], dtype: np.dtype, nbytes: int) -> np.ndarray:
    """An uninitialised array of so many bytes that starts on a boundary and alone shows its memory."""
    if SMALL <= nbytes < LEAST and (room := boundaries()):
        return room.on_boundary(np.empty, shape, dtype)  # type: ignore[no-any-return]
    memory = np.empty(nbytes + ALIGN, np.uint8)
    return np.ndarray(shape, dtype, memory, -memory.ctypes.data % ALIGN)


@functools.cache
def boundaries() -> Any:
    """The room that knows how NumPy puts arrays on boundaries; None where it cannot."""
    room = beside("minidl.rewrites.boundaries", "numpy")
    return room if room and room.SETTING else None


def owned(value: np.ndarray) -> np.ndarray:
    """The array itself where nobody else can see its memory, for a program that writes over it; else a copy. A large one that `apart` made is the
    only one to show its memory as long as the count of that says so: views hold it, too.

    >>> x = aligned(np.zeros(LEAST))
    >>> y = x[1:]
    >>> owned(x) is x
    False
    >>> del y
    >>> owned(x) is x
    True
    """
    if value.nbytes < SMALL:
        return value.copy()
    memory, flags = value.base, value.flags
    whole = type(memory) is np.ndarray and memory.dtype == np.uint8 and memory.flags.owndata and flags.writeable and flags.c_contiguous
    del memory
    return value if whole and sys.getrefcount(value.base) == _FREE - 1 else aligned(value)  # nothing beside it, such as the part of a block


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
