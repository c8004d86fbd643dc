"""numba: lowerings of convolution and pooling.

A convolution holds the columns of one example at a time and multiplies matrices, but for few channels and small kernels, where a product would be
too thin to be fast. There a plane of x is walked as one line: out[p] = sum over taps of w[i, j] * x[p + i*W + j], where rows of `out` keep the width
W of x, so that all taps of an output are at fixed distances and the loop over p is contiguous. What lies between the end of an output's row and W is
computed and dropped. The gradient in x is the same loop over a padded plane of the cotangent with rotated weights; in w it has an accumulator a tap.

Promises: sizes are constants of such a kernel, so each of these convolutions compiles its own (0.7 s, then from disk); zeros that only fill a plane
never meet an infinity or nan in silence: `guard` says where the kernel by columns must be asked instead.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from minidl.backends.numba_emit import is_half, loaded, lowest, packed, stored
from minidl.backends.numba_kernels import BROUGHT
from minidl.backends.numba_linear import Product
from minidl.backends.numba_lower import fill, index_of, moved, narrow, pointers, source, widen
from minidl.backends.numba_machine import jit
from minidl.dtypes import DType, float32, float64
from minidl.graph import Atom, Equation

LEAST = 1 << 20  # multiplications from which the compilation pays
_SPEED = 0.005  # nanoseconds a multiplication, for each byte of the numbers
_TAPS, _CHANNELS = 25, 128  # accumulators that fit into registers; products of channel numbers up to which matrix products are slower


def suits(x: Sequence[int], w: Sequence[int], o: Sequence[int], p: dict[str, Any], dtype: DType) -> bool:
    """Whether the loops here are worth it and can do it: two spatial axes, unit strides, no dilation, no groups, padding less than the kernel."""
    plain = len(w) == 4 and p["groups"] == 1 and set(p["stride"]) == {1} == set(p["dilation"]) and dtype in (float32, float64)
    small = plain and math.prod(w[2:]) <= _TAPS and w[0] * w[1] <= _CHANNELS and all(max(pad) < k for pad, k in zip(p["padding"], w[2:], strict=True))
    return small and min(*x, *o) > 0 and math.prod(o) * math.prod(w[1:]) >= LEAST


class Direct:
    """The text of one convolution of examples `first` to `last`, in a kernel whose a[0], `weights` and a[2] are x, w and out, and its scratch memory.

    text: lines that do it; guard: an expression that is false where the result cannot be trusted, before (dx) or after (dw) the lines, or "".
    """

    def __init__(self, name: str, x: Sequence[int], w: Sequence[int], o: Sequence[int], p: dict[str, Any], dtype: DType):
        self.t, self.size = stored(dtype), dtype.itemsize
        self.taps = [(i, j) for i in range(w[2]) for j in range(w[3])]
        self.w, self.low = w, [lo for lo, _ in p["padding"]]
        padded = [n + lo + hi for n, (lo, hi) in zip(x[2:], p["padding"], strict=True)]
        self.scratch = 0
        self.lines = [f"x, w, y = as_ptr(a[0], {self.t}), as_ptr(weights, {self.t}), as_ptr(a[2], {self.t})"]
        if name == "conv":
            self._correlate("x", "y", x, o, self.low, padded, rotated=False)
        elif name == "conv_dx":
            low = [k - 1 - lo for k, lo in zip(w[2:], self.low, strict=True)]
            self._correlate("y", "x", o, x, low, [n + k - 1 for n, k in zip(x[2:], w[2:], strict=True)], rotated=True)
        else:
            self._weights(x, o, padded)
        n = math.prod(w)
        self.guard = "" if name == "conv" else f"finite(w, {n})"

    def _room(self, elements: int) -> str:
        at = self.scratch
        self.scratch += -(-elements * self.size // 64) * 64
        return f"as_ptr(scratch + {at}, {self.t})"

    def _plane(self, source: str, shape: Sequence[int], low: Sequence[int], sizes: Sequence[int]) -> tuple[list[str], list[str], str]:
        """Before the loop over examples, in it, and the position of channel c: a copy with zeros round it, or the source itself."""
        _, channels, h, width = shape
        if list(sizes) == [h, width]:
            return [f"z = {source}"], [], f"(n*{channels} + c)*{h * width}"
        count = channels * sizes[0] * sizes[1]
        before = [f"z = {self._room(count)}", f"for q in range({count}):", f"    z[q] = {self.t}(0)"]
        to = f"(c*{sizes[0]} + r + {low[0]})*{sizes[1]} + q + {low[1]}"
        body = f"z[{to}] = {source}[((n*{channels} + c)*{h} + r)*{width} + q]"
        return (
            before,
            [f"for c in range({channels}):", f"    for r in range({h}):", f"        for q in range({width}):", f"            {body}"],
            (f"c*{sizes[0] * sizes[1]}"),
        )

    def _correlate(
        self, source: str, result: str, shape: Sequence[int], out: Sequence[int], low: Sequence[int], sizes: Sequence[int], rotated: bool
    ) -> None:
        (k0, k1), (_, channels, h, width) = self.w[2:], out
        line = (h - 1) * sizes[1] + width
        before, each, at = self._plane(source, shape, low, sizes)
        weights, sums = [], []
        for number, (i, j) in enumerate(self.taps):
            place = f"((c*{self.w[1]} + o)*{k0} + {k0 - 1 - i})*{k1} + {k1 - 1 - j}" if rotated else f"((o*{self.w[1]} + c)*{k0} + {i})*{k1} + {j}"
            weights.append(f"w{i}_{j} = w[{place}]")
            sums.append(f"s{number % 2} = fma(w{i}_{j}, get(z, b + {i * sizes[1] + j} + p, 0, 2), s{number % 2})")
        self.lines += [*before, f"t = {self._room(line)}", "for n in range(first, last):", *_in(each), f"    for o in range({channels}):"]
        self.lines += _in([f"for p in range({line}):", f"    t[p] = {self.t}(0)", f"for c in range({shape[1]}):", *_in([*weights, f"b = {at}"])], 2)
        self.lines += _in([f"for p in range({line}):", f"    s0, s1 = get(t, p, 1, 2), {self.t}(0)", *_in([*sums, "put(t, p, s0 + s1, 1, 2)"])], 3)
        store = f"{result}[((n*{channels} + o)*{h} + r)*{width} + q] = t[r*{sizes[1]} + q]"
        self.lines += _in([f"for r in range({h}):", f"    for q in range({width}):", f"        {store}"], 2)

    def _weights(self, x: Sequence[int], o: Sequence[int], sizes: Sequence[int]) -> None:
        (k0, k1), (_, channels, h, width) = self.w[2:], o
        line = (h - 1) * sizes[1] + width
        before, each, at = self._plane("x", x, self.low, sizes)
        self.lines += [f"for q in range({math.prod(self.w)}):", f"    w[q] = {self.t}(0)", *before]
        self.lines += [f"t = {self._room(line)}", f"for q in range({line}):", f"    t[q] = {self.t}(0)", "for n in range(first, last):", *_in(each)]
        spread = f"t[r*{sizes[1]} + q] = y[((n*{channels} + o)*{h} + r)*{width} + q]"
        self.lines += _in([f"for o in range({channels}):", f"    for r in range({h}):", f"        for q in range({width}):", f"            {spread}"])
        sums = [f"s{i}_{j} = fadd(s{i}_{j}, g*get(z, b + {i * sizes[1] + j} + p, 0, 2))" for i, j in self.taps]
        ends = [f"w[((o*{self.w[1]} + c)*{k0} + {i})*{k1} + {j}] += s{i}_{j}" for i, j in self.taps]
        starts = [f"s{i}_{j} = {self.t}(0)" for i, j in self.taps]
        inner = [f"for p in range({line}):", "    g = get(t, p, 1, 2)", *_in(sums)]
        self.lines += _in([f"for c in range({self.w[1]}):", *_in([*starts, f"b = {at}", *inner, *ends])], 2)


def _in(lines: Sequence[str], depth: int = 1) -> list[str]:
    return ["    " * depth + line for line in lines]


@jit
def columns(x, col, g, zero, back):
    """im2col of one example, x [C, D, H, W] → col [C, K, P], or its transpose (back), which adds into x.

    g: C, then three each of the sizes of x, of the kernel, of the result, strides, low paddings, dilations.
    """
    height, width, k2, o1, o2, s2 = g[2], g[3], g[6], g[8], g[9], g[12]
    row = 0
    for c in range(g[0]):
        for i0 in range(g[4]):
            for i1 in range(g[5]):
                for i2 in range(k2):
                    first = i2 * g[18] - g[15]  # x position of the first result column
                    lo = min(max(0, -((first) // s2)), o2)
                    hi = max(min(o2, (width - 1 - first) // s2 + 1), lo)
                    for p0 in range(g[7]):
                        y0 = p0 * g[10] - g[13] + i0 * g[16]
                        for p1 in range(o1):
                            y1 = p1 * g[11] - g[14] + i1 * g[17]
                            inside = y0 >= 0 and y0 < g[1] and y1 >= 0 and y1 < height
                            source = ((c * g[1] + y0) * height + y1) * width + first
                            if back:
                                if inside:
                                    for q in range(lo, hi):
                                        x[source + q * s2] += col[row + q]
                            elif inside:
                                for q in range(lo):
                                    col[row + q] = zero
                                for q in range(lo, hi):
                                    col[row + q] = x[source + q * s2]
                                for q in range(hi, o2):
                                    col[row + q] = zero
                            else:
                                for q in range(o2):
                                    col[row + q] = zero
                            row += o2


# ---- lowerings --------------------------------------------------------------------------------------------------------------------------
def _three(values: Sequence[int], default: int) -> list[int]:
    return [default] * (3 - len(values)) + list(values)


def _geometry(channels: int, x: Sequence[int], w: Sequence[int], out: Sequence[int], p: dict[str, Any]) -> list[int]:
    """The numbers that `columns` and the pooling kernels read: always three spatial axes."""
    low = _three([lo for lo, _ in p["padding"]], 0)
    return [channels, *_three(x, 1), *_three(w, 1), *_three(out, 1), *_three(p["stride"], 1), *low, *_three(p["dilation"], 1)]


def conv(plan: Any, e: Equation) -> None:
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
    t, n = stored(d), math.prod(ws)
    direct = Direct(name, xs, ws, os, p, d) if suits(xs, ws, os, p, d) else None
    # columns are multiplied by BLAS, whose threads divide its products where it has some
    lanes = plan.lanes(_SPEED * size * math.prod(os) * math.prod(ws[1:]), xs[0]) if direct or plan.alone else 1
    each = max(1, groups * cols * points * size)
    # a: x, w, o, col; first, last, lane; steps of x and o; groups, steps of w, o, col; geometry; steps of w and col from lane to lane; products
    at = {"w": "weights + j*a[10]", "o": "a[2] + i*a[8] + j*a[11]", "c": "col + j*a[12]"}
    start = "first, last, lane = a[4], a[5], a[6]\nweights, col = a[1] + lane*a[14], a[3] + lane*a[15]\n"
    head = f"for i in range(first, last):\n    x, c = as_ptr(a[0] + i*a[7], {t}), as_ptr(col, {t})\n    g = as_ptr(a[13], np.int64)\n"
    unfold = f"    columns(x, c, g, {t}(0), False)\n"
    loop = "    for j in range(a[9]):\n        "
    if name == "conv":
        products = [Product(plan, d, rows_, points, cols, False, False)]
        body = head + unfold + loop + products[0].text("16", at["w"], at["c"], at["o"])
    elif name == "conv_dx":
        products = [Product(plan, d, cols, points, rows_, True, False)]
        clear = f"    for q in range(a[7] // {size}):\n        x[q] = {t}(0)\n"
        body = head + loop + products[0].text("16", at["w"], at["o"], at["c"]) + "\n" + clear + f"    columns(x, c, g, {t}(0), True)"
    else:
        products = [Product(plan, d, rows_, cols, points, False, True, keep) for keep in (False, True)]
        here = f"(16 + {len(products[0].args)} * (i > first))"
        body = head + unfold + loop + products[0].text(here, at["o"], at["c"], at["w"])
    result = {"conv": "o", "conv_dx": "x", "conv_dw": "w"}[name]
    numbers = [step["x"], step["o"], groups, in_group["w"], in_group["o"], in_group["c"], plan.raw(np.array(g, np.int64))]
    parts = [a for q in products for a in q.args]
    text = start + (body if direct is None else _chosen(direct, name, body, 16 + len(parts)))

    def compute(out: Any) -> None:
        if name == "conv_dw" and not (xs[0] and points):
            fill(plan, out, d, n)
            return
        room = [plan.temp(lanes * direct.scratch)] if direct else []
        where, apart = {**places, result: out}, name == "conv_dw" and lanes > 1
        if apart:
            where["w"] = plan.temp(lanes * n * size)
        arrays = where["x"], where["w"], where["o"], plan.temp(lanes * each)
        plan.divide(source(text), lanes, arrays, xs[0], *numbers, apart * n * size, each, *parts, *room)
        if apart:
            plan.call(source(pointers(t, t), _TOGETHER), where["w"], out, n, lanes)

    narrow(plan, v, d, compute)


_TOGETHER = """n = a[2]
for q in range(n):
    x1[q] = x0[q]
for lane in range(1, a[3]):
    for q in range(n):
        x1[q] += x0[lane*n + q]"""
conv_dx = conv_dw = conv


def _chosen(direct: Direct, name: str, columns: str, at: int) -> str:
    """Direct loops, and columns where an infinity or nan met a zero that is not there."""
    lines, other = "\n".join([f"scratch = a[{at}] + lane*{direct.scratch}", *direct.lines]), _indent(columns, 1).rstrip("\n")
    if not direct.guard:
        return lines
    if name == "conv_dw":
        return f"{lines}\nif not {direct.guard}:\n{other}"
    weights = f"w = as_ptr(weights, {direct.t})"
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


_UNROLLED = """for b in range(a[3], a[4]):
    for p0 in range(a[6]):
        for p1 in range(a[7]):
            row = ((b*a[9] + p0*{s0})*X1 + p1*{s1})*X2
            o = ((b*a[6] + p0)*a[7] + p1)*a[8]
            for p2 in range(a[8]):
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
    head = ["X1, X2 = a[10], a[11]", *(f"c{k} = ({i[0]}*X1 + {i[1]})*X2 + {i[2]}" for k, i in enumerate(places))]
    lines = [line.format(k=k) for line in body.split("\n") for k in (range(len(places)) if "{k}" in line else [0])]
    return "\n".join([*head, _UNROLLED.format(s0=stride[0], s1=stride[1], s2=stride[2]) + _indent("\n".join(lines), 4).rstrip("\n")])


def _in_windows(plan: Any, text: str, arrays: Sequence[Any], x: Sequence[int], out: Sequence[int], p: dict[str, Any], cost: float) -> None:
    """Run what `_unrolled` wrote; cost: nanoseconds for a place of a window."""
    k = len(p["window"])
    planes = math.prod(x[: len(x) - k])
    lanes = plan.lanes(cost * math.prod(out) * math.prod(p["window"]), planes)
    plan.divide(text, lanes, arrays, planes, *_three(out[len(out) - k :], 1), *_three(x[len(x) - k :], 1))


def _place_type(plan: Any, i: Atom, p: dict[str, Any]) -> str:
    """How places in a window are stored: in a byte where nobody sees them and it holds them."""
    return "np.int8" if i in plan.narrow and math.prod(p["window"]) <= 127 else "np.int64"


def max_pool(plan: Any, e: Equation) -> None:
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
        _in_windows(plan, source(head, text), (plan.at(x), plan.out(v), plan.at(i)), x.shape, v.shape, e.params, 0.4)
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


def pool_gather(plan: Any, e: Equation) -> None:
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
            _in_windows(plan, kernel, (ref, out, index_of(plan, i)), large, small, e.params, 0.4 if gathers else 1.5)

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


pool_scatter = pool_gather
BROUGHT["columns"] = __name__
