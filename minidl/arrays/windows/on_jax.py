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

from minidl.backends.jax_helpers import I32, I64, const, is_float, is_half, to
from minidl.backends.jax_kernels import pad
from minidl.backends.jax_linear import HIGHEST, accumulator, scatter, take_along


def _conv(x: Any, w: Any, numbers: Any, **how: Any) -> Any:
    if (not is_float(x) and x.dtype.kind != "c") or is_half(x):
        how["preferred_element_type"] = accumulator(x)
    return to(lax.conv_general_dilated(x, w, dimension_numbers=numbers, precision=HIGHEST, **how), x.dtype)


def _few(x: Any, w: Any, groups: int) -> bool:
    """Whether XLA on a CPU (jax 0.10) takes up to five times as long for want of channels, as for the first layer of a small network, as _by_rows.
    With more of them than an image has, x may be the result of functions that XLA would compute once for each row of the kernel."""
    plain = groups == 1 and x.dtype in (np.float32, np.float64) and len(w.shape) == 4 and 0 not in (*x.shape, *w.shape)
    return plain and w.shape[0] <= 16 and w.shape[1] <= 3 and 1 < w.shape[2] <= 7


def _by_rows(x: Any, w: Any, stride: Any, padding: Any, dilation: Any) -> Any:
    """A convolution of planes whose kernel's rows are side by side in the channels: as many channels more, and a kernel of one row."""
    (o, c, k, wide), (s, _), (d, _) = w.shape, stride, dilation
    x = lax.transpose(lax.pad(x, np.zeros((), x.dtype)[()], [(0, 0, 0)] * 2 + [(lo, hi, 0) for lo, hi in padding]), (0, 2, 3, 1))
    out = (x.shape[1] - d * (k - 1) - 1) // s + 1
    x = lax.concatenate([_tap(x, 1, i, s, d, out) for i in range(k)], 3)
    w = lax.reshape(lax.transpose(w, (3, 2, 1, 0)), (1, wide, k * c, o))
    how = {"window_strides": (1, stride[1]), "padding": "VALID", "rhs_dilation": (1, dilation[1])}
    return lax.transpose(_conv(x, w, ("NHWC", "HWIO", "NHWC"), **how), (0, 3, 1, 2))


def _layout(n: int, *orders: str) -> tuple[str, ...]:
    return tuple(order + "DHW"[3 - n :] for order in orders)


def conv(x: Any, w: Any, *, stride: Any, padding: Any, dilation: Any, groups: int) -> Any:
    def whole(x: Any, w: Any) -> Any:
        numbers = _layout(len(stride), "NC", "OI", "NC")
        return _conv(x, w, numbers, window_strides=stride, padding=padding, rhs_dilation=dilation, feature_group_count=groups)

    if not _few(x, w, groups):
        return whole(x, w)
    return lax.platform_dependent(x, w, cpu=lambda x, w: _by_rows(x, w, stride, padding, dilation), default=whole)


def conv_dx(g: Any, w: Any, *, x_shape: Any, stride: Any, padding: Any, dilation: Any, groups: int) -> Any:
    n, (o, c, *kernel_shape) = len(stride), w.shape
    w = lax.reshape(w, (groups, o // groups, c, *kernel_shape))
    w = lax.transpose(w, (0, 2, 1, *range(3, 3 + n)))
    w = lax.rev(lax.reshape(w, (groups * c, o // groups, *kernel_shape)), tuple(range(2, 2 + n)))
    edges = []
    for size, out, k, s, d, (lo, _) in zip(x_shape[2:], g.shape[2:], kernel_shape, stride, dilation, padding, strict=True):
        first = d * (k - 1) - lo
        edges.append((first, size - (out - 1) * s - 1 - first + d * (k - 1)))
    numbers = _layout(n, "NC", "OI", "NC")
    return _conv(g, w, numbers, window_strides=(1,) * n, padding=edges, lhs_dilation=stride, rhs_dilation=dilation, feature_group_count=groups)


def conv_dw(x: Any, g: Any, *, w_shape: Any, stride: Any, padding: Any, dilation: Any, groups: int) -> Any:
    edges = []
    for size, out, k, s, d, (lo, _) in zip(x.shape[2:], g.shape[2:], w_shape[2:], stride, dilation, padding, strict=True):
        edges.append((lo, (k - 1) * d + (out - 1) * s + 1 - size - lo))
    numbers = _layout(len(stride), "CN", "IO", "CN")
    return _conv(x, g, numbers, window_strides=dilation, padding=edges, rhs_dilation=stride, batch_group_count=groups)


# ---- pooling --------------------------------------------------------------------------------------------------------------------------
def _tap(x: Any, axis: int, j: int, s: int, d: int, out: int) -> Any:
    return lax.slice_in_dim(x, j * d, j * d + (out - 1) * s + 1, s, axis)


def _axes(window: Any, stride: Any, padding: Any, dilation: Any, shape: tuple[int, ...]) -> list[tuple]:
    first = len(shape) - len(window)
    rows = zip(range(first, len(shape)), window, stride, padding, dilation, shape[first:], strict=True)
    return [(a, w, s, lo, hi, d, (n + lo + hi - d * (w - 1) - 1) // s + 1) for a, w, s, (lo, hi), d, n in rows]


def _place_type(window: Any) -> Any:
    """The narrowest type of a place in the window; XLA drops the trip through int64 between max_pool and pool_scatter."""
    return np.dtype(np.int8) if math.prod(window) < 128 else I32


def max_pool(x: Any, *, window: Any, stride: Any, padding: Any, dilation: Any) -> Any:
    low = np.asarray(-np.inf if is_float(x) else np.iinfo(x.dtype).min, x.dtype)[()]
    place_type, volume = _place_type(window), 1
    best: Any = x
    place: Any = None
    for axis, w, s, lo, hi, d, out in reversed(_axes(window, stride, padding, dilation, x.shape)):
        config = [(lo, hi, 0) if a == axis else (0, 0, 0) for a in range(len(x.shape))]
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


def pool_gather(x: Any, index: Any, *, window: Any, stride: Any, padding: Any, dilation: Any) -> Any:
    axes = _axes(window, stride, padding, dilation, x.shape)
    lead = x.shape[: len(x.shape) - len(window)]
    if math.prod(window) > _UNROLL:
        spatial = x.shape[len(lead) :]
        flat = lax.reshape(_flat_places(index, axes, spatial), (*lead, math.prod(index.shape[len(lead) :])))
        return lax.reshape(take_along(lax.reshape(x, (*lead, math.prod(spatial))), flat, axis=len(lead)), index.shape)
    index = to(index, _place_type(window))
    padded = pad(x, widths=((0, 0),) * len(lead) + tuple(padding), value=0)
    out = lax.full(index.shape, 0, x.dtype)
    for place, js in enumerate(_windows(axes)):
        v = padded
        for j, (axis, _, s, _, _, d, n) in zip(js, axes, strict=True):
            v = _tap(v, axis, j, s, d, n)
        out = lax.select(lax.eq(index, const(place, index)), v, out)
    return out


def pool_scatter(g: Any, index: Any, *, x_shape: Any, window: Any, stride: Any, padding: Any, dilation: Any) -> Any:
    axes = _axes(window, stride, padding, dilation, x_shape)
    lead = len(x_shape) - len(window)
    zero, place_type = np.zeros((), g.dtype)[()], _place_type(window)
    if 0 in g.shape:
        return lax.full(x_shape, 0, g.dtype)
    if all(s == w and d == 1 for _, w, s, _, _, d, _ in axes):  # windows that tile: nothing meets, and nothing need be added
        index = to(index, place_type)
        tiles = g.shape[:lead] + tuple(n for a in axes for n in (a[6], a[1]))
        kept = (*range(lead), *range(lead, len(tiles), 2))
        place, volume = lax.full(tiles, 0, place_type), 1
        for i, a in reversed(list(enumerate(axes))):
            step = lax.broadcasted_iota(place_type, tiles, lead + 2 * i + 1)
            place, volume = lax.add(place, lax.mul(step, const(volume, step))), volume * a[1]
        hit = lax.eq(lax.broadcast_in_dim(index, tiles, kept), place)
        out = lax.select(hit, lax.broadcast_in_dim(g, tiles, kept), lax.full(tiles, 0, g.dtype))
        out = lax.reshape(out, g.shape[:lead] + tuple(a[6] * a[1] for a in axes))
        return lax.pad(out, zero, [(0, 0, 0)] * lead + [(-lo, x_shape[a] - n * w + lo, 0) for a, w, _, lo, _, _, n in axes])
    if math.prod(window) > _UNROLL:
        spatial, batch = tuple(x_shape[lead:]), math.prod(x_shape[:lead])
        flat = lax.reshape(_flat_places(index, axes, spatial), (batch, math.prod(g.shape[lead:])))
        row = lax.broadcasted_iota(I64, flat.shape, 0)
        out = scatter(lax.full((batch, math.prod(spatial)), 0, g.dtype), lax.reshape(g, flat.shape), row, flat, mode="add")
        return lax.reshape(out, x_shape)
    index, total = to(index, place_type), None
    for number, js in enumerate(_windows(axes)):
        config = [(0, 0, 0)] * lead
        for j, (a, _, s, lo, _, d, n) in zip(js, axes, strict=True):
            first = j * d - lo
            config.append((first, x_shape[a] - first - (n - 1) * s - 1, s - 1))
        part = lax.pad(lax.select(lax.eq(index, const(number, index)), g, const(0, g)), zero, config)
        total = part if total is None else lax.add(total, part)
    return total
