"""The primitives as plain lax code, continued: creation, reductions and structure. Promises: those of jax_elementwise."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from jax import lax

from minidl.backends.jax_helpers import I32, I64, const, is_float, isnan, kernel, kernels, shape_to, to, wide


# ---- creation -------------------------------------------------------------------------------------------------------------------------
@kernel
def full(*, shape: tuple[int, ...], value: Any, dtype: Any) -> Any:
    return lax.full(shape, np.asarray(value, dtype.numpy)[()], dtype.numpy)


@kernel
def iota(*, size: int, dtype: Any) -> Any:
    return lax.iota(dtype.numpy, size)


# ---- reductions -----------------------------------------------------------------------------------------------------------------------
def _keep(out: Any, x: Any, axis: Sequence[int], keepdims: bool) -> Any:
    return lax.reshape(out, tuple(1 if i in axis else s for i, s in enumerate(x.shape))) if keepdims else out


def _reduce(f: Callable[..., Any], on_bool: Callable[..., Any] | None = None) -> Callable[..., Any]:
    def call(x: Any, *, axis: tuple[int, ...], keepdims: bool) -> Any:
        return _keep((on_bool if on_bool and x.dtype.kind == "b" else f)(x, axis), x, axis, keepdims)

    return call


def _ordered(whole: Callable[..., Any]) -> Callable[..., Any]:
    """The largest or the smallest number, nan where one is among them: XLA's own reduction of thousands of numbers on a CPU (jax 0.10) loses it. (One
    by a function of ours took from .7 to 4 times as long as this, by shape.)"""

    def call(x: Any, axis: Sequence[int]) -> Any:
        out = whole(x, axis)
        if x.dtype.kind not in "fV":  # bfloat16 is of kind V
            return out
        return lax.select(lax.reduce_or(isnan(x), tuple(axis)), lax.full_like(out, np.nan), out)

    return call


for _name, _f, _g in (
    ("sum", lax.reduce_sum, None), ("prod", lax.reduce_prod, None), ("any", lax.reduce_or, None), ("all", lax.reduce_and, None),
    ("max", _ordered(lax.reduce_max), lax.reduce_or), ("min", _ordered(lax.reduce_min), lax.reduce_and),
):  # fmt: skip
    kernels[_name] = wide(_reduce(_f, _g)) if _name in ("sum", "prod") else _reduce(_f, _g)


def plain_max(x: Any, *, axis: tuple[int, ...], keepdims: bool) -> Any:
    """What softmax and its kin take for `max`: the sum of exponentials has the nan that this may lose, and XLA fuses no other with that sum."""
    return _keep(lax.reduce_max(x, axis), x, axis, keepdims)


def _arg(f: Callable[..., Any]) -> Callable[..., Any]:
    """The extreme first, then the least position that holds it: an eighth of the time of XLA's variadic reduction on a CPU."""

    def call(x: Any, *, axis: int, keepdims: bool) -> Any:
        if x.dtype.kind == "b":
            x = to(x, np.int8)
        best = shape_to(_keep(f(x, (axis,)), x, (axis,), True), x.shape)
        n = x.shape[axis]
        place = lax.broadcasted_iota(_small_int(2 * n), x.shape, axis)
        if is_float(x):  # a nan comes before what XLA's reduction, which may lose it, takes for the best
            far = lax.select(lax.eq(x, best), lax.add(place, const(n, place)), const(2 * n, place))
            out = lax.reduce_min(lax.select(isnan(x), place, far), (axis,))
            out = lax.select(lax.ge(out, const(n, out)), lax.sub(out, const(n, out)), out)
        else:
            out = lax.reduce_min(lax.select(lax.eq(x, best), place, const(n, place)), (axis,))
        return _keep(to(out, I64), x, (axis,), keepdims)

    return call


def _small_int(n: int) -> np.dtype:
    return I32 if n < 2**31 - 1 else I64


kernels["argmax"] = _arg(lax.reduce_max)
kernels["argmin"] = _arg(lax.reduce_min)


def _cumulative(f: Callable[..., Any]) -> Callable[..., Any]:
    def call(x: Any, *, axis: int, reverse: bool) -> Any:
        if x.dtype.kind == "b":
            return to(f(to(x, np.uint8), axis=axis, reverse=reverse), np.bool_)
        return f(x, axis=axis, reverse=reverse)

    return call


for _name in "cumsum cumprod cummax cummin cumlogsumexp".split():
    kernels[_name] = wide(_cumulative(getattr(lax, _name)))


@kernel
def argsort(x: Any, *, axis: int, descending: bool) -> Any:
    if x.dtype.kind == "b":
        x = to(x, np.uint8)
    n = x.shape[axis]
    if descending:  # sorted backwards and read backwards: equal elements stay in order, and NaN comes first
        x = lax.rev(x, (axis,))
    place = lax.broadcasted_iota(_small_int(n), x.shape, axis)
    _, place = lax.sort((x, place), dimension=axis, is_stable=True, num_keys=1)
    if descending:
        place = lax.sub(const(n - 1, place), lax.rev(place, (axis,)))
    return to(place, I64)


# ---- structure ------------------------------------------------------------------------------------------------------------------------
kernels["barrier"] = lambda x, after: lax.optimization_barrier((x, after))[0]
kernels["reshape"] = lambda x, *, shape: lax.reshape(x, shape)
kernels["permute"] = lambda x, *, axes: lax.transpose(x, axes)
kernels["broadcast_to"] = lambda x, *, shape: shape_to(x, shape)
kernels["flip"] = lambda x, *, axes: lax.rev(x, axes)
kernels["concat"] = lambda *xs, axis: lax.concatenate(xs, axis)
kernels["slice"] = lambda x, *, start, stop, step: lax.slice(x, start, tuple(map(max, start, stop)), step)


def pad_with(x: Any, value: Any, *, widths: tuple[tuple[int, int], ...]) -> Any:
    """`pad` with the fill as a 0-d array."""
    return lax.pad(x, value, [(lo, hi, 0) for lo, hi in widths])


@kernel
def pad(x: Any, *, widths: tuple[tuple[int, int], ...], value: Any) -> Any:
    return pad_with(x, np.asarray(value, x.dtype)[()], widths=widths)


@kernel
def unslice(x: Any, *, shape: tuple[int, ...], start: tuple[int, ...], stop: tuple[int, ...], step: tuple[int, ...]) -> Any:
    if 0 in x.shape:
        return lax.full(shape, 0, x.dtype)
    config = [(a, size - a - (n - 1) * s - 1, s - 1) for n, size, a, s in zip(x.shape, shape, start, step, strict=True)]
    return lax.pad(x, np.zeros((), x.dtype)[()], config)


def _triangle(compare: Callable[..., Any]) -> Callable[..., Any]:
    def call(x: Any, *, k: int) -> Any:
        row, col = (lax.broadcasted_iota(I32, x.shape[-2:], i) for i in (0, 1))
        return lax.select(shape_to(compare(col, lax.add(row, const(k, row))), x.shape), x, const(0, x))

    return call


kernels["tril"] = _triangle(lax.le)
kernels["triu"] = _triangle(lax.ge)
