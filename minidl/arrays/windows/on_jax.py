"""JAX: convolution and pooling, in lax.

Promises: products of float32 are never rounded to TF32 or bfloat16 on the way.

Method: max-pooling goes axis by axis over strided slices and keeps the winner's place, which XLA fuses; its gradient is then a comparison
instead of the variadic reduce-window that jax.grad makes. Convolution's two transposes are the formulations of Dumoulin and Visin (2016).
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from jax import lax

from minidl.backends.jax_helpers import I32, I64, REWRITES, const, is_float, is_half, to
from minidl.backends.jax_kernels import pad
from minidl.backends.jax_linear import HIGHEST, accumulator, scatter, take_along
from minidl.graph import Emitted, Equation, Graph, Var
from minidl.passes.basic import dead_code
from minidl.primitives.core import table


def _conv(x: Any, w: Any, numbers: Any, **how: Any) -> Any:
    if (not is_float(x) and x.dtype.kind != "c") or is_half(x):
        how["preferred_element_type"] = accumulator(x)
    return to(lax.conv_general_dilated(x, w, dimension_numbers=numbers, precision=HIGHEST, **how), x.dtype)


def _few(x: Any, w: Any, groups: int) -> bool:
    """Whether XLA on a CPU (jax 0.10) takes up to five times as long for want of channels, as for the first layer of a small network, as _by_rows.
    With more of them than an image has, x may be the result of functions that XLA would compute once for each row of the kernel."""
    plain = groups == 1 and x.dtype in (np.float32, np.float64) and len(w.shape) == 4 and 0 not in (*x.shape, *w.shape)
    return plain and w.shape[0] <= 16 and w.shape[1] <= 3 and 1 < w.shape[2] <= 7


def _by_rows(x: Any, w: Any, stride: Any, padding: Any, dilation: Any, last: bool) -> Any:
    """A convolution of planes whose kernel's rows are side by side in the channels: as many channels more, and a kernel of one row."""
    (o, c, k, wide), (s, _), (d, _) = w.shape, stride, dilation
    x = x if last else lax.transpose(x, (0, 2, 3, 1))
    x = lax.pad(x, np.zeros((), x.dtype)[()], [(0, 0, 0), *((lo, hi, 0) for lo, hi in padding), (0, 0, 0)])
    out = (x.shape[1] - d * (k - 1) - 1) // s + 1
    x = lax.concatenate([_tap(x, 1, i, s, d, out) for i in range(k)], 3)
    w = lax.reshape(lax.transpose(w, (3, 2, 1, 0)), (1, wide, k * c, o))
    how = {"window_strides": (1, stride[1]), "padding": "VALID", "rhs_dilation": (1, dilation[1])}
    out = _conv(x, w, ("NHWC", "HWIO", "NHWC"), **how)
    return out if last else lax.transpose(out, (0, 3, 1, 2))


def _layout(n: int, *orders: str) -> tuple[str, ...]:
    return tuple(order.replace("*", "DHW"[3 - n :]) for order in orders)


def _places(shape: Any, last: bool) -> tuple[int, ...]:
    return shape[1:-1] if last else shape[2:]


# last: images are [N, ..., C], as channels_last has them
def conv(x: Any, w: Any, *, stride: Any, padding: Any, dilation: Any, groups: int, last: bool = False) -> Any:
    def whole(x: Any, w: Any) -> Any:
        images = "N*C" if last else "NC*"
        numbers = _layout(len(stride), images, "OI*", images)
        return _conv(x, w, numbers, window_strides=stride, padding=padding, rhs_dilation=dilation, feature_group_count=groups)

    if not _few(x, w, groups):
        return whole(x, w)
    return lax.platform_dependent(x, w, cpu=lambda x, w: _by_rows(x, w, stride, padding, dilation, last), default=whole)


def conv_dx(g: Any, w: Any, *, x_shape: Any, stride: Any, padding: Any, dilation: Any, groups: int, last: bool = False) -> Any:
    n, (o, c, *kernel_shape) = len(stride), w.shape
    w = lax.reshape(w, (groups, o // groups, c, *kernel_shape))
    w = lax.transpose(w, (0, 2, 1, *range(3, 3 + n)))
    w = lax.rev(lax.reshape(w, (groups * c, o // groups, *kernel_shape)), tuple(range(2, 2 + n)))
    edges = []
    for size, out, k, s, d, (lo, _) in zip(_places(x_shape, last), _places(g.shape, last), kernel_shape, stride, dilation, padding, strict=True):
        first = d * (k - 1) - lo
        edges.append((first, size - (out - 1) * s - 1 - first + d * (k - 1)))
    images = "N*C" if last else "NC*"
    numbers = _layout(n, images, "OI*", images)
    return _conv(g, w, numbers, window_strides=(1,) * n, padding=edges, lhs_dilation=stride, rhs_dilation=dilation, feature_group_count=groups)


def conv_dw(x: Any, g: Any, *, w_shape: Any, stride: Any, padding: Any, dilation: Any, groups: int, last: bool = False) -> Any:
    edges, n = [], len(stride)
    for size, out, k, s, d, (lo, _) in zip(*(_places(a.shape, last) for a in (x, g)), w_shape[2:], stride, dilation, padding, strict=True):
        edges.append((lo, (k - 1) * d + (out - 1) * s + 1 - size - lo))
    numbers = _layout(n, *(("C*N", "I*O") if last else ("CN*", "IO*")), "CN*")
    return _conv(x, g, numbers, window_strides=dilation, padding=edges, rhs_dilation=stride, batch_group_count=groups)


# ---- pooling --------------------------------------------------------------------------------------------------------------------------
def _tap(x: Any, axis: int, j: int, s: int, d: int, out: int) -> Any:
    return lax.slice_in_dim(x, j * d, j * d + (out - 1) * s + 1, s, axis)


def _axes(window: Any, stride: Any, padding: Any, dilation: Any, shape: tuple[int, ...], last: bool = False) -> list[tuple]:
    first = 1 if last else len(shape) - len(window)
    rows = zip(range(first, first + len(window)), window, stride, padding, dilation, shape[first:], strict=False)
    return [(a, w, s, lo, hi, d, (n + lo + hi - d * (w - 1) - 1) // s + 1) for a, w, s, (lo, hi), d, n in rows]


def _spread(rank: int, entries: dict[int, Any], other: Any) -> tuple:
    """An entry for each axis: those of some, and another one for all others."""
    return tuple(entries.get(a, other) for a in range(rank))


def _place_type(window: Any) -> Any:
    """The narrowest type of a place in the window; XLA drops the trip through int64 between max_pool and pool_scatter."""
    return np.dtype(np.int8) if math.prod(window) < 128 else I32


def max_pool(x: Any, *, window: Any, stride: Any, padding: Any, dilation: Any, last: bool = False) -> Any:
    low = np.asarray(-np.inf if is_float(x) else np.iinfo(x.dtype).min, x.dtype)[()]
    place_type, volume = _place_type(window), 1
    best: Any = x
    place: Any = None
    for axis, w, s, lo, hi, d, out in reversed(_axes(window, stride, padding, dilation, x.shape, last)):
        config = _spread(len(x.shape), {axis: (lo, hi, 0)}, (0, 0, 0))
        values = lax.pad(best, low, config) if lo or hi else best
        inner = None if place is None else lax.pad(place, place_type.type(0), config) if lo or hi else place
        begin = np.minimum(np.maximum(-((np.arange(out) * s - lo) // d), 0), w - 1)  # the first place that is not padding
        for j in range(w):
            v = _tap(values, axis, j, s, d, out)
            p = lax.full(v.shape, j * volume, place_type)
            if inner is not None:
                p = lax.add(p, _tap(inner, axis, j, s, d, out))
            if j == 0:
                best, place = v, p
                continue
            take = lax.gt(v, best)
            if is_float(x):
                take = lax.bitwise_and(lax.bitwise_not(lax.le(v, best)), lax.eq(best, best))
            if (begin == j).any():
                take = lax.bitwise_or(take, lax.broadcast_in_dim(begin == j, v.shape, (axis,)))
            best, place = lax.select(take, v, best), lax.select(take, p, place)
        volume *= w
    if place is None:
        place = lax.full(x.shape, 0, place_type)
    return best, to(place, I64)


def _windows(axes: list[tuple]) -> list[tuple[int, ...]]:
    return list(np.ndindex(*(a[1] for a in axes)))


def _flat_places(index: Any, axes: list[tuple], spatial: tuple[int, ...]) -> Any:
    """Where each indexed place lies in the flattened spatial axes; for windows too large to unroll."""
    flat, rest = const(0, index), index
    scale = math.prod(spatial)
    digits = math.prod(a[1] for a in axes)
    for (axis, w, s, lo, _, d, _), n in zip(axes, spatial, strict=True):
        digits, scale = digits // w, scale // n
        j, rest = lax.div(rest, const(digits, rest)), lax.rem(rest, const(digits, rest))
        o = lax.broadcasted_iota(I64, index.shape, axis)
        at = lax.add(lax.mul(o, const(s, o)), lax.sub(lax.mul(j, const(d, j)), const(lo, j)))
        flat = lax.add(flat, lax.mul(at, const(scale, at)))
    return flat


_UNROLL = 32


def pool_gather(x: Any, index: Any, *, window: Any, stride: Any, padding: Any, dilation: Any, last: bool = False) -> Any:
    axes = _axes(window, stride, padding, dilation, x.shape, last)
    lead = x.shape[: len(x.shape) - len(window)]
    if math.prod(window) > _UNROLL:
        spatial = x.shape[len(lead) :]
        flat = lax.reshape(_flat_places(index, axes, spatial), (*lead, math.prod(index.shape[len(lead) :])))
        return lax.reshape(take_along(lax.reshape(x, (*lead, math.prod(spatial))), flat, axis=len(lead)), index.shape)
    index = to(index, _place_type(window))
    padded = pad(x, widths=_spread(len(x.shape), {a[0]: a[3:5] for a in axes}, (0, 0)), value=0)
    out = lax.full(index.shape, 0, x.dtype)
    for place, js in enumerate(_windows(axes)):
        v = padded
        for j, (axis, _, s, _, _, d, n) in zip(js, axes, strict=True):
            v = _tap(v, axis, j, s, d, n)
        out = lax.select(lax.eq(index, const(place, index)), v, out)
    return out


def pool_scatter(g: Any, index: Any, *, x_shape: Any, window: Any, stride: Any, padding: Any, dilation: Any, last: bool = False) -> Any:
    axes, rank = _axes(window, stride, padding, dilation, x_shape, last), len(x_shape)
    zero, place_type = np.zeros((), g.dtype)[()], _place_type(window)
    if 0 in g.shape:
        return lax.full(x_shape, 0, g.dtype)
    if all(s == w and d == 1 for _, w, s, _, _, d, _ in axes):  # windows that tile: nothing meets, and nothing need be added
        index = to(index, place_type)
        wide = {a[0]: a[1] for a in axes}
        tiles = tuple(n for a, size in enumerate(g.shape) for n in ((size, wide[a]) if a in wide else (size,)))
        kept = tuple(a + sum(b < a for b in wide) for a in range(rank))
        place, volume = lax.full(tiles, 0, place_type), 1
        for a in sorted(wide, reverse=True):
            step = lax.broadcasted_iota(place_type, tiles, kept[a] + 1)
            place, volume = lax.add(place, lax.mul(step, const(volume, step))), volume * wide[a]
        hit = lax.eq(lax.broadcast_in_dim(index, tiles, kept), place)
        out = lax.select(hit, lax.broadcast_in_dim(g, tiles, kept), lax.full(tiles, 0, g.dtype))
        out = lax.reshape(out, tuple(n * wide.get(a, 1) for a, n in enumerate(g.shape)))
        return lax.pad(out, zero, _spread(rank, {a: (-lo, x_shape[a] - n * w + lo, 0) for a, w, _, lo, _, _, n in axes}, (0, 0, 0)))
    if math.prod(window) > _UNROLL:
        lead = rank - len(window)
        spatial, batch = tuple(x_shape[lead:]), math.prod(x_shape[:lead])
        flat = lax.reshape(_flat_places(index, axes, spatial), (batch, math.prod(g.shape[lead:])))
        row = lax.broadcasted_iota(I64, flat.shape, 0)
        out = scatter(lax.full((batch, math.prod(spatial)), 0, g.dtype), lax.reshape(g, flat.shape), row, flat, mode="add")
        return lax.reshape(out, x_shape)
    index, total = to(index, place_type), None
    for number, js in enumerate(_windows(axes)):
        config = {}
        for j, (a, _, s, lo, _, d, n) in zip(js, axes, strict=True):
            start = j * d - lo
            config[a] = (start, x_shape[a] - start - (n - 1) * s - 1, s - 1)
        part = lax.pad(lax.select(lax.eq(index, const(number, index)), g, const(0, g)), zero, _spread(rank, config, (0, 0, 0)))
        total = part if total is None else lax.add(total, part)
    return total


# ---- channels last --------------------------------------------------------------------------------------------------------------------
_CONVS, _POOLS = ("conv", "conv_dx", "conv_dw"), ("max_pool", "pool_scatter", "pool_gather")
_SUMS = ("sum", "prod", "max", "min", "any", "all")
#: What else keeps the channels where they are, with the params that count axes or have an entry for each.
_ALONG = ("concat", "flip", "pad", "slice", "unslice")
_AXES, _SIZES = ("axis", "axes"), ("shape", "start", "step", "stop", "widths", "x_shape")


class _Turning:
    """A graph on the way to one in which images, [N, C, ...], are also or only there as [N, ..., C]."""

    def __init__(self) -> None:
        self.equations: list[Equation] = []
        self.lasts: dict[Any, Any] = {}  # by an image, or (what meets images, their rank): the same with channels last
        self.made, self.owed = set[Any](), set[Any]()  # the images that are computed so, and those of them that do not exist in their own order

    def record(self, name: str, x: Any, out: Any = None, **params: Any) -> Any:
        out = Var(*table[name].infer(x, **params)) if out is None else out
        self.equations.append(Equation(table[name], (x,), params, (out,)))
        return out

    def last(self, a: Any, rank: int) -> Any:
        """An operand with channels last."""
        more = rank - len(a.shape)
        key = (a, rank) if more else a
        if key not in self.lasts and a.shape:
            x = self.record("reshape", self.first(a), shape=(1,) * more + a.shape) if more else a
            self.lasts[key] = self.record("permute", x, axes=_order(rank))
        return self.lasts.get(key, a)

    def first(self, a: Any) -> Any:
        """An operand as it is in the graph."""
        if a in self.owed:
            self.owed.discard(a)
            order = _order(len(a.shape))
            self.record("permute", self.lasts[a], a, axes=tuple(map(order.index, range(len(order)))))
        return a

    def add(self, e: Equation) -> None:
        if not self.turns(e):
            self.equations.append(Equation(e.primitive, tuple(map(self.first, e.inputs)), e.params, e.outputs, e.where))
            return
        name, rank = e.primitive.name, max(len(a.shape) for a in e.inputs)
        kernel = name in ("conv", "conv_dx")  # whose second operand is no image
        inputs = tuple(self.first(a) if kernel and k else self.last(a, rank) for k, a in enumerate(e.inputs))
        outputs = e.outputs
        if name != "conv_dw" and len(outputs[0].shape) > 2 and not (name in _SUMS and 1 in e.params["axis"] and not e.params["keepdims"]):
            outputs = tuple(Var(tuple(v.shape[a] for a in _order(len(v.shape))), v.dtype) for v in e.outputs)
            self.lasts.update(zip(e.outputs, outputs, strict=True))
            self.made.update(e.outputs)
            self.owed.update(e.outputs)
        params, primitive = _turned(e.params, rank), e.primitive
        if name in (*_CONVS, *_POOLS):
            params, primitive = {**params, "last": True}, Emitted(name, primitive.multiple)
        self.equations.append(Equation(primitive, inputs, params, outputs, e.where))

    def turns(self, e: Equation) -> bool:
        """Whether an equation works on images with channels last."""
        name, p, out, images = e.primitive.name, e.params, e.outputs[0].shape, [a for a in e.inputs if a in self.made]
        if _is_conv(e) or not images:
            return _is_conv(e)
        rank = len(images[0].shape)
        if e.primitive.elementwise:
            return any(a.shape == out for a in images)
        if name in _POOLS:
            return len(p["window"]) == rank - 2 and math.prod(p["window"]) <= _UNROLL
        if name in _SUMS:
            return p["keepdims"] or 0 not in p["axis"] or 1 in p["axis"] or len(out) == 1
        if name == "reshape":
            return len(out) > 2 and out[:2] == images[0].shape[:2]
        return len(out) == rank and name in (*_ALONG, "broadcast_to")


def _is_conv(e: Equation) -> bool:
    return e.primitive.name in _CONVS and e.params["groups"] == 1 and e.outputs[0].dtype.is_float


def _order(rank: int) -> tuple[int, ...]:
    return (0, *range(2, rank), 1)


def _turned(params: dict[str, Any], rank: int) -> dict[str, Any]:
    place, out = _order(rank).index, dict(params)
    for k, v in params.items():
        if k in _AXES:
            out[k] = tuple(sorted(map(place, v))) if isinstance(v, tuple) else place(v)
        elif k in _SIZES:
            out[k] = tuple(v[a] for a in _order(len(v)))
    return out


def channels_last(graph: Graph, cpu: bool) -> Graph:
    """The graph on a CPU with channels last from convolution to convolution, through pooling and what works on single elements or along axes: XLA's
    convolutions there (jax 0.10) take and give them so, and for any other order it copies in front of each and behind it."""
    if not cpu or not any(map(_is_conv, graph.equations)):
        return graph
    turning = _Turning()
    for e in graph.equations:
        turning.add(e)
    for v in graph.outputs:
        turning.first(v)
    return dead_code(Graph(graph.inputs, turning.equations, graph.outputs, graph.name))


REWRITES.append(channels_last)
