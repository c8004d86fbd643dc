"""Lowerings of products, convolutions, pooling, factorisations and control flow to numba kernels; the rest is in numba_lower.

Promises: floating products run on BLAS (through SciPy; without it on plain loops), integers on loops that are exact in their own dtype; one kernel
serves all floating dtypes; a convolution holds the columns of one example at a time.
"""

from __future__ import annotations

import ctypes
import functools
import importlib
import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from minidl.backends.numba_conv import Direct, suits
from minidl.backends.numba_emit import is_half, loaded, lowest, packed, stored, wide
from minidl.backends.numba_kernels import CONTROL
from minidl.backends.numba_lower import fill, index_of, lower, merged, move, moved, narrow, pointers, shifted, source, strides, widen
from minidl.backends.numpy_helpers import turned
from minidl.dtypes import DType, complex64, complex128, float32, float64
from minidl.graph import Atom, Equation


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


_SMALL, _MANY = 64, 32  # multiplications of a product that take less time than a call of BLAS, and products that are worth a kernel
_BLAS = {float32: "sgemm", float64: "dgemm", complex64: "cgemm", complex128: "zgemm"}


class Product:
    """z[m, n] = x[m, k] @ y[k, n], row-major; tx, ty: the operand is stored transposed; keep: add to z.

    `args` are the numbers that a kernel passes on, `text(i, x, y, z)` the line that does it, where they begin at a[i]. rows: of how many rows of the
    whole x these m are a part, where it is stored transposed.
    """

    def __init__(self, plan: Any, dtype: DType, m: int, n: int, k: int, tx: bool, ty: bool, keep: bool = False, rows: int = 0):
        self.dtype = dtype
        function = routine("cython_blas", _BLAS[dtype]) if dtype in _BLAS else None
        if function is None:
            self.fast, self.args = False, [int(tx), int(ty), m, n, k, int(keep)]
            return
        # Fortran sees each row-major matrix transposed: z' = y' x'
        numbers = [plan.raw(np.int32(v)) for v in (n, m, k, max(1, k if ty else n), max(1, (rows or m) if tx else k), max(1, n))]
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
            if all(w[1] == w[2] for w in merged(shape, _grouped(a.shape, order), strides(shape))) or math.prod(a.shape) == 0:
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
        product, room = Product(plan, d, n, m, k, False, True), plan.temp(m * n * d.itemsize)
        plan.call(source(product.text("3", "a[0]", "a[1]", "a[2]")), yr, xr, room, *product.args)
        narrow(plan, v, d, lambda out: move(plan, room, out, d, (m, n), (1, m), (n, 1)))
        return
    if batch >= _MANY and 0 < m * n * k <= _SMALL and d.is_float:
        unrolled = source(_small(d, m, n, k, tx, ty))
        narrow(plan, v, d, lambda out: plan.call(unrolled, xr, yr, out, batch))
        return
    product = Product(plan, d, m, n, k, tx, ty)
    text = source(f"for i in range(a[3]):\n    {product.text('7', 'a[0] + i*a[4]', 'a[1] + i*a[5]', 'a[2] + i*a[6]')}")
    steps = [s * d.itemsize for s in (m * k, k * n, m * n)]
    narrow(plan, v, d, lambda out: plan.call(text, xr, yr, out, batch if m * n else 0, *steps, *product.args))


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


# ---- windows --------------------------------------------------------------------------------------------------------------------------------
def _three(values: Sequence[int], default: int) -> list[int]:
    return [default] * (3 - len(values)) + list(values)


def _geometry(channels: int, x: Sequence[int], w: Sequence[int], out: Sequence[int], p: dict[str, Any]) -> list[int]:
    """The numbers that `columns` and the pooling kernels read: always three spatial axes."""
    low = _three([lo for lo, _ in p["padding"]], 0)
    return [channels, *_three(x, 1), *_three(w, 1), *_three(out, 1), *_three(p["stride"], 1), *low, *_three(p["dilation"], 1)]


@lower("conv", "conv_dx", "conv_dw")
def _conv(plan: Any, e: Equation) -> None:
    name, (v,), p = e.primitive.name, e.outputs, e.params
    shapes: dict[str, tuple[int, ...]] = {"x": p.get("x_shape", ()), "w": p.get("w_shape", ()), "o": v.shape}
    order = {"conv": "xw", "conv_dx": "ow", "conv_dw": "xo"}[name]
    shapes.update(zip(order, (a.shape for a in e.inputs), strict=True))
    d = float32 if is_half(v.dtype) else v.dtype
    places = dict(zip(order, (widen(plan, a)[0] for a in e.inputs), strict=True))
    xs, ws, os, groups = shapes["x"], shapes["w"], shapes["o"], p["groups"]
    g = _geometry(xs[1], xs[2:], ws[2:], os[2:], p)
    rows_, cols, points = os[1] // groups, math.prod(ws[1:]), math.prod(os[2:])
    size = d.itemsize
    step = {"x": math.prod(xs[1:]) * size, "o": math.prod(os[1:]) * size}
    in_group = {"w": rows_ * cols * size, "o": rows_ * points * size, "c": cols * points * size}
    t = stored(d)
    col = plan.temp(max(1, groups * cols * points * size))
    # a: x, w, o, col; N; steps of x and o; groups, steps of w, o, col; geometry (19); product; product that keeps
    at = {"w": "a[1] + j*a[8]", "o": "a[2] + i*a[6] + j*a[9]", "c": "a[3] + j*a[10]"}
    head = f"for i in range(a[4]):\n    x, c = as_ptr(a[0] + i*a[5], {t}), as_ptr(a[3], {t})\n    g = as_ptr(a[11], np.int64)\n"
    unfold = f"    columns(x, c, g, {t}(0), False)\n"
    loop = "    for j in range(a[7]):\n        "
    if name == "conv":
        products = [Product(plan, d, rows_, points, cols, False, False)]
        body = head + unfold + loop + products[0].text("12", at["w"], at["c"], at["o"])
    elif name == "conv_dx":
        products = [Product(plan, d, cols, points, rows_, True, False)]
        clear = f"    for q in range(a[5] // {size}):\n        x[q] = {t}(0)\n"
        body = head + loop + products[0].text("12", at["w"], at["o"], at["c"]) + "\n" + clear + f"    columns(x, c, g, {t}(0), True)"
    else:
        products = [Product(plan, d, rows_, cols, points, False, True, keep) for keep in (False, True)]
        here = f"(12 + {len(products[0].args)} * (i > 0))"
        body = head + unfold + loop + products[0].text(here, at["o"], at["c"], at["w"])
    result = {"conv": "o", "conv_dx": "x", "conv_dw": "w"}[name]
    numbers = [xs[0], step["x"], step["o"], groups, in_group["w"], in_group["o"], in_group["c"], plan.raw(np.array(g, np.int64))]
    parts = [a for q in products for a in q.args]

    def compute(out: Any) -> None:
        if name == "conv_dw" and not (xs[0] and points):
            fill(plan, out, d, math.prod(ws))
            return
        where = {**places, result: out}
        text, room = body, []
        if suits(xs, ws, os, p, d):
            direct = Direct(name, xs, ws, os, p, d)
            text, room = _chosen(direct, name, body, 12 + len(parts)), [plan.temp(direct.scratch)]
        plan.call(source(text), where["x"], where["w"], where["o"], col, *numbers, *parts, *room)

    narrow(plan, v, d, compute)


def _chosen(direct: Direct, name: str, columns: str, at: int) -> str:
    """Direct loops, and columns where an infinity or nan met a zero that is not there."""
    lines, other = "\n".join([f"scratch = a[{at}]", *direct.lines]), _indent(columns, 1).rstrip("\n")
    if not direct.guard:
        return lines
    if name == "conv_dw":
        return f"{lines}\nif not {direct.guard}:\n{other}"
    weights = f"w = as_ptr(a[1], {direct.t})"
    return f"{weights}\nif {direct.guard}:\n{_indent(lines, 1)}else:\n{other}"


_POOL = """for b in range(g[0]):
    for p0 in range(g[7]):
        for p1 in range(g[8]):
            for p2 in range(g[9]):
                o = ((b*g[7] + p0)*g[8] + p1)*g[9] + p2
"""
_PLACE = """z0, z1, z2 = p0*g[10] - g[13] + i0*g[16], p1*g[11] - g[14] + i1*g[17], p2*g[12] - g[15] + i2*g[18]
inside = {inside}
at = ((b*g[1] + z0)*g[2] + z1)*g[3] + z2
"""


def _place_text(p: dict[str, Any]) -> str:
    """Where a place of the window lies; without padding every place is inside."""
    tests = " and ".join(f"z{i} >= 0 and z{i} < g[{1 + i}]" for i in range(3))
    return _PLACE.format(inside=tests if any(map(any, p["padding"])) else "True")


def _pool(x: Sequence[int], out: Sequence[int], p: dict[str, Any]) -> list[int]:
    k = len(p["window"])
    return _geometry(math.prod(x[: len(x) - k]), x[len(x) - k :], p["window"], out[len(out) - k :], p)


def _indent(text: str, depth: int) -> str:
    return "".join("    " * depth + line + "\n" for line in text.strip("\n").split("\n"))


_UNROLLED = """for b in range(a[3]):
    for p0 in range(a[4]):
        for p1 in range(a[5]):
            row = ((b*a[7] + p0*{s0})*X1 + p1*{s1})*X2
            o = ((b*a[4] + p0)*a[5] + p1)*a[6]
            for p2 in range(a[6]):
                at = row + p2*{s2}
"""


def _unrolled(p: dict[str, Any], body: str) -> str | None:
    """A loop over windows that LLVM vectorises: without padding, every place of the window written out, c0, c1, … apart from `at`.

    body: what is done with a window, where a line with {k} stands for one line a place. None where windows are padded or large.
    """
    window, stride, dilation = _three(p["window"], 1), _three(p["stride"], 1), _three(p["dilation"], 1)
    if any(map(any, p["padding"])) or math.prod(window) > 16:
        return None
    places = [[q * w for q, w in zip(place, dilation, strict=True)] for place in np.ndindex(*window)]
    head = ["X1, X2 = a[8], a[9]", *(f"c{k} = ({i[0]}*X1 + {i[1]})*X2 + {i[2]}" for k, i in enumerate(places))]
    lines = [line.format(k=k) for line in body.split("\n") for k in (range(len(places)) if "{k}" in line else [0])]
    return "\n".join([*head, _UNROLLED.format(s0=stride[0], s1=stride[1], s2=stride[2]) + _indent("\n".join(lines), 4).rstrip("\n")])


def _windows(x: Sequence[int], out: Sequence[int], p: dict[str, Any]) -> list[int]:
    """The numbers that `_unrolled` reads."""
    k = len(p["window"])
    return [math.prod(x[: len(x) - k]), *_three(out[len(out) - k :], 1), *_three(x[len(x) - k :], 1)]


def _place_type(plan: Any, i: Atom, p: dict[str, Any]) -> str:
    """How places in a window are stored: in a byte where nobody sees them and it holds them."""
    return "np.int8" if i in plan.narrow and math.prod(p["window"]) <= 127 else "np.int64"


@lower("max_pool")
def _max_pool(plan: Any, e: Equation) -> None:
    (x,), (v, i), d = e.inputs, e.outputs, e.inputs[0].dtype
    kind = _place_type(plan, i, e.params)
    if kind == "np.int8":
        plan.alias(i, plan.temp(math.prod(i.shape)))
    else:
        plan.out(i)
    step = "; ".join(
        [f"w = {loaded(d, 'get(x0, at + c{k}, 0, 3)')}", "take = (w > high) | ((w != w) & (high == high))", "high = w if take else high",
         f"best = {kind}({{k}}) if take else best"]
    )  # fmt: skip
    text = _unrolled(e.params, f"high, best = {loaded(d, 'get(x0, at, 0, 3)')}, {kind}(0)\n{step}\n"
                     f"put(x1, o + p2, {packed(d, 'high')}, 1, 3)\nput(x2, o + p2, best, 2, 3)")  # fmt: skip
    if text is not None:
        head = pointers(stored(d), stored(d), kind)
        plan.call(source(head, text), plan.at(x), plan.out(v), plan.at(i), *_windows(x.shape, v.shape, e.params))
        return
    visit = f"""if inside:
    w = {loaded(d, "x0[at]")}
    if best < 0 or (high == high and (w > high or w != w)):
        high, best = w, (i0*g[5] + i1)*g[6] + i2
"""
    k0, k1, k2 = _three(e.params["window"], 1)  # as constants: LLVM unrolls the window
    search = f"for i0 in range({k0}):\n    for i1 in range({k1}):\n        for i2 in range({k2}):\n" + _indent(_place_text(e.params) + visit, 3)
    body = f"high, best = {lowest(d)}, -1\n" + search + f"x1[o] = {packed(d, 'high')}\nx2[o] = max(best, 0)"
    text = source(pointers(stored(d), stored(d), kind), "g = as_ptr(a[3], np.int64)", _POOL + _indent(body, 4).rstrip("\n"))
    plan.call(text, plan.at(x), plan.out(v), plan.at(i), plan.raw(np.array(_pool(x.shape, v.shape, e.params), np.int64)))


@lower("pool_gather", "pool_scatter")
def _pool_moves(plan: Any, e: Equation) -> None:
    (x, i), (v,), gathers = e.inputs, e.outputs, e.primitive.name == "pool_gather"
    ref, d = (plan.at(x), x.dtype) if gathers else widen(plan, x)
    t, kind = moved(d) if gathers else stored(d), _place_type(plan, i, e.params)
    window, stride = _three(e.params["window"], 1), _three(e.params["stride"], 1)
    small, large = (i.shape, x.shape if gathers else v.shape)
    apart = all(w <= s for w, s in zip(window, stride, strict=True)) and set(e.params["dilation"]) == {1}
    if gathers:
        choose = "y = get(x0, at + c{k}, 0, 3) if w == {k} else y"
        text = _unrolled(e.params, f"w, y = get(x2, o + p2, 2, 3), get(x0, at, 0, 3)\n{choose}\nput(x1, o + p2, y, 1, 3)")
    else:  # where windows do not overlap, each place is written by the window that it lies in
        write = f"put(x1, at + c{{k}}, (y if w == {{k}} else {t}(0)) + {t}(0), 1, 3)"
        text = _unrolled(e.params, f"w, y = get(x2, o + p2, 2, 3), get(x0, o + p2, 0, 3)\n{write}")
        text = text if apart else None
    if text is not None:
        kernel = source(pointers(t, t, kind), text)
        spatial = len(e.params["window"])
        covers = all(n == w * m for n, w, m in zip(large[-spatial:], e.params["window"], small[-spatial:], strict=True))

        def compute_unrolled(out: Any) -> None:
            if not gathers and not covers:
                fill(plan, out, d, math.prod(v.shape))
            plan.call(kernel, ref, out, index_of(plan, i), *_windows(large, small, e.params))

        narrow(plan, v, d if not gathers else v.dtype, compute_unrolled)
        return
    _, k1, k2 = window
    find = f"w = x2[o]\ni0, i1, i2 = w // {k1 * k2}, w // {k2} % {k1}, w % {k2}\n" + _place_text(e.params)
    body = find + (f"x1[o] = x0[at] if inside else {t}(0)" if gathers else "if inside:\n    x1[at] += x0[o]")
    text = source(pointers(t, t, kind), "g = as_ptr(a[3], np.int64)", _POOL + _indent(body, 4).rstrip("\n"))
    numbers = plan.raw(np.array(_pool(x.shape if gathers else v.shape, i.shape, e.params), np.int64))

    def compute(out: Any) -> None:
        if not gathers:
            fill(plan, out, d, math.prod(v.shape))
        plan.call(text, ref, out, index_of(plan, i), numbers)

    narrow(plan, v, d if not gathers else v.dtype, compute)


# ---- control flow ---------------------------------------------------------------------------------------------------------------------------
def _bytes(v: Any) -> int:
    return math.prod(v.shape) * v.dtype.itemsize


@lower("scan")
def _scan(plan: Any, e: Equation) -> None:
    p, consts, carry = e.params, e.params["n_consts"], e.params["n_carry"]
    header = plan.nested(p["body"])
    operands = [plan.at(a) for a in e.inputs]
    outs = [plan.out(v) for v in e.outputs]
    xs, ys = p["body"].inputs[consts + carry :], p["body"].outputs[carry:]
    numbers = [_bytes(v) for v in (*e.outputs[:carry], *xs, *ys)]
    plan.call(CONTROL["scan"], header, p["length"], int(p["reverse"]), consts, carry, len(xs), len(ys), *operands, *outs, *numbers)


@lower("while_loop")
def _while(plan: Any, e: Equation) -> None:
    p = e.params
    operands = [plan.at(a) for a in e.inputs]
    outs = [plan.out(v) for v in e.outputs]
    headers = plan.nested(p["cond"]), plan.nested(p["body"])
    plan.call(CONTROL["while_loop"], *headers, p["n_cond"], p["n_body"], len(outs), *operands, *outs, *(_bytes(v) for v in e.outputs))


@lower("cond")
def _cond(plan: Any, e: Equation) -> None:
    headers = [plan.nested(g) for g in e.params["branches"]]
    places = [plan.at(a) for a in e.inputs[1:]] + [plan.out(v) for v in e.outputs]
    plan.call(CONTROL["cond"], index_of(plan, e.inputs[0]), len(headers), len(places), *headers, *places)
