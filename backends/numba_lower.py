"""How primitives that are not elementwise become calls of kernels: one function per family, registered by name in `LOWER`; others are decomposed.

A lowering is `f(plan, equation)`; it asks the plan for addresses and adds calls. Promises: kernels depend on dtypes and ranks alone; elements that
are only moved are moved as bits; sums are at least as accurate as NumPy's; float16 and bfloat16 accumulate in float32 or wider.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from minidl.backends.numba_emit import cast_text, computed, extreme, is_half, loaded, lowest, packed, stored
from minidl.backends.numba_loops import REDUCTIONS, alone, monoid
from minidl.dtypes import DType, bool_, complex128, float32, int64
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


def nest(loops: Sequence[tuple[str, str]], body: str) -> list[str]:
    """A line of code inside nested `for v in range(n)` lines."""
    return ["    " * d + line for d, line in enumerate([*(f"for {v} in range({n}):" for v, n in loops), body])]


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
        inside = [(f"i{d}", f"{b}*16, min({b}*16 + 16, n{d})") for d, b in ((i, "p"), (j, "q"))]
        loops[i:] = [("p", f"(n{i} + 15) // 16"), ("q", f"(n{j} + 15) // 16"), *inside]
    body = nest(loops, f"x1[{here[1]}] = x0[{here[0]}]")
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
    step = elements * dtype.itemsize
    return ref + step if isinstance(ref, int) else (ref[0], ref[1] + step)


@lower("reshape", "bitcast", "alias", "copy", "barrier")
def _alias(plan: Any, e: Equation) -> None:
    plan.alias(e.outputs[0], plan.at(e.inputs[0]))


@lower("permute", "slice", "flip")
def _view(plan: Any, e: Equation) -> None:
    (x,), (out,), p = e.inputs, e.outputs, e.params
    s, start = strides(x.shape), 0
    if e.primitive.name == "permute":
        s = [s[i] for i in p["axes"]]
    elif e.primitive.name == "flip":
        start = sum((x.shape[i] - 1) * s[i] for i in p["axes"])
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
    at = "(b*n + i)*m + j"
    body = nest([("b", "a[2]"), ("i", "n"), ("j", "m")], f"x1[{at}] = x0[{at}] if {kept} else {t}(0)")
    text = source(pointers(t, t), sizes(3, "n", "m", "k"), *body)
    plan.call(text, plan.at(x), plan.out(v), math.prod(x.shape[:-2]), *x.shape[-2:], e.params["k"])


@lower("iota")
def _iota(plan: Any, e: Equation) -> None:
    d = e.outputs[0].dtype
    value = packed(d, f"{computed(d)}(i)")
    plan.call(source(pointers(stored(d)), f"for i in range(a[1]):\n    x0[i] = {value}"), plan.out(e.outputs[0]), e.params["size"])


# ---- reductions -------------------------------------------------------------------------------------------------------------------------
@lower(*REDUCTIONS)
def _reduce(plan: Any, e: Equation) -> None:
    plan.loops(alone(e))


_ROWS = "for o in range(outer):\n    for i in range(inner):\n        b = o*n*inner + i\n"


def rows(plan: Any, e: Equation, axis: int, body: str, *extra: Any, types: Sequence[str] = ()) -> None:
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
    d, name = e.inputs[0].dtype, e.primitive.name[3:]
    x = "x0[b + j*inner]" if d is bool_ else _load(e, "b + j*inner")
    body = f"""
best = {lowest(d, -1 if name == "max" else 1)}
for j in range(n):
    best = {extreme(d, name).format("best", x)}
at = 0
for j in range(n):
    v = {x}
    if v == best or v != v:
        at = j
        break
x1[o*inner + i] = at
"""
    rows(plan, e, e.params["axis"], body)


@lower("cumsum", "cumprod", "cummax", "cummin", "cumlogsumexp")
def _running(plan: Any, e: Equation) -> None:
    name, d = e.primitive.name, e.inputs[0].dtype
    if name == "cumlogsumexp":
        start, update = "-np.inf", "np.logaddexp({0}, np.float64({1}))"
    else:
        kind, start, combine = monoid(name[3:], d, d)
        update = combine.format("{0}", f"{kind}({{1}})")
    body = f"""
acc = {start}
for k in range(n):
    j = n - 1 - k if a[5] else k
    acc = {update.format("acc", _load(e, "b + j*inner"))}
    x1[b + j*inner] = {packed(d, f"{computed(d)}(acc)")}
"""
    rows(plan, e, e.params["axis"], body, int(e.params["reverse"]))


@lower("argsort")
def _argsort(plan: Any, e: Equation) -> None:
    d, n = e.inputs[0].dtype, e.inputs[0].shape[e.params["axis"]]
    if d.is_float:  # an order-preserving map to unsigned integers; every nan becomes the largest
        key = "u = to_u64(np.float64(v) + 0.0)\nu = ~u if u >> np.uint64(63) else u | np.uint64(1 << 63)\n"
        key += "u = np.uint64(18446744073709551615) if v != v else u"
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
    out = plan.temp(n * target.itemsize)
    value = packed(target, cast_text(source_dtype, target, "v"))
    loop = f"for i in range(a[2]):\n    v = {loaded(source_dtype, 'x0[i]')}\n    x1[i] = {value}"
    plan.call(source(pointers(stored(source_dtype), stored(target)), loop), x, out, n)
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
        lines = "for i in range(m):\n    j = min(max(x2[i], 0), n - 1)\n    for q in range(inner):\n        x1[i*inner + q] = x0[j*inner + q]"
        text = source(pointers(t, t, "np.int64"), sizes(3, "m", "n", "inner"), lines)
        plan.call(text, plan.at(x), plan.out(v), index_of(plan, i), math.prod(i.shape) if n else 0, n, inner)  # an empty axis has nothing to read
        return
    outer, m, inner = split(i.shape, e.params["axis"])
    n = x.shape[e.params["axis"]]
    at, loops = "(o*m + k)*inner + q", [("o", "outer"), ("k", "m"), ("q", "inner")]
    body = nest(loops, f"x1[{at}] = x0[(o*n + min(max(x2[{at}], 0), n - 1))*inner + q]")
    text = source(pointers(t, t, "np.int64"), sizes(3, "outer", "m", "inner", "n"), *body)
    plan.call(text, plan.at(x), plan.out(v), index_of(plan, i), outer if n else 0, m, inner, n)


@lower("scatter", "put_along")
def _scatter(plan: Any, e: Equation) -> None:
    by_name = dict(zip(("x", "u", "i") if e.primitive.name == "scatter" else ("x", "i", "u"), e.inputs, strict=True))
    x, u, i, (v,), mode = by_name["x"], by_name["u"], by_name["i"], e.outputs, e.params["mode"]
    if mode == "set":
        (xr, d), (ur, _) = (plan.at(x), x.dtype), (plan.at(u), x.dtype)
        t, update = moved(d), "{1}"
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
