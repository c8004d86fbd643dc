"""Sliding windows: convolution, its transpose, and pooling, over 1 to 3 spatial axes behind [batch, channels].

strides, dilations and windows are an integer for all spatial axes or one per axis; padding is an integer, one entry (integer or pair) per axis, or
"same" (output size = ceil(input / stride)) or "valid".
"""

from __future__ import annotations

import functools
import math
import operator
from typing import Any

import minidl as md
from minidl import Tensor
from minidl.arrays.windows import primitives  # noqa: F401  (which puts its primitives into the table)
from minidl.extend import check_all, constant, describe, home, ns, operand, pairs

__all__ = ["avg_pool", "conv", "conv_transpose", "max_pool"]


def ints(name: str, value: Any, n: int) -> tuple[int, ...]:
    """n integers from one integer or a sequence of n."""
    try:
        entries = tuple(map(operator.index, value)) if isinstance(value, (tuple, list)) else (operator.index(value),) * n
    except TypeError:
        raise TypeError(f"{name}: integers are wanted, not {describe(value)}") from None
    if len(entries) != n:
        raise ValueError(f"{name}: {describe(value)} is neither an integer nor {n} of them")
    return entries


def _padding(name: str, padding: Any, sizes: Any, window: Any, stride: Any, dilation: Any) -> tuple[tuple[int, int], ...]:
    if padding == "valid":
        return ((0, 0),) * len(window)
    if padding == "same":
        totals = [max(0, (-(-n // s) - 1) * s + d * (k - 1) + 1 - n) for n, k, s, d in zip(sizes, window, stride, dilation, strict=True)]
        return tuple((t // 2, t - t // 2) for t in totals)
    if isinstance(padding, str):
        raise ValueError(f"{name}: padding {describe(padding)} is neither 'same' nor 'valid'")
    both = pairs(name, padding, len(window)) if not _flat(padding, len(window)) else tuple((int(p), int(p)) for p in padding)
    if any(p < 0 for pair in both for p in pair):
        raise ValueError(f"{name}: padding {describe(padding)} is negative; slice the input instead")
    return both


def _flat(padding: Any, n: int) -> bool:
    return isinstance(padding, (tuple, list)) and len(padding) == n and all(isinstance(p, int) for p in padding)


def _settings(name: str, x: Tensor, window: Any, stride: Any, padding: Any, dilation: Any) -> dict[str, Any]:
    n, shape = len(window), x.shape
    if (name.startswith("conv") and not 1 <= n <= 3) or len(shape) < n:
        raise ValueError(f"{name}: {describe(x)} with a window of {n} axes; [batch, channels] and 1 to 3 spatial axes are wanted")
    given = shape[len(shape) - n :], window, stride, padding, dilation
    return _settled(name, *given) if _plain(given) else _settled.__wrapped__(name, *given)


def _plain(value: Any) -> bool:
    """Whether this is an int or a string, or a tuple of such: what is equal means the same then (1.0 and True are equal to 1)."""
    kind = value.__class__
    return kind is int or kind is str or (kind is tuple and (_INT.issuperset(map(type, value)) or all(map(_plain, value))))


_INT = frozenset((int,))


@functools.lru_cache(1024)
def _settled(name: str, sizes: Any, window: Any, stride: Any, padding: Any, dilation: Any) -> dict[str, Any]:
    n = len(window)
    stride, dilation = ints(f"{name}: stride", stride, n), ints(f"{name}: dilation", dilation, n)
    if min((*stride, *dilation, *window)) < 1:
        raise ValueError(f"{name}: window {window}, stride {stride} and dilation {dilation} must be at least 1")
    if max((*stride, *dilation, *window)) >= 2**31:
        raise ValueError(f"{name}: window {window}, stride {stride} and dilation {dilation} must be less than 2**31")
    return {"stride": stride, "padding": _padding(name, padding, sizes, window, stride, dilation), "dilation": dilation}


def conv(x: Any, w: Any, b: Any = None, /, *, stride: Any = 1, padding: Any = 0, dilation: Any = 1, groups: int = 1) -> Tensor:
    """The correlation of x [N, C, *spatial] with the weight w [O, C/groups, *kernel] → [N, O, *out], spatial axes 1 to 3; b [O] is added.

    Raises ValueError where channels, groups or sizes do not fit.

    >>> md.conv(md.ones((1, 3, 8, 8)), md.ones((6, 3, 5, 5))).shape
    (1, 6, 4, 4)
    """
    x = operand(x)
    w = operand(w, x)
    more = _settings("conv", x, w.shape[2:], stride, padding, dilation)
    if b is None:
        return ns.conv(x, w, **more, groups=groups)
    b = operand(b, x)
    if b.shape != w.shape[:1]:
        raise ValueError(f"conv: bias {describe(b)} for the weight {describe(w)}; one number for each output channel is wanted")
    return ns.conv_affine(x, w, b, **more, groups=groups)


def conv_transpose(
    x: Any, w: Any, /, *, stride: Any = 1, padding: Any = 0, output_padding: Any = 0, dilation: Any = 1, groups: int = 1
) -> Tensor:
    """The transpose of conv: x [N, C, *spatial] with w [C, O/groups, *kernel] → [N, O, *out].

    out = (in - 1) * stride - padding + dilation * (kernel - 1) + output_padding + 1. Raises ValueError where channels or sizes do not fit.

    >>> md.conv_transpose(md.ones((1, 1, 2)), md.ones((1, 1, 2))).tolist()
    [[[1.0, 2.0, 1.0]]]
    """
    x = operand(x)
    w = operand(w, x)
    if x.ndim != w.ndim or w.ndim < 3 or x.shape[1] != w.shape[0] or w.shape[0] % groups:
        text = f"conv_transpose: {describe(x)} with weight {describe(w)} and groups={groups}"
        raise ValueError(f"{text}: x is [N, C, ...], the weight [C, O/groups, ...]")
    if isinstance(padding, str):
        raise ValueError("conv_transpose: padding must be given in numbers")
    kernel = w.shape[2:]
    more = _settings("conv_transpose", x, kernel, stride, padding, dilation)
    extra = ints("conv_transpose: output_padding", output_padding, len(kernel))
    if any(e >= max(s, d) or e < 0 for e, s, d in zip(extra, more["stride"], more["dilation"], strict=True)):
        raise ValueError(f"conv_transpose: output_padding {extra} must be at least 0 and smaller than the stride or the dilation")
    sizes = tuple(
        (n - 1) * s - lo - hi + d * (k - 1) + e + 1
        for n, k, e, s, (lo, hi), d in zip(x.shape[2:], kernel, extra, more["stride"], more["padding"], more["dilation"], strict=True)
    )
    if min(sizes) < 1:
        raise ValueError(f"conv_transpose: {describe(x)} with weight {describe(w)} leaves spatial sizes {sizes}")
    if any(e >= s for e, s in zip(extra, more["stride"], strict=True)):  # of that size an input has more windows: made without it, and moved there
        full = conv_transpose(x, w, stride=more["stride"], dilation=more["dilation"], groups=groups)
        return md.pad(full, ((0, 0), (0, 0), *((-lo, e - hi) for e, (lo, hi) in zip(extra, more["padding"], strict=True))))
    return ns.conv_dx(x, w, x_shape=(x.shape[0], w.shape[1] * groups, *sizes), **more, groups=groups)


def _window(name: str, x: Tensor, window: Any) -> tuple[int, ...]:
    found = ints(f"{name}: window", window, len(window) if isinstance(window, (tuple, list)) else max(x.ndim - 2, 0))
    if not found:
        raise ValueError(f"{name}: the window {describe(window)} has no axes in {describe(x)}; a tuple says which of the last axes it spans")
    return found


def max_pool(x: Any, /, window: Any, *, stride: Any = None, padding: Any = 0, dilation: Any = 1, return_indices: bool = False) -> Any:
    """The maximum of each window over the last axes (all behind [N, C] for an integer window); of equal ones the first gets the gradient.

    stride: the window by default. Padding is never chosen. return_indices: also the int64 positions inside the windows, row-major.

    >>> md.max_pool(md.reshape(md.arange(4.0), (1, 1, 4)), 2).tolist()
    [[[1.0, 3.0]]]
    """
    x = operand(x)
    window = _window("max_pool", x, window)
    more = _settings("max_pool", x, window, window if stride is None else stride, padding, dilation)
    out, index = ns.max_pool(x, window=window, **more)
    return (out, index) if return_indices else out


def avg_pool(x: Any, /, window: Any, *, stride: Any = None, padding: Any = 0, count_include_pad: bool = True) -> Tensor:
    """The mean of each window over the last axes (all behind [N, C] for an integer window). stride: the window by default.

    count_include_pad: whether the zeros of the padding count. Raises ValueError where the window does not fit.

    >>> md.avg_pool(md.reshape(md.arange(4.0), (1, 1, 4)), 2).tolist()
    [[[0.5, 2.5]]]
    """
    x = operand(x)
    if not x.dtype.inexact:
        x = ns.cast(x, dtype=md.get_default_dtype())
    window = _window("avg_pool", x, window)
    n = len(window)
    more = _settings("avg_pool", x, window, window if stride is None else stride, padding, 1)
    lead, spatial, both = x.shape[: x.ndim - n], x.shape[x.ndim - n :], more["padding"]
    out = tuple(max(0, (s + lo + hi - k) // step + 1) for s, k, step, (lo, hi) in zip(spatial, window, more["stride"], both, strict=True))
    if 0 in out:
        raise ValueError(f"avg_pool: the window {window} is larger than the padded input {describe(x)}")
    padded = any(p for pair in both for p in pair)
    if not padded and more["stride"] == window and all(s % k == 0 for s, k in zip(spatial, window, strict=True)):  # tiles: one reshape
        tiles = ns.reshape(x, shape=(*lead, *(v for s, k in zip(spatial, window, strict=True) for v in (s // k, k))))
        return md.mean(tiles, tuple(len(lead) + 2 * i + 1 for i in range(n)))
    widths = ((0, 0),) * len(lead) + both
    total = _window_sum(ns.pad(x, widths=widths, value=0) if padded else x, window, more["stride"], out)
    if count_include_pad or not padded:
        return ns.div(total, float(math.prod(window)))
    ones = ns.pad(constant(home(x), spatial, 1, x.dtype), widths=both, value=0)
    return ns.div(total, _window_sum(ones, window, more["stride"], out))


def _window_sum(x: Tensor, window: Any, stride: Any, out: Any) -> Tensor:
    """The sum over each window, one axis after the other: k slices per axis instead of k**n."""
    k = x.ndim - len(window)
    for axis, (size, step, count) in enumerate(zip(window, stride, out, strict=True), start=k):
        total = None
        for offset in range(size):
            part = ns.slice(
                x, start=tuple(offset if i == axis else 0 for i in range(x.ndim)),
                stop=tuple(offset + (count - 1) * step + 1 if i == axis else s for i, s in enumerate(x.shape)),
                step=tuple(step if i == axis else 1 for i in range(x.ndim)),
            )  # fmt: skip
            total = part if total is None else ns.add(total, part)
        x = total  # type: ignore[assignment]
    return x


check_all(globals(), __all__)
