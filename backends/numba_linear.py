"""Lowerings of products to numba kernels; the rest is in numba_lower.

Promises: floating products run on BLAS (through SciPy; without it on plain loops), integers on loops that are exact in their own dtype; one kernel
serves all floating dtypes.
"""

from __future__ import annotations

import ctypes
import functools
import importlib
import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from minidl.backends.numba_emit import stored, wide
from minidl.backends.numba_lower import lower, merged, move, narrow, shifted, source, strides, widen
from minidl.backends.numpy_helpers import turned
from minidl.dtypes import DType, complex64, complex128, float32, float64
from minidl.graph import Atom, Equation, Graph, subgraphs


# ---- products -------------------------------------------------------------------------------------------------------------------------------
@functools.cache
def routine(module: str, name: str) -> int | None:
    """The address of a BLAS or LAPACK routine (Fortran calling convention, 32-bit integers), which SciPy carries; None without SciPy."""
    try:
        capsule = importlib.import_module(f"scipy.linalg.{module}").__pyx_capi__[name]
    except ImportError:
        return None
    api = ctypes.pythonapi
    api.PyCapsule_GetName.restype, api.PyCapsule_GetName.argtypes = ctypes.c_char_p, [ctypes.py_object]
    api.PyCapsule_GetPointer.restype, api.PyCapsule_GetPointer.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
    return api.PyCapsule_GetPointer(capsule, api.PyCapsule_GetName(capsule))


UNDIVIDED, MULTIPLIED = 1 << 19, 0.01  # multiplications below which OpenBLAS starts no threads, and nanoseconds that one takes in float32
_SMALL, _MANY = 64, 32  # multiplications of a product that take less time than a call of BLAS, and products that are worth a kernel
_BLAS = {float32: "sgemm", float64: "dgemm", complex64: "cgemm", complex128: "zgemm"}


class Product:
    """z[m, n] = x[m, k] @ y[k, n], row-major; tx, ty: the operand is stored transposed; keep: add to z.

    `args` are the numbers that a kernel passes on, `text(i, x, y, z)` the line that does it, where they begin at a[i]. rows: of how many rows of the
    whole x these m are a part, where it is stored transposed; cols: of how many of y and z these n are.
    """

    def __init__(self, plan: Any, dtype: DType, m: int, n: int, k: int, tx: bool, ty: bool, keep: bool = False, rows: int = 0, cols: int = 0):
        self.dtype = dtype
        function = routine("cython_blas", _BLAS[dtype]) if dtype in _BLAS else None
        if function is None:
            self.fast, self.args = False, [int(tx), int(ty), m, n, k, int(keep)]
            return
        # Fortran sees each row-major matrix transposed: z' = y' x'
        numbers = [plan.raw(np.int32(v)) for v in (n, m, k, max(1, k if ty else cols or n), max(1, (rows or m) if tx else k), max(1, cols or n))]
        letters = [plan.raw(np.frombuffer(b"T" if t else b"N", np.uint8)) for t in (ty, tx)]
        one, beta = plan.const(1, dtype), plan.const(int(keep), dtype)
        self.fast = True
        self.args = [function, *letters, *numbers[:3], one, numbers[3], numbers[4], beta, numbers[5]]

    def text(self, i: str, x: str, y: str, z: str) -> str:
        """One line; x, y, z are addresses."""
        if self.fast:
            return f"blas(a, {i}, {y}, {x}, {z})"
        t = stored(self.dtype)
        p = ", ".join(f"as_ptr({v}, {t})" for v in (x, y, z))
        return f"product({p}, a[{i}], a[{i} + 1], a[{i} + 2], a[{i} + 3], a[{i} + 4], a[{i} + 5], {wide(self.dtype)}(0))"


def heaviest(graph: Graph) -> int:
    """The multiplications of the largest product in a graph and its bodies."""
    own = (math.prod(e.outputs[0].shape[len(e.params["batch"][0]) :]) * math.prod(e.inputs[0].shape[i] for i in e.params["contract"][0])
           for e in graph.equations if e.primitive.name == "dot_general")  # fmt: skip
    return max(*own, *(heaviest(g) for e in graph.equations for g in subgraphs(e.params)), 0, 0)


def _grouped(shape: Sequence[int], order: Sequence[int]) -> list[int]:
    s = strides(shape)
    return [s[i] for i in order]


@lower("dot_general")
def _dot(plan: Any, e: Equation) -> None:
    (x, y), (v,) = e.inputs, e.outputs
    (cx, cy), (bx, by) = e.params["contract"], e.params["batch"]
    fx = [i for i in range(len(x.shape)) if i not in cx and i not in bx]
    fy = [i for i in range(len(y.shape)) if i not in cy and i not in by]
    batch, m, n, k = (math.prod(shape[i] for i in axes) for shape, axes in ((x.shape, bx), (x.shape, fx), (y.shape, fy), (x.shape, cx)))

    def operand(a: Atom, first: Sequence[int], second: Sequence[int]) -> tuple[Any, DType, bool]:
        """The address, and whether it is stored as (batch, second, first)."""
        ref, d = widen(plan, a)
        for order, flipped in (([*first, *second], False), ([*first[: len(bx)], *second, *first[len(bx) :]], True)):
            shape = [a.shape[i] for i in order]
            if all(w[1] == w[2] for w in merged(shape, _grouped(a.shape, order), strides(shape))):
                return ref, d, flipped
        order = [*first, *second]
        shape = [a.shape[i] for i in order]
        out = plan.temp(math.prod(shape) * d.itemsize)
        move(plan, ref, out, d, shape, _grouped(a.shape, order), strides(shape))
        return out, d, False

    xr, d, tx = operand(x, [*bx, *fx], cx)
    yr, _, ty = operand(y, [*by, *cy], fy)
    turns = m <= 64 and turned(m, n, k)  # beyond, SciPy's OpenBLAS gains no more by it than the transpose costs
    if turns and d is float32 and batch == 1 and ty and not tx and routine("cython_blas", "sgemm") is not None:
        room = plan.temp(m * n * d.itemsize)
        _multiply(plan, d, (n, m, k), (False, True), 1, yr, xr, room)
        narrow(plan, v, d, lambda out: move(plan, room, out, d, (m, n), (1, m), (n, 1)))
        return
    if batch >= _MANY and 0 < m * n * k <= _SMALL and d.is_float:
        unrolled = source(_small(d, m, n, k, tx, ty))
        narrow(plan, v, d, lambda out: plan.call(unrolled, xr, yr, out, batch))
        return
    narrow(plan, v, d, lambda out: _multiply(plan, d, (m, n, k), (tx, ty), batch, xr, yr, out))


def _multiply(plan: Any, d: DType, shape: tuple[int, int, int], turned: tuple[bool, bool], batch: int, x: Any, y: Any, out: Any) -> None:
    """A batch of products, or one in pieces, over the threads of the program."""
    (m, n, k), rows, cols = shape, *shape[:2]
    steps, lanes = (m * k, k * n, m * n), plan.lanes(MULTIPLIED * d.itemsize / 4 * batch * m * n * k, plan.threads)
    if batch == 1 and plan.crew and d in _BLAS and routine("cython_blas", _BLAS[d]) is not None:
        batch, m, n, steps = plan.crew.pieces(d, shape, turned, lanes)
    product = Product(plan, d, m, n, k, *turned, rows=rows, cols=cols)
    text = source(f"for i in range(a[3], a[4]):\n    {product.text('9', 'a[0] + i*a[6]', 'a[1] + i*a[7]', 'a[2] + i*a[8]')}")
    plan.divide(text, min(lanes, batch), (x, y, out), batch, *(s * d.itemsize for s in steps), *product.args)


def _small(d: DType, m: int, n: int, k: int, tx: bool, ty: bool) -> str:
    """Products of a batch of matrices so small that a call of BLAS takes longer than they do; their sizes are in the text, which is unrolled."""
    lines = [*(f"{name} = as_ptr(a[{j}], {stored(d)})" for j, name in enumerate("xyz")), "for i in range(a[3]):"]
    for r in range(m):
        for c in range(n):
            terms = (f"x[i*{m * k} + {q * m + r if tx else r * k + q}]*y[i*{k * n} + {c * k + q if ty else q * n + c}]" for q in range(k))
            lines.append(f"    z[i*{m * n} + {r * n + c}] = {' + '.join(terms)}")
    return "\n".join(lines)


def has_rows(products: Iterable[Equation]) -> bool:
    """Whether some rows of these products of two matrices can be made by themselves."""
    return all(e.outputs[0].dtype in _BLAS and routine("cython_blas", _BLAS[e.outputs[0].dtype]) is not None for e in products)


def product_rows(plan: Any, e: Equation, first: int, last: int, out: Any) -> None:
    """Rows of a product of two matrices, into memory of their own."""
    (x, y), ((cx,), (cy,)), d = e.inputs, e.params["contract"], e.outputs[0].dtype
    k, m, n = x.shape[cx], x.shape[1 - cx], y.shape[1 - cy]
    product = Product(plan, d, last - first, n, k, cx == 0, cy == 1, rows=m)
    plan.call(source(product.text("3", "a[0]", "a[1]", "a[2]")), shifted(plan.at(x), first * (k if cx else 1), d), plan.at(y), out, *product.args)
