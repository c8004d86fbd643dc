"""Compiled kernels, and the machine that runs a program of them.

A kernel is a C function of one argument, an array of 64-bit integers: addresses of data, then sizes. Its source depends on dtypes and ranks, never on
sizes or constants, so that many equations, programs and processes share one compilation (about 50 ms, 4 ms from the disk cache). A program is a
table of (kernel, arguments); `run` walks over it in nopython mode without the interpreter lock, so a graph costs no compilation of its own.

Promises: kernels are cached under MINIDL_CACHE (default ~/.cache/minidl) by a hash of their source and of all versions that shaped them; an
unwritable directory means no cache, never an error; several processes may fill one cache at once; no setting of numba is changed.
"""

from __future__ import annotations

import functools
import hashlib
import os
import platform
import sys
import tempfile
import threading
import time
import types as python_types
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numba
import numpy as np
from numba import types

from minidl.backends import disk
from minidl.backends.numba_machine import INT64S, as_ptr, call, jit

_MODULES = ("numba_machine", "numba_math", "numba_shared", "numba_vector")
_PRELUDE = "\n".join(["import math", "import numpy as np", *(f"from minidl.backends.{name} import *" for name in _MODULES)]) + "\n"
#: The functions that libraries bring for kernels to call: name → module.
BROUGHT: dict[str, str] = {}
_SIGNATURE = types.void(INT64S)
_kernels: weakref.WeakValueDictionary[str, Any] = weakref.WeakValueDictionary()  # programs keep theirs, and `compiled` the last ones
_lock = threading.RLock()


@functools.cache
def _stamp() -> str:
    """What besides its own source decides a kernel's machine code; numba itself keys on the processor."""
    files = (*_MODULES, "numba_kernels", "numpy_special", "complex_values")
    texts = [Path(__file__).with_name(f"{name}.py").read_bytes() for name in files]
    return f"{numba.__version__} {np.__version__} {sys.version} {platform.machine()} {hashlib.sha256(b''.join(texts)).hexdigest()}"


@functools.cache
def _import(name: str, module: str) -> str:
    """The line that imports a function which a library brings; with its text changes that of a kernel."""
    return f"from {module} import {name}  # {hashlib.sha256(Path(str(sys.modules[module].__file__)).read_bytes()).hexdigest()}\n"


def _prelude(source: str) -> str:
    return _PRELUDE + "".join(_import(*pair) for pair in BROUGHT.items() if f"{pair[0]}(" in source)


def kernels(sources: Sequence[str]) -> list[Any]:
    """Several. What takes longer than two seconds says how far it is, on stderr."""
    start = shown = time.monotonic()
    found = []
    for i, source in enumerate(sources):
        if source not in _kernels and time.monotonic() - start > 2 and time.monotonic() - shown > (0.2 if sys.stderr.isatty() else 5):
            shown = time.monotonic()
            sys.stderr.write(f"minidl: compiling for numba: kernel {i + 1} of {len(sources)}{chr(13) if sys.stderr.isatty() else chr(10)}")
            sys.stderr.flush()
        found.append(kernel(source))
    if shown != start and sys.stderr.isatty():
        sys.stderr.write("\x1b[K")
    return found


@functools.lru_cache(256)
def compiled(source: str, compiler: Any, signature: Any) -> Any:
    """What numba makes of the function `k` of a source text, once while anybody has it."""
    with _lock:
        _kernels[source] = found = _kernels.get(source) or _compile(_prelude(source) + source, compiler, signature)
    return found


#: The machine code of `def k(a): ...`, at an `address` for as long as somebody keeps it.
kernel = functools.partial(compiled, compiler=numba.cfunc, signature=_SIGNATURE)


def _compile(text: str, compiler: Any, signature: Any) -> Any:
    name = "md_" + hashlib.sha256((_stamp() + text).encode()).hexdigest()[:32]
    directory = disk.directory()
    path = directory / f"{name}.py" if directory else None
    if path is not None and not path.exists():
        try:
            with tempfile.NamedTemporaryFile("w", dir=directory, suffix=".tmp", delete=False) as file:
                file.write(text)
            os.utime(file.name, (0, 0))  # numba asks for the date; processes that race must write the same one
            os.replace(file.name, path)
        except OSError:
            path = None
    module = python_types.ModuleType(name)
    sys.modules[name] = module  # numba finds the globals of cached code by this name
    exec(compile(text, str(path or f"<minidl kernel {name}>"), "exec"), module.__dict__)
    made = compiler(signature, error_model="numpy", nogil=True, cache=path is not None)(module.k)
    del sys.modules[name]
    return made


# ---- the machine ----------------------------------------------------------------------------------------------------------------------
# A program's header: number of calls, address of kernels, address of each call's first argument, number of arguments, address of their bases,
# address of their values, number of bases, bytes of scratch memory. An argument is value + bases[base], or the value itself where base is -1.
# Base 0 is the scratch memory; the program's inputs and then its outputs follow.
@jit
def resolve(header, bases, args):
    base, value = as_ptr(header[4], np.int64), as_ptr(header[5], np.int64)
    for j in range(header[3]):
        args[j] = value[j] if base[j] < 0 else value[j] + bases[base[j]]


@jit
def execute(header, args):
    functions, first = as_ptr(header[1], np.int64), as_ptr(header[2], np.int64)
    for i in range(header[0]):
        call(functions[i], args + 8 * first[i])


@jit
def memory(n):
    """Scratch memory and its address, at a multiple of 64."""
    block = np.empty(n + 64, np.uint8)
    return block, (block.ctypes.data + 63) // 64 * 64


@jit
def run(program, objects, offset):
    """A program on NumPy arrays: `objects` points to the addresses of the array objects, whose data pointers lie `offset` bytes inside them."""
    header, place = as_ptr(program, np.int64), as_ptr(objects, np.int64)
    bases, args = np.empty(header[6], np.int64), np.empty(header[3] + 1, np.int64)
    b, p = as_ptr(bases.ctypes.data, np.int64), args.ctypes.data
    for i in range(header[6]):
        b[i] = as_ptr(place[i] + offset, np.int64)[0]
    b[0] = (b[0] + 63) // 64 * 64
    resolve(header, b, as_ptr(p, np.int64))
    execute(header, p)
    args[0] = bases[0]  # both must live until here


def machine() -> Any:
    """`run` compiled: (address of a program, address of the objects' addresses, offset) → None."""
    source = "from minidl.backends.numba_kernels import run\ndef k(program, objects, offset):\n    run(program, objects, offset)\n"
    return compiled(source, numba.njit, types.void(types.int64, types.int64, types.int64))
