"""How each primitive that is not elementwise becomes calls of kernels: one function per family, registered by name in `LOWER`.

A lowering is `f(plan, equation)`; it asks the plan for addresses and adds calls. Promises: kernels depend on dtypes and ranks alone; elements that are
only moved are moved as bits; sums are at least as accurate as NumPy's; float16 and bfloat16 accumulate in float32 or wider.
"""

from __future__ import annotations

import ctypes
import functools
import importlib
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from minidl.backends.numba_emit import collapse, computed, is_half, loaded, nest, packed, stored
from minidl.backends.numba_kernels import CONTROL
from minidl.dtypes import DType, bool_, complex64, complex128, float32, float64, int64
from minidl.graph import Atom, Equation, Var

LOWER: dict[str, Callable[[Any, Equation], None]] = {}
#: Primitives that call NumPy instead of a kernel, and why. What the table gains before this file does is found at run time.
object_mode: dict[str, str] = {}


def lower(*names: str) -> Callable[[Callable[[Any, Equation], None]], Callable[[Any, Equation], None]]:
    """Register a lowering."""

    def register(f: Callable[[Any, Equation], None]) -> Callable[[Any, Equation], None]:
        LOWER.update(dict.fromkeys(names, f))
        return f

    return register


def source(*lines: str) -> str:
    """A kernel's source from its lines (each may hold several)."""
    return "def k(a):\n" + "\n".join("    " + part for line in lines for part in line.split("\n")) + "\n"


def pointers(*dtypes: str) -> str:
    """`x0, x1, … = ` typed pointers from the leading arguments."""
    return "\n".join(f"x{i} = as_ptr(a[{i}], {d})" for i, d in enumerate(dtypes))


def sizes(first: int, *names: str) -> str:
    """Names for the integers that follow the pointers."""
    return "\n".join(f"{n} = a[{first + i}]" for i, n in enumerate(names))


def moved(dtype: DType) -> str:
    """An integer type with the size of an element (complex128 moves as itself)."""
    return "np.complex128" if dtype is complex128 else f"np.uint{dtype.itemsize * 8}"


def strides(shape: Sequence[int]) -> list[int]:
    """Elements between neighbours along each axis of a contiguous array."""
    return [math.prod(shape[i + 1 :]) for i in range(len(shape))]


def split(shape: Sequence[int], axis: int) -> tuple[int, int, int]:
    """(outer, size, inner) around one axis."""
    return math.prod(shape[:axis]), shape[axis], math.prod(shape[axis + 1 :])


# ---- structure ------------------------------------------------------------------------------------------------------------------------
def move(plan: Any, x: Any, out: Any, dtype: DType, shape: Sequence[int], xs: Sequence[int], outs: Sequence[int]) -> None:
    """out[sum i*outs] = x[sum i*xs] for all i below shape; strides are in elements."""
    axes = merged(shape, xs, outs)
    rank, unit = len(axes), axes[-1][1:] == (1, 1)
    tiled = rank >= 2 and not unit and axes[-1][2] == 1 and axes[-2][1] == 1  # a transpose: in squares, so that both sides use whole cache lines
    names = [f"n{i}" for i in range(rank)] + [f"s{i}" for i in range(rank)] + [f"t{i}" for i in range(rank)]
    here = [" + ".join(f"i{i}*{s}{i}" if not (unit and i == rank - 1) else f"i{i}" for i in range(rank)) for s in "st"]
    loops = [(f"i{i}", f"n{i}") for i in range(rank)]
    if tiled:
        i, j = rank - 2, rank - 1
        loops[i:] = [("p", f"(n{i} + 15) // 16"), ("q", f"(n{j} + 15) // 16"), (f"i{i}", f"p*16, min(p*16 + 16, n{i})"), (f"i{j}", f"q*16, min(q*16 + 16, n{j})")]
    body = nest(loops, {}, [f"x1[{here[1]}] = x0[{here[0]}]"], depth=0)
    t = moved(dtype)
    plan.call(source(pointers(t, t), sizes(2, *names), *body), x, out, *(a[0] for a in axes), *(a[1] for a in axes), *(a[2] for a in axes))


def merged(shape: Sequence[int], xs: Sequence[int], outs: Sequence[int]) -> list[tuple[int, int, int]]:
    """The fewest axes (size, stride, stride) that describe the same walk over two arrays."""
    axes: list[tuple[int, int, int]] = []
    for n, s, t in zip(shape, xs, outs, strict=True):
        if n == 1:
            continue
        if axes and axes[-1][1] == n * s and axes[-1][2] == n * t:
            axes[-1] = (axes[-1][0] * n, s, t)
        else:
            axes.append((n, s, t))
    return axes or [(1, 1, 1)]


def fill(plan: Any, out: Any, dtype: DType, n: int, value: Any = 0) -> None:
    """out[:n] = value."""
    t = moved(dtype)
    plan.call(source(pointers(t, t), "v = x1[0]\nfor i in range(a[2]):\n    x0[i] = v"), out, plan.const(value, dtype), n)


def shifted(ref: Any, elements: int, dtype: DType) -> Any:
    """The address of a later element."""
    return ref[0], ref[1] + elements * dtype.itemsize


@lower("reshape", "bitcast", "alias", "copy")
def _alias(plan: Any, e: Equation) -> None:
    plan.alias(e.outputs[0], plan.at(e.inputs[0]))


@lower("permute", "slice", "flip")
def _view(plan: Any, e: Equation) -> None:
    (x,), (out,), p = e.inputs, e.outputs, e.params
    s, start = strides(x.shape), 0
    if e.primitive.name == "permute":
        s = [s[i] for i in p["axes"]]
    elif e.primitive.name == "flip":
        start = sum((x.shape[i] - 1) * s[i] for i in p["axes"] if x.shape[i])
        s = [-v if i in p["axes"] else v for i, v in enumerate(s)]
    else:
        start = sum(i * v for i, v in zip(p["start"], s, strict=True))
        s = [v * k for v, k in zip(s, p["step"], strict=True)]
    origin = shifted(plan.at(x), start, x.dtype)
    if 0 in out.shape:
        plan.out(out)
    elif [a[1:] for a in merged(out.shape, s, strides(out.shape))] == [(1, 1)]:
        plan.alias(out, origin)
    else:
        move(plan, origin, plan.out(out), x.dtype, out.shape, s, strides(out.shape))


def _place(plan: Any, x: Atom, out: Any, shape: Sequence[int], start: Sequence[int], step: Sequence[int]) -> None:
    """out[start::step] = x."""
    s = strides(shape)
    if math.prod(x.shape):
        at = shifted(out, sum(i * v for i, v in zip(start, s, strict=True)), x.dtype)
        move(plan, plan.at(x), at, x.dtype, x.shape, strides(x.shape), [v * k for v, k in zip(s, step, strict=True)])


@lower("unslice", "pad")
def _embed(plan: Any, e: Equation) -> None:
    (x,), (v,), p = e.inputs, e.outputs, e.params
    out = plan.out(v)
    fill(plan, out, x.dtype, math.prod(v.shape), p.get("value", 0))
    start = [lo for lo, _ in p["widths"]] if "widths" in p else p["start"]
    _place(plan, x, out, v.shape, start, p.get("step", (1,) * len(v.shape)))


@lower("concat")
def _concat(plan: Any, e: Equation) -> None:
    (v,), axis, at = e.outputs, e.params["axis"], 0
    out = plan.out(v)
    for x in e.inputs:
        _place(plan, x, out, v.shape, [at if i == axis else 0 for i in range(len(v.shape))], (1,) * len(v.shape))
        at += x.shape[axis]


@lower("tril", "triu")
def _triangle(plan: Any, e: Equation) -> None:
    (x,), (v,), t = e.inputs, e.outputs, moved(e.inputs[0].dtype)
    kept = "j - i <= k" if e.primitive.name == "tril" else "j - i >= k"
    body = f"for b in range(a[2]):\n    for i in range(n):\n        for j in range(m):\n            x1[(b*n + i)*m + j] = x0[(b*n + i)*m + j] if {kept} else {t}(0)"
    text = source(pointers(t, t), sizes(3, "n", "m", "k"), body)
    plan.call(text, plan.at(x), plan.out(v), math.prod(x.shape[:-2]), *x.shape[-2:], e.params["k"])


@lower("iota")
def _iota(plan: Any, e: Equation) -> None:
    d = e.outputs[0].dtype
    value = packed(d, f"{computed(d)}(i)")
    plan.call(source(pointers(stored(d)), f"for i in range(a[1]):\n    x0[i] = {value}"), plan.out(e.outputs[0]), e.params["size"])


# ---- reductions -------------------------------------------------------------------------------------------------------------------------
def wide(dtype: DType) -> str:
    """The type that sums and products accumulate in."""
    return {"float": "np.float64", "complex": "np.complex128", "int": "np.int64", "uint": "np.uint64"}.get(dtype.kind, "np.uint8")


def lowest(dtype: DType, sign: int = -1) -> str:
    """The start of a maximum (sign -1) or a minimum (+1)."""
    if dtype is bool_:
        return f"np.uint8({int(sign > 0)})"
    if dtype.is_integer:
        info = np.iinfo(dtype.numpy)
        return f"{computed(dtype)}({info.min if sign < 0 else info.max})"
    return f"{computed(dtype)}({sign}*np.inf)"


def extreme(dtype: DType, name: str) -> str:
    """`f({0}, {1})`, the larger or smaller of two."""
    if dtype is bool_:
        return "{0} | {1}" if name == "max" else "{0} & {1}"
    return f"v{name}({{0}}, {{1}})" if dtype.is_float else f"{computed(dtype)}({name}({{0}}, {{1}}))"


def _monoid(name: str, dtype: DType) -> tuple[str, str, str]:
    """(type, start, update) of a reduction's accumulator."""
    if name in ("max", "min"):
        return stored(dtype) if dtype is bool_ else computed(dtype), lowest(dtype, -1 if name == "max" else 1), extreme(dtype, name)
    if name in ("any", "all"):
        return "np.uint8", f"np.uint8({int(name == 'all')})", "{0} | {1}" if name == "any" else "{0} & {1}"
    kind = wide(dtype)
    return kind, f"{kind}({int(name == 'prod')})", f"{{0}} {'*' if name == 'prod' else '+'} {kind}({{1}})"


# A block's sum may be reordered; blocks add up in float64, and float64 blocks with their rounding errors carried along (Knuth's two-sum).
_BLOCK_SUM = """for q in range({n} // {size}):
    s = {zero}
    for j in range({size}):
        s = {add}
    {join}
s = {zero}
for j in range({n} // {size} * {size}, {n}):
    s = {add_tail}
{join}"""


def _row_sum(dtype: DType, n: str, base: str) -> str:
    kind, exact = computed(dtype), dtype in (float64, complex128)
    if dtype.is_complex:
        zero, size, plus = "np.complex128(0)", 64, "s + np.complex128({0})"
    else:
        zero, size, plus = f"{kind}(0)", 512, "fadd(s, {0})"
    join = "t = acc + s\nz = t - acc\nrest += (acc - (t - z)) + (s - z)\nacc = t" if exact else f"acc += {wide(dtype)}(s)"
    texts = [plus.format(loaded(dtype, f"x0[{base} + {i}]")) for i in (f"q*{size} + j", "j")]
    text = _BLOCK_SUM.replace("    {join}", "\n".join("    " + line for line in join.split("\n"))).replace("{join}", join)
    return text.format(n=n, size=size, zero=zero, add=texts[0], add_tail=texts[1])


def pattern(shape: Sequence[int], axis: Sequence[int]) -> tuple[list[int], list[bool]]:
    """Merged sizes, and which of them are reduced."""
    n, (flags,) = collapse(shape, [[i in axis for i in range(len(shape))]])
    return n, list(flags) if math.prod(n) != 1 else [True]


def _walk(flags: Sequence[bool]) -> tuple[list[int], list[int], str, str]:
    """Kept axes, reduced axes, and the positions in x and in the result as text."""
    kept, gone = [d for d, f in enumerate(flags) if not f], [d for d, f in enumerate(flags) if f]
    x = " + ".join("*".join([f"i{d}", *(f"n{e}" for e in range(d + 1, len(flags)))]) for d in range(len(flags)))
    o = " + ".join("*".join([f"i{d}", *(f"n{e}" for e in kept if e > d)]) for d in kept) or "0"
    return kept, gone, x, o


def _loops(axes: Sequence[int]) -> list[tuple[str, str]]:
    return [(f"i{d}", f"n{d}") for d in axes]


@lower("sum", "prod", "max", "min", "any", "all")
def _reduce(plan: Any, e: Equation) -> None:
    (x,), (v,), name = e.inputs, e.outputs, e.primitive.name
    n, flags = pattern(x.shape, e.params["axis"])
    kept, gone, at, o = _walk(flags)
    kind, start, update = _monoid(name, x.dtype)
    names = [f"n{d}" for d in range(len(n))]
    last, finish = len(n) - 1, packed(v.dtype, f"{computed(v.dtype)}({{}})") if v.dtype is not bool_ else "{}"
    value = loaded(x.dtype, f"x0[{at}]") if x.dtype is not bool_ else f"x0[{at}]"
    if flags[last]:
        loops, init, done = _loops(gone[:-1]), [f"acc = {start}"], "acc"
        if name == "sum" and x.dtype.inexact:
            inner = _row_sum(x.dtype, f"n{last}", at.rsplit(f"i{last}", 1)[0].rstrip(" +") or "0").split("\n")
            if x.dtype in (float64, complex128):
                init, done = [*init, "rest = acc"], "(acc + rest if acc - acc == 0 else acc)"
        else:
            loops, inner = _loops(gone), [f"acc = {update.format('acc', value)}"]
        body = [*init, *nest(loops, {}, inner, depth=0), f"x1[{o}] = {finish.format(done)}"]
        text = source(pointers(stored(x.dtype), stored(v.dtype)), sizes(2, *names), *nest(_loops(kept), {}, body, depth=0))
        plan.call(text, plan.at(x), plan.out(v), *n)
        return
    row = f"i{last}"  # a whole row of accumulators, so that memory is read in order
    body = [
        f"for {row} in range(n{last}):\n    x2[{row}] = {start}",
        *nest(_loops([*gone, last]), {}, [f"x2[{row}] = {update.format(f'x2[{row}]', value)}"], depth=0),
        f"for {row} in range(n{last}):\n    x1[{o}] = {finish.format(f'x2[{row}]')}",
    ]
    lines = nest(_loops(kept[:-1]), {}, [part for line in body for part in line.split("\n")], depth=0)
    text = source(pointers(stored(x.dtype), stored(v.dtype), kind), sizes(3, *names), *lines)
    plan.call(text, plan.at(x), plan.out(v), plan.temp(n[last] * 16), *n)


_ROWS = "for o in range(outer):\n    for i in range(inner):\n        b = o*n*inner + i\n"


def rows(plan: Any, e: Equation, axis: int, body: str, *extra: Any, out_types: Sequence[str] | None = None, types: Sequence[str] = ()) -> None:
    """A kernel over the rows along one axis: element j of a row is x0[b + j*inner]; x1 is the result."""
    (x,), (v,) = e.inputs, e.outputs
    around = split(x.shape, axis) if x.shape else (1, 1, 1)
    unit = around[2] == 1  # contiguous rows let LLVM vectorise
    text = _ROWS + "\n".join("        " + line for line in body.strip("\n").split("\n"))
    k = 2 + len(types)
    names = sizes(k, "outer", "n", "inner") + ("\ninner = 1" if unit else "")
    extras = [a for a in extra if not isinstance(a, int)]
    numbers = [a for a in extra if isinstance(a, int)]
    head = pointers(stored(x.dtype), stored(v.dtype), *types)
    plan.call(source(head, names, text), plan.at(x), plan.out(v), *extras, *around, *numbers)


def _load(e: Equation, index: str) -> str:
    return loaded(e.inputs[0].dtype, f"x0[{index}]")


@lower("argmax", "argmin")
def _arg(plan: Any, e: Equation) -> None:
    op = ">" if e.primitive.name == "argmax" else "<"
    body = f"""
best, at = {_load(e, "b")}, 0
for j in range(1, n):
    v = {_load(e, "b + j*inner")}
    if best == best and (v {op} best or v != v):
        best, at = v, j
x1[o*inner + i] = at
"""
    rows(plan, e, e.params["axis"], body)


@lower("cumsum", "cumprod", "cummax", "cummin", "cumlogsumexp")
def _running(plan: Any, e: Equation) -> None:
    name, d = e.primitive.name, e.inputs[0].dtype
    if name == "cumlogsumexp":
        start, update = "-np.inf", "logaddexp({0}, np.float64({1}))"
    else:
        _, start, update = _monoid(name[3:], d)
    body = f"""
acc = {start}
for k in range(n):
    j = n - 1 - k if a[5] else k
    acc = {update.format("acc", _load(e, "b + j*inner"))}
    x1[b + j*inner] = {packed(d, f"{computed(d)}(acc)")}
"""
    rows(plan, e, e.params["axis"], body, int(e.params["reverse"]))


_SHIFT = """
high = -np.inf
for j in range(n):
    v = np.float64({x})
    high = v if v > high or v != v else high
low = high if high - high == 0 else 0.0
total = 0.0
for j in range(n):
    v = np.float64({x})
    total += ({one} if high == np.inf else np.exp(v - low))
"""


@lower("softmax", "log_softmax", "logsumexp")
def _softmax(plan: Any, e: Equation) -> None:
    name, d, axis = e.primitive.name, e.inputs[0].dtype, e.params["axis"]
    x, kind = _load(e, "b + j*inner"), computed(d)
    one = "(1.0 if v == np.inf else (v if v != v else 0.0))"
    text = _SHIFT.format(x=x, one=one)
    if name == "logsumexp":
        if len(axis) != 1:
            _logsumexp_axes(plan, e)
            return
        end = "math.log(total) + low if high < np.inf or high != high else high"
        rows(plan, e, axis[0], text + f"x1[o*inner + i] = {packed(d, f'{kind}({end})')}")
        return
    if name == "softmax":
        value = f"(({one} if high == np.inf else np.exp(v - low)) / (total if total != 0 else 1.0))"
    else:
        inf = "(0.0 if v == np.inf else (v if v != v else -np.inf))"
        value = f"(({inf} if high == np.inf else v - low) - (math.log(total) if total != 0 else 0.0))"
    rows(plan, e, axis, text + f"for j in range(n):\n    v = np.float64({x})\n    x1[b + j*inner] = {packed(d, f'{kind}({value})')}")


def _logsumexp_axes(plan: Any, e: Equation) -> None:
    """Several axes: move them to the end and make one of them."""
    (x,), (v,), axis = e.inputs, e.outputs, e.params["axis"]
    order = [i for i in range(len(x.shape)) if i not in axis] + list(axis)
    kept = math.prod(x.shape[i] for i in order[: len(order) - len(axis)])
    flat = Var((kept, math.prod(x.shape[i] for i in axis)), x.dtype)
    s = strides(x.shape)
    shape = [x.shape[i] for i in order]
    move(plan, plan.at(x), plan.out(flat), x.dtype, shape, [s[i] for i in order], strides(shape))
    flat_out = Var((kept,), v.dtype)
    LOWER["logsumexp"](plan, Equation(e.primitive, (flat,), {"axis": (1,), "keepdims": False}, (flat_out,)))
    plan.alias(v, plan.at(flat_out))


@lower("argsort")
def _argsort(plan: Any, e: Equation) -> None:
    d, n = e.inputs[0].dtype, e.inputs[0].shape[e.params["axis"]]
    if d.is_float:  # an order-preserving map to unsigned integers; every nan becomes the largest
        key = "u = to_u64(np.float64(v) + 0.0)\nu = ~u if u >> np.uint64(63) else u | np.uint64(1 << 63)\nu = np.uint64(18446744073709551615) if v != v else u"
    elif d.kind == "int":
        key = "u = np.uint64(np.int64(v)) ^ np.uint64(1 << 63)"
    else:
        key = "u = np.uint64(v)"
    body = f"""
for j in range(n):
    v = {_load(e, "b + j*inner")}
{chr(10).join("    " + line for line in key.split(chr(10)))}
    x2[j] = ~u if a[8] else u
flipped = merge_argsort(x2, x3, x4, n)
for j in range(n):
    x1[b + j*inner] = x4[j] if flipped else x3[j]
"""
    scratch = [plan.temp(8 * n) for _ in range(3)]
    rows(plan, e, e.params["axis"], body, *scratch, int(e.params["descending"]), types=("np.uint64", "np.int64", "np.int64"))


# ---- indexing -----------------------------------------------------------------------------------------------------------------------------
def cast(plan: Any, x: Any, n: int, source_dtype: DType, target: DType) -> Any:
    """A converted copy of n elements in scratch memory."""
    from minidl.backends.numba_emit import _cast

    out = plan.temp(n * target.itemsize)
    value = packed(target, _cast(source_dtype, target, "v"))
    text = source(pointers(stored(source_dtype), stored(target)), f"for i in range(a[2]):\n    v = {loaded(source_dtype, 'x0[i]')}\n    x1[i] = {value}")
    plan.call(text, x, out, n)
    return out


def widen(plan: Any, x: Atom) -> tuple[Any, DType]:
    """An operand's address and dtype, in float32 where it is half precision."""
    if not is_half(x.dtype):
        return plan.at(x), x.dtype
    return cast(plan, plan.at(x), math.prod(x.shape), x.dtype, float32), float32


def narrow(plan: Any, v: Var, dtype: DType, compute: Callable[[Any], None]) -> None:
    """Compute a result, rounding it once where it was computed in float32 for half precision."""
    if dtype is v.dtype:
        compute(plan.out(v))
        return
    n = math.prod(v.shape)
    scratch = plan.temp(n * dtype.itemsize)
    compute(scratch)
    plan.alias(v, cast(plan, scratch, n, dtype, v.dtype))


def index_of(plan: Any, i: Atom) -> Any:
    """An index operand's address as int64."""
    return plan.at(i) if i.dtype is int64 else cast(plan, plan.at(i), math.prod(i.shape), i.dtype, int64)


@lower("gather", "take_along")
def _gather(plan: Any, e: Equation) -> None:
    (x, i), (v,), t = e.inputs, e.outputs, moved(e.inputs[0].dtype)
    if e.primitive.name == "gather":
        n, inner = x.shape[0], math.prod(x.shape[1:])
        body = "for i in range(m):\n    j = min(max(x2[i], 0), n - 1)\n    for q in range(inner):\n        x1[i*inner + q] = x0[j*inner + q]"
        plan.call(source(pointers(t, t, "np.int64"), sizes(3, "m", "n", "inner"), body), plan.at(x), plan.out(v), index_of(plan, i), _count(i, n), n, inner)
        return
    outer, m, inner = split(i.shape, e.params["axis"])
    n = x.shape[e.params["axis"]]
    at = "(o*m + k)*inner + q"
    body = f"for o in range(outer):\n    for k in range(m):\n        for q in range(inner):\n            x1[{at}] = x0[(o*n + min(max(x2[{at}], 0), n - 1))*inner + q]"
    text = source(pointers(t, t, "np.int64"), sizes(3, "outer", "m", "inner", "n"), body)
    plan.call(text, plan.at(x), plan.out(v), index_of(plan, i), outer if n else 0, m, inner, n)


def _count(i: Atom, n: int) -> int:
    return math.prod(i.shape) if n else 0  # nothing can be read from an empty axis


@lower("scatter", "put_along")
def _scatter(plan: Any, e: Equation) -> None:
    by_name = dict(zip(("x", "u", "i") if e.primitive.name == "scatter" else ("x", "i", "u"), e.inputs, strict=True))
    x, u, i, (v,), mode = by_name["x"], by_name["u"], by_name["i"], e.outputs, e.params["mode"]
    if mode == "set":
        (xr, d), (ur, _) = (plan.at(x), x.dtype), (plan.at(u), x.dtype)
        t = moved(d)
        update = "{1}"
    else:
        (xr, d), (ur, _) = widen(plan, x), widen(plan, u)
        t = stored(d)
        update = extreme(d, mode) if mode in ("min", "max") else {"add": "{0} + {1}", "mul": "{0} * {1}"}[mode]
        if d is bool_:
            update = {"add": "{0} | {1}", "mul": "{0} & {1}"}.get(mode, update)
    if e.primitive.name == "scatter":
        outer, m, inner, n = 1, math.prod(i.shape), math.prod(x.shape[1:]), x.shape[0]
        row = "x2[k]"
    else:
        outer, m, inner = split(i.shape, e.params["axis"])
        n, row = x.shape[e.params["axis"]], "x2[(o*m + k)*inner + q]"
    text = update.format("x1[p]", "x0[(o*m + k)*inner + q]")
    body = f"""for i in range(outer*n*inner):
    x1[i] = x3[i]
for o in range(outer):
    for k in range(m):
        for q in range(inner):
            j = {row}
            if j >= 0 and j < n:
                p = (o*n + j)*inner + q
                x1[p] = {text}"""
    full = source(pointers(t, t, "np.int64", t), sizes(4, "outer", "m", "inner", "n"), body)
    narrow(plan, v, d, lambda out: plan.call(full, ur, out, index_of(plan, i), xr, outer, m, inner, n))


# ---- products -------------------------------------------------------------------------------------------------------------------------------
@functools.cache
def gemm(name: str) -> int | None:
    """The address of a BLAS routine (Fortran calling convention, 32-bit integers), which SciPy carries; None without SciPy."""
    try:
        capsule = importlib.import_module("scipy.linalg.cython_blas").__pyx_capi__[name]
    except ImportError:
        return None
    api = ctypes.pythonapi
    api.PyCapsule_GetName.restype, api.PyCapsule_GetName.argtypes = ctypes.c_char_p, [ctypes.py_object]
    api.PyCapsule_GetPointer.restype, api.PyCapsule_GetPointer.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
    return api.PyCapsule_GetPointer(capsule, api.PyCapsule_GetName(capsule))


_BLAS = {float32: "sgemm", float64: "dgemm", complex64: "cgemm", complex128: "zgemm"}


class Product:
    """z[m, n] = x[m, k] @ y[k, n], row-major; tx, ty: the operand is stored transposed; keep: add to z.

    `args` are the numbers that a kernel passes on, `text(i, x, y, z)` the line that does it, where they begin at a[i].
    """

    def __init__(self, plan: Any, dtype: DType, m: int, n: int, k: int, tx: bool, ty: bool, keep: bool = False):
        self.dtype = dtype
        function = gemm(_BLAS[dtype]) if dtype in _BLAS else None
        if function is None:
            self.fast, self.args = False, [int(tx), int(ty), m, n, k, int(keep)]
            return
        # Fortran sees each row-major matrix transposed: z' = y' x'
        numbers = [plan.raw(np.int32(v)) for v in (n, m, k, max(1, k if ty else n), max(1, m if tx else k), max(1, n))]
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
    product = Product(plan, d, m, n, k, tx, ty)
    text = source(f"for i in range(a[3]):\n    {product.text('7', 'a[0] + i*a[4]', 'a[1] + i*a[5]', 'a[2] + i*a[6]')}")
    steps = [s * d.itemsize for s in (m * k, k * n, m * n)]
    narrow(plan, v, d, lambda out: plan.call(text, xr, yr, out, batch if m * n else 0, *steps, *product.args))


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
    head = "for i in range(a[4]):\n    x, c = as_ptr(a[0] + i*a[5], %s), as_ptr(a[3], %s)\n    g = as_ptr(a[11], np.int64)\n" % (t, t)
    unfold = f"    columns(x, c, g, {t}(0), False)\n"
    loop = "    for j in range(a[7]):\n        "
    if name == "conv":
        products = [Product(plan, d, rows_, points, cols, False, False)]
        body = head + unfold + loop + products[0].text("12", at["w"], at["c"], at["o"])
    elif name == "conv_dx":
        products = [Product(plan, d, cols, points, rows_, True, False)]
        clear = "    for q in range(a[5] // %d):\n        x[q] = %s(0)\n" % (size, t)
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
        plan.call(source(body), where["x"], where["w"], where["o"], col, *numbers, *parts)

    narrow(plan, v, d, compute)


_POOL = """for b in range(g[0]):
    for p0 in range(g[7]):
        for p1 in range(g[8]):
            for p2 in range(g[9]):
                o = ((b*g[7] + p0)*g[8] + p1)*g[9] + p2
"""
_PLACE = """z0, z1, z2 = p0*g[10] - g[13] + i0*g[16], p1*g[11] - g[14] + i1*g[17], p2*g[12] - g[15] + i2*g[18]
inside = z0 >= 0 and z0 < g[1] and z1 >= 0 and z1 < g[2] and z2 >= 0 and z2 < g[3]
at = ((b*g[1] + z0)*g[2] + z1)*g[3] + z2
"""


def _pool(x: Sequence[int], out: Sequence[int], p: dict[str, Any]) -> list[int]:
    k = len(p["window"])
    return _geometry(math.prod(x[: len(x) - k]), x[len(x) - k :], p["window"], out[len(out) - k :], p)


def _indent(text: str, depth: int) -> str:
    return "".join("    " * depth + line + "\n" for line in text.strip("\n").split("\n"))


@lower("max_pool")
def _max_pool(plan: Any, e: Equation) -> None:
    (x,), (v, i), d = e.inputs, e.outputs, e.inputs[0].dtype
    visit = f"""if inside:
    w = {loaded(d, "x0[at]")}
    if best < 0 or (high == high and (w > high or w != w)):
        high, best = w, (i0*g[5] + i1)*g[6] + i2
"""
    search = "for i0 in range(g[4]):\n    for i1 in range(g[5]):\n        for i2 in range(g[6]):\n" + _indent(_PLACE + visit, 3)
    body = f"high, best = {lowest(d)}, -1\n" + search + f"x1[o] = {packed(d, 'high')}\nx2[o] = max(best, 0)"
    text = source(pointers(stored(d), stored(d), "np.int64"), "g = as_ptr(a[3], np.int64)", _POOL + _indent(body, 4).rstrip("\n"))
    plan.call(text, plan.at(x), plan.out(v), plan.out(i), plan.raw(np.array(_pool(x.shape, v.shape, e.params), np.int64)))


@lower("pool_gather", "pool_scatter")
def _pool_moves(plan: Any, e: Equation) -> None:
    (x, i), (v,), gathers = e.inputs, e.outputs, e.primitive.name == "pool_gather"
    ref, d = (plan.at(x), x.dtype) if gathers else widen(plan, x)
    t = moved(d) if gathers else stored(d)
    find = "w = x2[o]\ni0, i1, i2 = w // (g[5]*g[6]), w // g[6] % g[5], w % g[6]\n" + _PLACE
    body = find + (f"x1[o] = x0[at] if inside else {t}(0)" if gathers else "if inside:\n    x1[at] += x0[o]")
    text = source(pointers(t, t, "np.int64"), "g = as_ptr(a[3], np.int64)", _POOL + _indent(body, 4).rstrip("\n"))
    numbers = plan.raw(np.array(_pool(x.shape if gathers else v.shape, i.shape, e.params), np.int64))

    def compute(out: Any) -> None:
        if not gathers:
            fill(plan, out, d, math.prod(v.shape))
        plan.call(text, ref, out, index_of(plan, i), numbers)

    narrow(plan, v, d if not gathers else v.dtype, compute)


# ---- linear algebra -----------------------------------------------------------------------------------------------------------------------
@lower("cholesky")
def _cholesky(plan: Any, e: Equation) -> None:
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
                    bad = bad or not r > 0 or r == np.inf
                    x1[z + i*n + j] = {t}(math.sqrt(r))
                else:
                    x1[z + i*n + j] = {t}(s / {w}(x1[z + j*n + j]))
            else:
                x1[z + i*n + j] = {t}(0)
    if bad:
        for i in range(n*n):
            x1[z + i] = {t}(np.nan)"""
    narrow(plan, v, d, lambda out: plan.call(source(pointers(t, t), sizes(3, "n"), body), ref, out, math.prod(x.shape[:-2]), x.shape[-1]))


@lower("triangular_solve")
def _triangular_solve(plan: Any, e: Equation) -> None:
    (m, y), (v,), p = e.inputs, e.outputs, e.params
    (mr, d), (yr, _) = widen(plan, m), widen(plan, y)
    t, w, lead = stored(d), wide(d), v.shape[:-2]
    full = math.prod(lead)
    parts = []
    for a, ref in ((m, mr), (y, yr)):
        if a.shape[:-2] != lead:  # broadcast over the batch
            s = [0] * (len(v.shape) - len(a.shape)) + [0 if n == 1 and i < len(a.shape) - 2 else k for i, (n, k) in enumerate(zip(a.shape, strides(a.shape), strict=True))]
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
    text = source(pointers(t, t, t), sizes(3, "batch", "n", "columns_", "lower", "transpose", "unit"), body)
    flags = [int(p[k]) for k in ("lower", "transpose", "unit")]
    narrow(plan, v, d, lambda out: plan.call(text, *parts, out, full, *v.shape[-2:], *flags))


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
