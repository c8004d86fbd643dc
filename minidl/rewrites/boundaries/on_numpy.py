"""NumPy's arrays on boundaries of 64 bytes: jax shares the memory of such an array and copies any other.

NumPy asks the C library's memalign for memory instead of malloc while a program runs, by its interface for that (NEP 49, `PyDataMem_SetHandler`): an
array costs 55 ns more, whichever kernel makes it, where the aligned part of a larger one costs 1,200, and a block that is lent 350.

Promises: NumPy's choice of memory is a context variable, which is set for a call, in its thread alone, and then is what it was; where the C library
has no memalign (macOS, Windows), somebody else had chosen NumPy's memory when this was loaded, or NumPy's interface is another, nothing is set.
"""

from __future__ import annotations

import contextlib
import contextvars
import ctypes
import functools
import importlib
import os
from collections.abc import Callable
from typing import Any

from minidl.backends.numpy_memory import LEAST, SMALL
from minidl.backends.reuse import Reuse
from minidl.graph import Equation, Graph, Var, subgraphs

ALIGN = 64
LARGE_PAGES = 1 << 22  # bytes from which on NumPy asks for large pages, which memalign's memory has not
_NAME = ctypes.create_string_buffer(b"mem_handler")  # a capsule shows its name and its content, and copies neither


class _Handler(ctypes.Structure):
    """PyDataMem_Handler. Its functions take `ctx` first, which for malloc(ctx, size) to be memalign(alignment, size) is the alignment."""

    _fields_ = (
        ("name", ctypes.c_char * 127), ("version", ctypes.c_uint8), ("ctx", ctypes.c_void_p), ("malloc", ctypes.c_void_p),
        ("calloc", ctypes.c_void_p), ("realloc", ctypes.c_void_p), ("free", ctypes.c_void_p),
    )  # fmt: skip


def _setting() -> tuple[contextvars.ContextVar[Any], Any] | None:
    """The context variable of NumPy's memory, and its value for arrays on boundaries: NumPy's functions, which leave ctx alone, but for malloc."""
    if ctypes.sizeof(ctypes.c_void_p) != 8:
        return None
    memalign = ctypes.CDLL(None).memalign
    with contextlib.suppress(OSError):  # behind glibc's library that checks malloc, which refuses what it has not given, names without a version lie
        ctypes.CDLL("libc_malloc_debug.so.0", os.RTLD_NOLOAD)
        return None
    content = ctypes.pythonapi.PyCapsule_GetPointer
    content.restype, content.argtypes = ctypes.c_void_p, (ctypes.py_object, ctypes.c_char_p)
    capsule = ctypes.pythonapi.PyCapsule_New
    capsule.restype, capsule.argtypes = ctypes.py_object, (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p)
    interface = ctypes.cast(content(importlib.import_module("numpy._core._multiarray_umath")._ARRAY_API, None), ctypes.POINTER(ctypes.c_void_p))
    choose, chosen = ctypes.PYFUNCTYPE(ctypes.py_object, ctypes.py_object)(interface[304]), ctypes.PYFUNCTYPE(ctypes.py_object)(interface[305])
    plain = _Handler.from_address(content(chosen(), _NAME))
    if (plain.name, plain.version) != (b"default_allocator", 1):
        return None
    ours = _Handler.from_buffer_copy(plain)
    ours.name, ours.ctx, ours.malloc = b"minidl_boundaries", ALIGN, ctypes.cast(memalign, ctypes.c_void_p).value
    for kept in (ours, _NAME):
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(kept))  # arrays may outlive this module
    context = contextvars.Context()
    context.run(choose, capsule(ctypes.addressof(ours), ctypes.addressof(_NAME), None))
    ((variable, value),) = context.items()
    return variable, value


try:
    SETTING = _setting()
except (AttributeError, ImportError, OSError, TypeError, ValueError):  # no memalign or no library of that kind, or a NumPy that has it otherwise
    SETTING = None
if SETTING is not None:
    _memory, _bounded = SETTING


def on_boundary(f: Callable[..., Any], *args: Any, **params: Any) -> Any:
    """f(*args, **params), whose arrays begin on a boundary.

    >>> import numpy as np
    >>> on_boundary(np.empty, 5000).ctypes.data % ALIGN
    0
    """
    before = _memory.set(_bounded)
    try:
        return f(*args, **params)
    finally:
        _memory.reset(before)


def program(run: Callable[..., Any], errors: contextvars.ContextVar[Any], ignored: Any) -> Callable[..., Any]:
    """A program whose arrays begin on a boundary, and that gives no floating-point warnings: both at once cost half as much."""

    def call(*args: Any) -> Any:
        before, at = errors.set(ignored), _memory.set(_bounded)
        try:
            return run(*args)
        finally:
            errors.reset(before)
            _memory.reset(at)

    return functools.update_wrapper(call, run)


class Bounds:
    """What of a program begins on a boundary. `all`: every array, where most are of a size that pays and none so large that its memory had better be
    found again, which memalign does worse than malloc; else the results that are not made in planned memory."""

    def __init__(self, program: Graph, reuse: Reuse):
        made = [v.nbytes for e in program.equations if e not in reuse.over for v in e.outputs if reuse.root[v] is v]
        self.all = bool(made) and sorted(made)[len(made) // 2] >= SMALL and max(made) < LEAST
        self.roots = set() if self.all else {reuse.root[v] for v in program.outputs if isinstance(v, Var)}
        for e in reversed(program.equations):
            if e in reuse.over and e.outputs[0] in self.roots:  # a result lies where that operand lay
                self.roots.add(reuse.root[e.inputs[reuse.over[e]]])  # type: ignore[index]

    def __call__(self, equation: Equation, call: str, env: dict[str, Any]) -> str:
        """The call of a kernel, as it reads in the program."""
        found = any(v in self.roots and SMALL <= v.nbytes < LARGE_PAGES for v in equation.outputs)
        if not found or any(subgraphs(equation.params)):
            return call
        env["on_boundary"] = on_boundary
        return f"on_boundary({call.replace('(', ', ', 1)}".replace(", )", ")")
