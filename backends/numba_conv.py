"""Convolution without a matrix of columns: for few channels and small kernels, where a matrix product would be too thin to be fast.

A plane of x is walked as one line: out[p] = sum over taps of w[i, j] * x[p + i*W + j], where rows of `out` keep the width W of x, so that all taps of
an output are at fixed distances and the loop over p is contiguous. What lies between the end of an output's row and W is computed and dropped. The
gradient in x is the same loop over a padded plane of the cotangent with rotated weights; that in w has an accumulator a tap.

Promises: sizes are constants of the kernel, so each convolution compiles its own (0.7 s, then from disk); zeros that only fill a plane never meet an
infinity or nan in silence: `guard` says where the kernel by columns must be asked instead.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from minidl.backends.numba_emit import stored
from minidl.dtypes import DType, float32, float64

LEAST = 1 << 20  # multiplications from which the compilation pays
_TAPS, _CHANNELS = 25, 128  # accumulators that fit into registers; products of channel numbers up to which matrix products are slower


def suits(x: Sequence[int], w: Sequence[int], o: Sequence[int], p: dict[str, Any], dtype: DType) -> bool:
    """Whether the loops here are worth it and can do it: two spatial axes, unit strides, no dilation, no groups, padding less than the kernel."""
    plain = len(w) == 4 and p["groups"] == 1 and set(p["stride"]) == {1} == set(p["dilation"]) and dtype in (float32, float64)
    small = plain and math.prod(w[2:]) <= _TAPS and w[0] * w[1] <= _CHANNELS and all(max(pad) < k for pad, k in zip(p["padding"], w[2:], strict=True))
    return small and min(*x, *o) > 0 and math.prod(o) * math.prod(w[1:]) >= LEAST


class Direct:
    """The text of one convolution, in a kernel whose a[0], a[1], a[2] are x, w and out, and its scratch memory.

    text: lines that do it; guard: an expression that is false where the result cannot be trusted, before (dx) or after (dw) the lines, or "".
    """

    def __init__(self, name: str, x: Sequence[int], w: Sequence[int], o: Sequence[int], p: dict[str, Any], dtype: DType):
        self.t, self.size = stored(dtype), dtype.itemsize
        self.taps = [(i, j) for i in range(w[2]) for j in range(w[3])]
        self.w, self.low = w, [lo for lo, _ in p["padding"]]
        padded = [n + lo + hi for n, (lo, hi) in zip(x[2:], p["padding"], strict=True)]
        self.scratch = 0
        self.lines = [f"x, w, y = as_ptr(a[0], {self.t}), as_ptr(a[1], {self.t}), as_ptr(a[2], {self.t})"]
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
        (k0, k1), (count, channels, h, width) = self.w[2:], out
        line = (h - 1) * sizes[1] + width
        before, each, at = self._plane(source, shape, low, sizes)
        weights, sums = [], []
        for number, (i, j) in enumerate(self.taps):
            place = f"((c*{self.w[1]} + o)*{k0} + {k0 - 1 - i})*{k1} + {k1 - 1 - j}" if rotated else f"((o*{self.w[1]} + c)*{k0} + {i})*{k1} + {j}"
            weights.append(f"w{i}_{j} = w[{place}]")
            sums.append(f"s{number % 2} = fma(w{i}_{j}, get(z, b + {i * sizes[1] + j} + p, 0, 2), s{number % 2})")
        self.lines += [*before, f"t = {self._room(line)}", f"for n in range({count}):", *_in(each), f"    for o in range({channels}):"]
        self.lines += _in([f"for p in range({line}):", f"    t[p] = {self.t}(0)", f"for c in range({shape[1]}):", *_in([*weights, f"b = {at}"])], 2)
        self.lines += _in([f"for p in range({line}):", f"    s0, s1 = get(t, p, 1, 2), {self.t}(0)", *_in([*sums, "put(t, p, s0 + s1, 1, 2)"])], 3)
        store = f"{result}[((n*{channels} + o)*{h} + r)*{width} + q] = t[r*{sizes[1]} + q]"
        self.lines += _in([f"for r in range({h}):", f"    for q in range({width}):", f"        {store}"], 2)

    def _weights(self, x: Sequence[int], o: Sequence[int], sizes: Sequence[int]) -> None:
        (k0, k1), (count, channels, h, width) = self.w[2:], o
        line = (h - 1) * sizes[1] + width
        before, each, at = self._plane("x", x, self.low, sizes)
        self.lines += [f"for q in range({math.prod(self.w)}):", f"    w[q] = {self.t}(0)", *before]
        self.lines += [f"t = {self._room(line)}", f"for q in range({line}):", f"    t[q] = {self.t}(0)", f"for n in range({count}):", *_in(each)]
        spread = f"t[r*{sizes[1]} + q] = y[((n*{channels} + o)*{h} + r)*{width} + q]"
        self.lines += _in([f"for o in range({channels}):", f"    for r in range({h}):", f"        for q in range({width}):", f"            {spread}"])
        sums = [f"s{i}_{j} = fadd(s{i}_{j}, g*get(z, b + {i * sizes[1] + j} + p, 0, 2))" for i, j in self.taps]
        ends = [f"w[((o*{self.w[1]} + c)*{k0} + {i})*{k1} + {j}] += s{i}_{j}" for i, j in self.taps]
        starts = [f"s{i}_{j} = {self.t}(0)" for i, j in self.taps]
        inner = [f"for p in range({line}):", "    g = get(t, p, 1, 2)", *_in(sums)]
        self.lines += _in([f"for c in range({self.w[1]}):", *_in([*starts, f"b = {at}", *inner, *ends])], 2)


def _in(lines: Sequence[str], depth: int = 1) -> list[str]:
    return ["    " * depth + line for line in lines]
