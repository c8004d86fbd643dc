"""Convolution and pooling as functions in one to three dimensions; all are names of minidl.nn.functional."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import minidl as md

Size = int | Sequence[int]


def per_axis(name: str, value: Size, n: int) -> tuple[int, ...]:
    """n integers from one, or from a sequence of n. Raises ValueError for another length."""
    values = (value,) * n if isinstance(value, int) else tuple(value)
    if len(values) != n:
        raise ValueError(f"{name}: {value!r} should be one integer or {n} of them")
    return values


def _batched(name: str, x: md.Tensor, n: int) -> tuple[md.Tensor, bool]:
    """x with a batch axis, and whether it had to be added."""
    if x.ndim not in (n + 1, n + 2):
        raise ValueError(f"{name}: expected [N, C, {', '.join('DHW'[3 - n :])}] or the same without N, got shape {x.shape}")
    return (x[None], True) if x.ndim == n + 1 else (x, False)


def conv(
    n: int,
    x: md.Tensor,
    weight: md.Tensor,
    bias: md.Tensor | None = None,
    stride: Size = 1,
    padding: Size | str = 0,
    dilation: Size = 1,
    groups: int = 1,
) -> md.Tensor:
    """Correlation in n dimensions: x [N, C, ...], weight [O, C/groups, ...], bias [O].

    padding: zeros on both sides, "valid" for none, "same" for an output of the input's size (stride 1). Raises ValueError for shapes that do
    not fit.
    """
    x, single = _batched(f"conv{n}d", x, n)
    stride, dilation = per_axis("stride", stride, n), per_axis("dilation", dilation, n)
    if padding == "same":
        if any(s != 1 for s in stride):
            raise ValueError('conv: padding="same" wants stride 1')
        total = [d * (k - 1) for k, d in zip(weight.shape[2:], dilation, strict=True)]
        sides = tuple((t // 2, t - t // 2) for t in total)
    else:
        sides = tuple((p, p) for p in per_axis("padding", 0 if padding == "valid" else padding, n))  # type: ignore[arg-type]
    out = md.conv(x, weight, stride=stride, padding=sides, dilation=dilation, groups=groups)
    if bias is not None:
        out = out + bias.reshape((-1,) + (1,) * n)
    return out[0] if single else out


def conv1d(x: md.Tensor, weight: md.Tensor, *args: Any, **kwargs: Any) -> md.Tensor:
    """conv with one spatial axis: (x, weight, bias=None, stride=1, padding=0, dilation=1, groups=1)."""
    return conv(1, x, weight, *args, **kwargs)


def conv2d(x: md.Tensor, weight: md.Tensor, *args: Any, **kwargs: Any) -> md.Tensor:
    """conv with two spatial axes: (x, weight, bias=None, stride=1, padding=0, dilation=1, groups=1)."""
    return conv(2, x, weight, *args, **kwargs)


def conv3d(x: md.Tensor, weight: md.Tensor, *args: Any, **kwargs: Any) -> md.Tensor:
    """conv with three spatial axes: (x, weight, bias=None, stride=1, padding=0, dilation=1, groups=1)."""
    return conv(3, x, weight, *args, **kwargs)


def _ceil_extra(size: int, window: int, stride: int, pad: int, dilation: int) -> int:
    """Padding to add on the far side, so that the last, partly filled window counts (it must begin inside the input or its left padding)."""
    span = dilation * (window - 1) + 1
    count = -(-(size + 2 * pad - span) // stride) + 1
    if (count - 1) * stride >= size + pad:
        count -= 1
    return max(0, (count - 1) * stride + span - (size + 2 * pad))


def max_pool(
    n: int,
    x: md.Tensor,
    kernel_size: Size,
    stride: Size | None = None,
    padding: Size = 0,
    dilation: Size = 1,
    ceil_mode: bool = False,
) -> md.Tensor:
    """The maximum of each window of the last n axes; stride is the window's size unless given. The gradient goes to the first maximum."""
    x, single = _batched(f"max_pool{n}d", x, n)
    window = per_axis("kernel_size", kernel_size, n)
    stride = per_axis("stride", kernel_size if stride is None else stride, n)
    pad, dilation = per_axis("padding", padding, n), per_axis("dilation", dilation, n)
    sides = tuple((p, p) for p in pad)
    if ceil_mode and (wide := _ceil_sides(x, window, stride, pad, dilation)) != sides:
        lowest = -math.inf if x.dtype.inexact else md.iinfo(x.dtype).min
        x, sides = md.pad(x, ((0, 0), (0, 0), *wide), lowest), ((0, 0),) * n
    out = md.max_pool(x, window, stride=stride, padding=sides, dilation=dilation)
    return out[0] if single else out


def _ceil_sides(x: md.Tensor, window: Any, stride: Any, pad: Any, dilation: Any) -> tuple[tuple[int, int], ...]:
    sizes = zip(x.shape[2:], window, stride, pad, dilation, strict=True)
    return tuple((p, p + _ceil_extra(s, k, t, p, d)) for s, k, t, p, d in sizes)


def max_pool1d(x: md.Tensor, kernel_size: Size, *args: Any, **kwargs: Any) -> md.Tensor:
    """max_pool over the last axis: (x, kernel_size, stride=None, padding=0, dilation=1, ceil_mode=False)."""
    return max_pool(1, x, kernel_size, *args, **kwargs)


def max_pool2d(x: md.Tensor, kernel_size: Size, *args: Any, **kwargs: Any) -> md.Tensor:
    """max_pool over the last two axes: (x, kernel_size, stride=None, padding=0, dilation=1, ceil_mode=False)."""
    return max_pool(2, x, kernel_size, *args, **kwargs)


def max_pool3d(x: md.Tensor, kernel_size: Size, *args: Any, **kwargs: Any) -> md.Tensor:
    """max_pool over the last three axes: (x, kernel_size, stride=None, padding=0, dilation=1, ceil_mode=False)."""
    return max_pool(3, x, kernel_size, *args, **kwargs)


def avg_pool(
    n: int,
    x: md.Tensor,
    kernel_size: Size,
    stride: Size | None = None,
    padding: Size = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
) -> md.Tensor:
    """The mean of each window of the last n axes; count_include_pad: whether the zeros of the padding count."""
    x, single = _batched(f"avg_pool{n}d", x, n)
    window = per_axis("kernel_size", kernel_size, n)
    stride = per_axis("stride", kernel_size if stride is None else stride, n)
    pad = per_axis("padding", padding, n)
    sides = tuple((p, p) for p in pad)
    wide = _ceil_sides(x, window, stride, pad, (1,) * n) if ceil_mode else sides
    if wide == sides:
        out = md.avg_pool(x, window, stride=stride, padding=sides, count_include_pad=count_include_pad)
    else:  # what ceil_mode adds on the far side never counts
        inner, outer = ((0, 0),) * (x.ndim - n) + (sides if count_include_pad else ((0, 0),) * n), [(0, 0)] * (x.ndim - n)
        outer += [(w[0], w[1]) if not count_include_pad else (0, w[1] - s[1]) for w, s in zip(wide, sides, strict=True)]
        counted = md.pad(md.pad(md.ones_like(x[:1, :1].detach()), inner, 1), outer)
        out = md.avg_pool(x, window, stride=stride, padding=wide) / md.avg_pool(counted, window, stride=stride)
    return out[0] if single else out


def avg_pool1d(x: md.Tensor, kernel_size: Size, *args: Any, **kwargs: Any) -> md.Tensor:
    """avg_pool over the last axis: (x, kernel_size, stride=None, padding=0, ceil_mode=False, count_include_pad=True)."""
    return avg_pool(1, x, kernel_size, *args, **kwargs)


def avg_pool2d(x: md.Tensor, kernel_size: Size, *args: Any, **kwargs: Any) -> md.Tensor:
    """avg_pool over the last two axes: (x, kernel_size, stride=None, padding=0, ceil_mode=False, count_include_pad=True)."""
    return avg_pool(2, x, kernel_size, *args, **kwargs)


def avg_pool3d(x: md.Tensor, kernel_size: Size, *args: Any, **kwargs: Any) -> md.Tensor:
    """avg_pool over the last three axes: (x, kernel_size, stride=None, padding=0, ceil_mode=False, count_include_pad=True)."""
    return avg_pool(3, x, kernel_size, *args, **kwargs)
