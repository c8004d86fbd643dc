"""Lowerings of factorisations of matrices to numba kernels around LAPACK, whose machine code SciPy carries; without SciPy they call NumPy.

Promises: the routines are those that NumPy calls, on column-major copies in the program's own scratch memory; a matrix without a factor, or with
a nan or an infinity where an iteration needs numbers, gives nan all over.
"""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from minidl.backends.numba_emit import stored, wide
from minidl.backends.numba_linear import routine
from minidl.backends.numba_lower import move, narrow, object_mode, pointers, sizes, source, strides, widen
from minidl.dtypes import DType, complex64, complex128, float32, float64, int32
from minidl.graph import Equation

_LETTER = {float32: "s", float64: "d", complex64: "c", complex128: "z"}
_BLOCKS = 16  # rows of a system from which on BLAS, which works in blocks, is quicker than a loop


# ---- without LAPACK ---------------------------------------------------------------------------------------------------------------------------
def _small_cholesky(plan: Any, e: Equation) -> None:
    (x,), (v,) = e.inputs, e.outputs
    ref, d = widen(plan, x)
    t, w = stored(d), wide(d)
    conj = ".conjugate()" if d.is_complex else ""
    body = f"""for b in range(a[2]):
    z, bad = b*n*n, False
    for j in range(n):
        for i in range(n):
            s = {w}(x0[z + i*n + j])
            if i >= j:
                for k in range(j):
                    s -= {w}(x1[z + i*n + k]) * {w}(x1[z + j*n + k]){conj}
                if i == j:
                    r = s.real
                    bad = bad or not r > 0
                    x1[z + i*n + j] = {t}(math.sqrt(r))
                else:
                    x1[z + i*n + j] = {t}(s / {w}(x1[z + j*n + j]))
            else:
                x1[z + i*n + j] = {t}(0)
    if bad:
        for i in range(n*n):
            x1[z + i] = {t}(np.nan)"""
    narrow(plan, v, d, lambda out: plan.call(source(pointers(t, t), sizes(3, "n"), body), ref, out, math.prod(x.shape[:-2]), x.shape[-1]))


def triangular_solve(plan: Any, e: Equation) -> None:
    (m, y), (v,), p = e.inputs, e.outputs, e.params
    (mr, d), (yr, _) = widen(plan, m), widen(plan, y)
    t, w, lead = stored(d), wide(d), v.shape[:-2]
    full = math.prod(lead)
    parts = []
    for a, ref in ((m, mr), (y, yr)):
        if a.shape[:-2] != lead:  # broadcast over the batch
            lead_strides = [0 if n == 1 else k for n, k in zip(a.shape[:-2], strides(a.shape), strict=False)]
            s = [0] * (len(v.shape) - len(a.shape)) + lead_strides + strides(a.shape[-2:])
            shape = (*lead, *a.shape[-2:])
            copy = plan.temp(math.prod(shape) * d.itemsize)
            if math.prod(shape):
                move(plan, ref, copy, d, shape, s, strides(shape))
            ref = copy
        parts.append(ref)
    body = f"""for b in range(batch):
    for q in range(n):
        i = q if lower != transpose else n - 1 - q
        for c in range(columns_):
            s = {w}(x1[(b*n + i)*columns_ + c])
            for r in range(q):
                k = r if lower != transpose else n - 1 - r
                s -= {w}(x0[(b*n + k)*n + i] if transpose else x0[(b*n + i)*n + k]) * {w}(x2[(b*n + k)*columns_ + c])
            if not unit:
                s = s / {w}(x0[(b*n + i)*n + i])
            x2[(b*n + i)*columns_ + c] = {t}(s)"""
    n, columns = v.shape[-2:]
    if min(v.shape) > 0 and n >= _BLOCKS and (blas := routine("cython_blas", _LETTER[d] + ("trsv" if columns == 1 else "trsm"))):
        letters = "U" if p["lower"] else "L", "T" if p["transpose"] is (columns > 1) else "N", "U" if p["unit"] else "N"  # of the transposed matrix
        side, *flags = (plan.raw(np.frombuffer(c.encode(), np.uint8)) for c in ("R", *letters))
        width, length = (plan.raw(np.int32(k)) for k in (columns, n))
        one = f"a[0] + b*{n * n * d.itemsize}", f"a[2] + b*{n * columns * d.itemsize}"
        if columns == 1:
            given, call = (blas, *flags, length, width), f"call8(a[3], (a[4], a[5], a[6], a[7], {one[0]}, a[7], {one[1]}, a[8]))"
        else:
            given = blas, side, *flags, width, length, plan.const(1.0, d)
            call = f"call11(a[3], (a[4], a[5], a[6], a[7], a[8], a[9], a[10], {one[0]}, a[9], {one[1]}, a[8]))"
        text = source(pointers(t, t, t), f"for i in range({full * n * columns}):\n    x2[i] = x1[i]\nfor b in range({full}):\n    {call}")
        narrow(plan, v, d, lambda out: plan.call(text, *parts, out, *given))
        return
    text = source(pointers(t, t, t), sizes(3, "batch", "n", "columns_", "lower", "transpose", "unit"), body)
    flags = [int(p[k]) for k in ("lower", "transpose", "unit")]
    narrow(plan, v, d, lambda out: plan.call(text, *parts, out, full, *v.shape[-2:], *flags))


# ---- around LAPACK ------------------------------------------------------------------------------------------------------------------------------
class _Kernel:
    """A kernel over the matrices [m, n] of a batch as it is put together: x is the operand, y the result, `array` and `number` add names to its
    text, `lapack` gives the line that calls a routine."""

    def __init__(self, plan: Any, e: Equation):
        (x, *_), (v,) = e.inputs, e.outputs
        self.plan, self.v = plan, v
        ref, self.d = widen(plan, x)
        self.out = self.d.complex if v.dtype.is_complex else self.d.real
        self.m, self.n = x.shape[-2:]
        self.args: list[Any] = [ref, None, math.prod(x.shape[:-2]) if self.m * self.n else 0]
        self.head = [f"x = as_ptr(a[0], {stored(self.d)})", f"y = as_ptr(a[1], {stored(self.out)})", "batch = a[2]"]
        self.places: dict[str, int] = {}
        self.number("m", self.m)
        self.number("n", self.n)
        self.array("info", int32, 1)

    def _add(self, arg: Any) -> int:
        self.args.append(arg)
        return len(self.args) - 1

    def number(self, name: str, value: int) -> None:
        self.head.append(f"{name} = a[{self._add(value)}]")

    def array(self, name: str, kind: DType, n: int) -> None:
        """Scratch memory."""
        self.operand(name, kind, self.plan.temp(max(1, n) * kind.itemsize))

    def operand(self, name: str, kind: DType, ref: Any) -> None:
        self.places[name] = k = self._add(ref)
        self.head.append(f"{name} = as_ptr(a[{k}], {stored(kind)})")

    def lapack(self, name: str, arguments: str) -> str:
        """The call: arguments by name (an array), letter in quotes, or integer."""
        function = self._add(routine("cython_lapack", _LETTER[self.d] + name))
        places = []
        for a in arguments.split():
            if a in self.places:
                places.append(self.places[a])
            else:
                value = np.frombuffer(a.strip('"').encode(), np.uint8) if a[0] == '"' else np.int32(int(a))
                places.append(self._add(self.plan.raw(value)))
        return f"call{len(places)}(a[{function}], ({', '.join(f'a[{p}]' for p in places)}))"

    def run(self, body: str) -> None:
        """Compile and add it; the text is that of one matrix, number b."""
        lines = "\n".join("    " + line for line in body.strip("\n").split("\n"))
        text = source(*self.head, "for b in range(batch):\n" + lines.replace("NAN", f"{stored(self.out)}(np.nan)"))

        def compute(out: Any) -> None:
            self.args[1] = out
            self.plan.call(text, *self.args)

        narrow(self.plan, self.v, self.out, compute)


#: Column-major copies, and whether all elements are numbers.
_COPY = """
fine = True
for i in range(m):
    for j in range(n):
        v = x[(b*m + i)*n + j]
        fine = fine and v - v == 0
        c[j*m + i] = v
"""


def _cholesky(plan: Any, e: Equation) -> None:
    """Of small matrices by loops; the lower triangle in rows is the upper one in columns."""
    if e.inputs[0].shape[-1] < _BLOCKS:
        _small_cholesky(plan, e)
        return
    k = _Kernel(plan, e)
    k.array("c", k.d, k.n * k.n)
    call = k.lapack("potrf", f'"U" {k.n} c {k.n} info info')  # there is a call of six; who wants five does not see the last
    k.run(f"""for i in range(n):
    for j in range(n):
        c[i*n + j] = x[(b*n + i)*n + j]
{call}
fine = info[0] == 0
for i in range(n):
    v = c[i*n + i]
    fine = fine and v == v
for i in range(n):
    for j in range(n):
        y[(b*n + i)*n + j] = NAN if not fine else c[i*n + j] if j <= i else {stored(k.out)}(0)
""")


def _qr(plan: Any, e: Equation) -> None:
    k = _Kernel(plan, e)
    m, n, width = k.m, k.n, k.v.shape[-1]
    k.number("width", width)
    work = 64 * max(m, 1)
    for name, size in (("c", m * width), ("tau", n), ("work", work)):
        k.array(name, k.d, size)
    factor = k.lapack("geqrf", f"{m} {n} c {m} tau work {work} info")
    form = k.lapack("ungqr" if k.d.is_complex else "orgqr", f"{m} {width} {n} c {m} tau work {work} info")
    k.run(f"""{_COPY}
o = b*(m + n)*width
{factor}
for i in range(n):
    for j in range(width):
        y[o + (m + i)*width + j] = c[j*m + i] if i <= j and j < n else {stored(k.out)}(0)
{form}
for i in range(m):
    for j in range(width):
        y[o + i*width + j] = c[j*m + i]
""")


def _eigen(vectors: bool) -> Callable[[Any, Equation], None]:
    def lowering(plan: Any, e: Equation) -> None:
        k = _Kernel(plan, e)
        n, real = k.n, k.d.real
        work, more = 2 * n * n + 70 * n + 1, 2 * n * n + 5 * n + 1
        k.array("c", k.d, n * n)
        k.array("w", real, n)
        k.array("work", k.d, work)
        k.array("rwork", real, more)
        k.array("iwork", int32, 5 * n + 3)
        letters = '"V" "L"' if vectors else '"N" "L"'
        if k.d.is_complex:
            call = k.lapack("heevd", f"{letters} {n} c {n} w work {work} rwork {more} iwork {5 * n + 3} info")
        else:
            call = k.lapack("syevd", f"{letters} {n} c {n} w work {work} iwork {5 * n + 3} info")
        rows = "for i in range(n):\n    for j in range(n):\n        y[b*(n + 1)*n + i*n + j] = c[j*n + i] if fine else NAN\n"
        k.run(f"""{_COPY.replace("range(n)", "range(i + 1)")}
info[0] = 1
if fine:
    {call}
fine = info[0] == 0
{rows if vectors else ""}
for j in range(n):
    y[b*{"(n + 1)*n + n*n" if vectors else "n"} + j] = w[j] if fine else NAN
""")

    return lowering


def _general(vectors: bool) -> Callable[[Any, Equation], None]:
    """Eigenvalues of any matrix. LAPACK gives those of a real one in pairs, vectors as real and imaginary parts."""

    def lowering(plan: Any, e: Equation) -> None:
        k = _Kernel(plan, e)
        n, real, t = k.n, k.d.real, stored(k.out)
        work = 70 * max(n, 1)
        for name, kind, size in (("c", k.d, n * n), ("vectors", k.d, n * n + n), ("w", k.d, n), ("left", k.d, 1), ("work", k.d, work)):
            k.array(name, kind, size)
        k.array("wi", real, n)
        k.array("rwork", real, 2 * n)
        head = f'"N" "{"NV"[vectors]}" {n} c {n} w'
        if k.d.is_complex:
            call = k.lapack("geev", f"{head} left 1 vectors {n} work {work} rwork info")
        else:
            call = k.lapack("geev", f"{head} wi left 1 vectors {n} work {work} info")
        first = "wi[j] > 0" if not k.d.is_complex else "False"
        value = "w[j]" if k.d.is_complex else "w[j] + 1j*wi[j]"
        rows = f"""
    for i in range(n):
        z = vectors[j*n + i] + 1j*(vectors[(j + 1)*n + i] if {first} else vectors[j*n + i]*0)
        if {"wi[j] < 0" if not k.d.is_complex else "False"}:
            z = vectors[(j - 1)*n + i] - 1j*vectors[j*n + i]
        y[b*(n + 1)*n + i*n + j] = {t}(z) if fine else NAN
"""
        k.run(f"""{_COPY}
info[0] = 1
if fine:
    {call}
fine = info[0] == 0
for j in range(n):
    y[b*{"(n + 1)*n + n*n" if vectors else "n"} + j] = {t}({value}) if fine else NAN
{rows if vectors else ""}
""")

    return lowering


def _singular(vectors: bool) -> Callable[[Any, Equation], None]:
    def lowering(plan: Any, e: Equation) -> None:
        k = _Kernel(plan, e)
        m, n, real = k.m, k.n, k.d.real
        least, most = min(m, n), max(m, n)
        k.number("k", least)
        work = 4 * least * least + 10 * least + 66 * (m + n)
        k.array("c", k.d, m * n)
        k.array("s", real, least)
        k.array("u", k.d, m * least if vectors else 1)
        k.array("t", k.d, n * least if vectors else 1)
        k.array("work", k.d, work)
        k.array("rwork", real, 5 * least * least + 7 * least + 2 * most * least + 2 * least * least)
        k.array("iwork", int32, 8 * least)
        rwork = "rwork " if k.d.is_complex else ""
        letter = '"S"' if vectors else '"N"'
        call = k.lapack("gesdd", f"{letter} {m} {n} c {m} s u {m} t {least} work {work} {rwork}iwork info")
        conj = ".conjugate()" if k.d.is_complex else ""
        rows = f"""
for j in range(k):
    for i in range(m):
        y[o + i*k + j] = u[j*m + i] if fine else NAN
    for i in range(n):
        y[o + (m + i)*k + j] = t[i*k + j]{conj} if fine else NAN
"""
        k.run(f"""{_COPY}
info[0] = 1
if fine:
    {call}
fine = info[0] == 0
o = b*{"(m + n + 1)*k" if vectors else "k"}
{rows if vectors else ""}
for j in range(k):
    y[o + {"(m + n)*k + " if vectors else ""}j] = s[j] if fine else NAN
""")

    return lowering


def _solve(plan: Any, e: Equation) -> None:
    k = _Kernel(plan, e)
    n, columns = k.n, e.inputs[1].shape[-1]
    right, _ = widen(plan, e.inputs[1])
    k.operand("right", k.d, right)
    k.number("columns_", columns)
    k.array("c", k.d, n * n)
    k.array("z", k.d, n * columns)
    k.array("pivots", int32, n)
    call = k.lapack("gesv", f"{n} {columns} c {n} pivots z {n} info")
    k.run(f"""{_COPY}
for i in range(n):
    for j in range(columns_):
        z[j*n + i] = right[(b*n + i)*columns_ + j]
{call}
for i in range(n):
    for j in range(columns_):
        y[(b*n + i)*columns_ + j] = z[j*n + i] if info[0] == 0 else NAN
""")


def _determinant(start: str, step: str) -> Callable[[Any, Equation], None]:
    """From the pivots of Gaussian elimination, whose exchanges change the sign."""

    def lowering(plan: Any, e: Equation) -> None:
        k = _Kernel(plan, e)
        k.args[2] = math.prod(e.inputs[0].shape[:-2])
        k.array("c", k.d, k.n * k.n)
        k.array("pivots", int32, k.n)
        call = k.lapack("getrf", f"{k.n} {k.n} c {max(k.n, 1)} pivots info")
        value = start.format(stored(k.out))
        k.run(f"""{_COPY}
if n:
    {call}
total = {value}
for i in range(n):
    p = c[i*n + i]
    odd = pivots[i] != i + 1
    {step.replace("UNIT", "p / abs(p)" if k.d.is_complex else "math.copysign(1.0, p)")}
y[b] = total
""")

    return lowering


if importlib.util.find_spec("scipy"):
    cholesky, qr, solve = _cholesky, _qr, _solve
    eigh, eigvalsh, eig, eigvals = _eigen(True), _eigen(False), _general(True), _general(False)
    svd, svdvals = _singular(True), _singular(False)
    det = _determinant("{}(1)", "total = total * (-p if odd else p)")
    detsign = _determinant("{}(1)", "p = p if p == 0 or p != p else UNIT\n    total = total * (-p if odd else p)")
    logabsdet = _determinant("{}(0)", "total = total + math.log(abs(p))")
else:
    cholesky = _small_cholesky
    object_mode.update(
        dict.fromkeys(
            "qr eigh eigvalsh eig eigvals svd svdvals solve det detsign logabsdet".split(),
            "NumPy calls LAPACK; SciPy, which would lend its address to machine code, is not installed",
        )
    )
