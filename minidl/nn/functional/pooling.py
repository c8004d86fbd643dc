"""Pooling as functions in one to three dimensions; all are names of minidl.nn.functional.

The gradient of a maximum goes to the first one of its window. return_indices gives int64 positions in the flattened spatial axes of the input, as
max_unpool takes them.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from typing import Any

import minidl as md
from minidl.nn.functional.convolution import Size, batched, per_axis
from minidl.nn.functional.kernels import by_kernel
from minidl.nn.functional.losses import seen

__all__ = [
    "adaptive_avg_pool1d", "adaptive_avg_pool2d", "adaptive_avg_pool3d", "adaptive_max_pool1d", "adaptive_max_pool2d", "adaptive_max_pool3d",
    "avg_pool1d", "avg_pool2d", "avg_pool3d", "lp_pool1d", "lp_pool2d", "lp_pool3d", "max_pool1d", "max_pool2d", "max_pool3d", "max_unpool1d",
    "max_unpool2d", "max_unpool3d",
]  # fmt: skip
OutSize = int | None | Sequence[int | None]


# ---- windows of one size --------------------------------------------------------------------------------------------------------------
def _ceil_extra(size: int, window: int, stride: int, pad: int, dilation: int) -> int:
    """Padding to add on the far side, so that the last, partly filled window counts (it must begin inside the input or its left padding)."""
    span = dilation * (window - 1) + 1
    count = -(-(size + 2 * pad - span) // stride) + 1
    if (count - 1) * stride >= size + pad:
        count -= 1
    return max(0, (count - 1) * stride + span - (size + 2 * pad))


def _ceil_sides(x: md.Tensor, window: Any, stride: Any, pad: Any, dilation: Any) -> tuple[tuple[int, int], ...]:
    sizes = zip(x.shape[2:], window, stride, pad, dilation, strict=True)
    return tuple((p, p + _ceil_extra(s, k, t, p, d)) for s, k, t, p, d in sizes)


def _lowest(dtype: md.DType) -> float:
    return -math.inf if dtype.inexact else md.iinfo(dtype).min


def max_pool(
    n: int,
    input: md.Tensor,
    kernel_size: Size,
    stride: Size | None = None,
    padding: Size = 0,
    dilation: Size = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Any:
    """The maximum of each window of the last n axes; stride is the window's size unless given."""
    x, single = batched(f"max_pool{n}d", input, n)
    window = per_axis("kernel_size", kernel_size, n)
    stride = per_axis("stride", kernel_size if stride is None else stride, n)
    pad, dilation = per_axis("padding", padding, n), per_axis("dilation", dilation, n)
    if any(2 * p > k for p, k in zip(pad, window, strict=True)):
        raise ValueError(f"max_pool{n}d: padding {pad} is more than half of the window {window}")
    size, sides = x.shape[2:], pad
    if ceil_mode and (wide := _ceil_sides(x, window, stride, pad, dilation)) != tuple((p, p) for p in pad):
        x, sides = md.pad(x, ((0, 0), (0, 0), *wide), _lowest(x.dtype)), (0,) * n
    if not return_indices:
        out = _maxima(x, window, stride, sides, dilation)
        return out[0] if single else out
    out, inside = md.max_pool(x, window, stride=stride, padding=sides, dilation=dilation, return_indices=True)
    starts = [md.arange(c, backend=x.backend, device=x.device) * s - p for c, s, p in zip(out.shape[2:], stride, pad, strict=True)]
    index = flat_positions(inside, starts, window, dilation, size)
    return (out[0], index[0]) if single else (out, index)


@by_kernel("maxima")
def _maxima(x: md.Tensor, /, window: Any, stride: Any, padding: Any, dilation: Any) -> md.Tensor:
    return md.max_pool(x, window, stride=stride, padding=padding, dilation=dilation)


def flat_positions(inside: md.Tensor, starts: list[md.Tensor], window: Any, dilation: Any, size: Any) -> md.Tensor:
    """Row-major positions in an image of this size, from positions inside the windows that start there (their axis is the last one of each)."""
    n, total = len(window), None
    rest = inside
    strides = [math.prod(size[i + 1 :]) for i in range(n)]
    for axis in reversed(range(n)):
        place = md.remainder(rest, window[axis]) * dilation[axis] + starts[axis].reshape((*starts[axis].shape, *(1,) * (n - 1 - axis)))
        rest = md.floor_divide(rest, window[axis])
        total = place * strides[axis] if total is None else total + place * strides[axis]
    assert total is not None
    return total


def max_pool1d(
    input: md.Tensor, kernel_size: Size, stride: Size | None = None, padding: Size = 0, dilation: Size = 1, ceil_mode: bool = False,
    return_indices: bool = False,
) -> Any:  # fmt: skip
    """The maximum of windows of the last axis of [N, C, L]; with return_indices also where it was.

    >>> md.nn.functional.max_pool1d(md.reshape(md.arange(4.0), (1, 1, 4)), 2).tolist()
    [[[1.0, 3.0]]]
    """
    return max_pool(1, input, kernel_size, stride, padding, dilation, ceil_mode, return_indices)


def max_pool2d(
    input: md.Tensor, kernel_size: Size, stride: Size | None = None, padding: Size = 0, dilation: Size = 1, ceil_mode: bool = False,
    return_indices: bool = False,
) -> Any:  # fmt: skip
    """The maximum of windows of the last two axes of [N, C, H, W]; with return_indices also where it was.

    >>> md.nn.functional.max_pool2d(md.reshape(md.arange(16.0), (1, 1, 4, 4)), 2).tolist()
    [[[[5.0, 7.0], [13.0, 15.0]]]]
    """
    return max_pool(2, input, kernel_size, stride, padding, dilation, ceil_mode, return_indices)


def max_pool3d(
    input: md.Tensor, kernel_size: Size, stride: Size | None = None, padding: Size = 0, dilation: Size = 1, ceil_mode: bool = False,
    return_indices: bool = False,
) -> Any:  # fmt: skip
    """The maximum of windows of the last three axes of [N, C, D, H, W]; with return_indices also where it was.

    >>> md.nn.functional.max_pool3d(md.ones((1, 2, 4, 4, 4)), 2).shape
    (1, 2, 2, 2, 2)
    """
    return max_pool(3, input, kernel_size, stride, padding, dilation, ceil_mode, return_indices)


def avg_pool(
    n: int,
    input: md.Tensor,
    kernel_size: Size,
    stride: Size | None = None,
    padding: Size = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> md.Tensor:
    """The mean of each window of the last n axes; count_include_pad: whether the zeros of the padding count."""
    x, single = batched(f"avg_pool{n}d", input, n)
    window = per_axis("kernel_size", kernel_size, n)
    stride = per_axis("stride", kernel_size if stride is None else stride, n)
    pad = per_axis("padding", padding, n)
    if any(2 * p > k for p, k in zip(pad, window, strict=True)):
        raise ValueError(f"avg_pool{n}d: padding {pad} is more than half of the window {window}")
    sides = tuple((p, p) for p in pad)
    wide = _ceil_sides(x, window, stride, pad, (1,) * n) if ceil_mode else sides
    if divisor_override is not None:
        if divisor_override == 0:
            raise ValueError(f"avg_pool{n}d: divisor_override must not be 0")
        out = md.avg_pool(x, window, stride=stride, padding=wide) * (math.prod(window) / divisor_override)
    elif wide == sides:
        out = md.avg_pool(x, window, stride=stride, padding=sides, count_include_pad=count_include_pad)
    else:  # what ceil_mode adds on the far side never counts
        inner, outer = ((0, 0),) * (x.ndim - n) + (sides if count_include_pad else ((0, 0),) * n), [(0, 0)] * (x.ndim - n)
        outer += [(w[0], w[1]) if not count_include_pad else (0, w[1] - s[1]) for w, s in zip(wide, sides, strict=True)]
        counted = md.pad(md.pad(md.ones_like(x[:1, :1].detach()), inner, 1), outer)
        out = md.avg_pool(x, window, stride=stride, padding=wide) / md.avg_pool(counted, window, stride=stride)
    return out[0] if single else out


def avg_pool1d(
    input: md.Tensor, kernel_size: Size, stride: Size | None = None, padding: Size = 0, ceil_mode: bool = False, count_include_pad: bool = True
) -> md.Tensor:
    """The mean of windows of the last axis of [N, C, L].

    >>> md.nn.functional.avg_pool1d(md.reshape(md.arange(4.0), (1, 1, 4)), 2).tolist()
    [[[0.5, 2.5]]]
    """
    return avg_pool(1, input, kernel_size, stride, padding, ceil_mode, count_include_pad)


def avg_pool2d(
    input: md.Tensor, kernel_size: Size, stride: Size | None = None, padding: Size = 0, ceil_mode: bool = False, count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> md.Tensor:  # fmt: skip
    """The mean of windows of the last two axes of [N, C, H, W]; divisor_override divides the sum instead of the window's size.

    >>> md.nn.functional.avg_pool2d(md.reshape(md.arange(16.0), (1, 1, 4, 4)), 2).tolist()
    [[[[2.5, 4.5], [10.5, 12.5]]]]
    """
    return avg_pool(2, input, kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override)


def avg_pool3d(
    input: md.Tensor, kernel_size: Size, stride: Size | None = None, padding: Size = 0, ceil_mode: bool = False, count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> md.Tensor:  # fmt: skip
    """The mean of windows of the last three axes of [N, C, D, H, W]; divisor_override divides the sum instead of the window's size.

    >>> md.nn.functional.avg_pool3d(md.ones((1, 2, 4, 4, 4)), 2).shape
    (1, 2, 2, 2, 2)
    """
    return avg_pool(3, input, kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override)


def lp_pool(n: int, input: md.Tensor, norm_type: float, kernel_size: Size, stride: Size | None = None, ceil_mode: bool = False) -> md.Tensor:
    """(Σ x^p over each window of the last n axes)^(1/p) for p = norm_type, with gradient 0 where the sum is 0; for inf and -inf the largest and the
    smallest |x|."""
    if math.isinf(norm_type):
        sign = 1 if norm_type > 0 else -1
        return sign * max_pool(n, sign * md.abs(input), kernel_size, stride, 0, 1, ceil_mode)
    window = per_axis("kernel_size", kernel_size, n)
    mean = avg_pool(n, md.pow(input, float(norm_type)), kernel_size, stride, 0, ceil_mode)
    zero = mean == 0
    return md.where(zero, 0.0, md.pow(md.where(zero, 1.0, mean) * math.prod(window), 1.0 / norm_type))


def lp_pool1d(input: md.Tensor, norm_type: float, kernel_size: Size, stride: Size | None = None, ceil_mode: bool = False) -> md.Tensor:
    """(Σ x^p)^(1/p) over windows of the last axis of [N, C, L].

    >>> md.nn.functional.lp_pool1d(md.tensor([[[3.0, 4.0]]]), 2, 2).tolist()
    [[[5.0]]]
    """
    return lp_pool(1, input, norm_type, kernel_size, stride, ceil_mode)


def lp_pool2d(input: md.Tensor, norm_type: float, kernel_size: Size, stride: Size | None = None, ceil_mode: bool = False) -> md.Tensor:
    """(Σ x^p)^(1/p) over windows of the last two axes of [N, C, H, W].

    >>> md.nn.functional.lp_pool2d(md.ones((1, 1, 4, 4)), 2, 2).tolist()
    [[[[2.0, 2.0], [2.0, 2.0]]]]
    """
    return lp_pool(2, input, norm_type, kernel_size, stride, ceil_mode)


def lp_pool3d(input: md.Tensor, norm_type: float, kernel_size: Size, stride: Size | None = None, ceil_mode: bool = False) -> md.Tensor:
    """(Σ x^p)^(1/p) over windows of the last three axes of [N, C, D, H, W].

    >>> md.nn.functional.lp_pool3d(md.ones((1, 1, 4, 4, 4)), 2, 2).shape
    (1, 1, 2, 2, 2)
    """
    return lp_pool(3, input, norm_type, kernel_size, stride, ceil_mode)


# ---- windows that share the input -----------------------------------------------------------------------------------------------------
def _shares(size: int, out: int) -> tuple[list[int], list[int]]:
    """Where the windows begin and end that share `size` places among `out`, as PyTorch cuts them."""
    return [i * size // out for i in range(out)], [-(-(i + 1) * size // out) for i in range(out)]


def _adaptive(name: str, n: int, input: md.Tensor, output_size: OutSize) -> tuple[md.Tensor, bool, tuple[int, ...]]:
    x, single = batched(name, input, n)
    wanted = (output_size,) * n if output_size is None or isinstance(output_size, int) else tuple(output_size)
    if len(wanted) != n:
        raise ValueError(f"{name}: output_size {output_size!r} should be one size or {n} of them")
    sizes = tuple(s if o is None else operator.index(o) for o, s in zip(wanted, x.shape[2:], strict=True))
    if min(sizes) < 1 or 0 in x.shape[2:]:
        raise ValueError(f"{name}: output_size {output_size!r} and the spatial axes of {x.shape} must be at least 1")
    if max(sizes) > 2**20:
        raise ValueError(f"{name}: output_size {output_size!r} is more than 2**20 windows on an axis")
    return x, single, sizes


def _spread(x: md.Tensor, sizes: tuple[int, ...], fill: float) -> tuple[md.Tensor, tuple[int, ...], list[list[int]], list[list[int]]]:
    """x with its windows laid side by side, each as wide as the widest, what is too much being `fill`; the width, and where windows begin and end."""
    widths, starts, counts = [], [], []
    for axis, (size, out) in enumerate(zip(x.shape[2:], sizes, strict=True), start=2):
        begin, end = _shares(size, out)
        width = max(e - b for b, e in zip(begin, end, strict=True))
        widths.append(width)
        starts.append(begin)
        counts.append([e - b for b, e in zip(begin, end, strict=True)])
        if size % out == 0:
            continue
        place = [min(b + i, size - 1) for b in begin for i in range(width)]
        used = [i < c for c in counts[-1] for i in range(width)]
        x = md.take(x, md.asarray(place, backend=x.backend, device=x.device), axis=axis)
        if not all(used):
            inside = md.asarray(used, backend=x.backend, device=x.device).reshape((-1,) + (1,) * (x.ndim - 1 - axis))
            x = md.where(inside, x, fill)
    return x, tuple(widths), starts, counts


def adaptive_avg_pool(n: int, input: md.Tensor, output_size: OutSize) -> md.Tensor:
    """The mean over windows that share the last n axes among output_size places (None: as many as there are)."""
    x, single, sizes = _adaptive(f"adaptive_avg_pool{n}d", n, input, output_size)
    if all(s == 1 for s in sizes):
        out = md.mean(x, axis=tuple(range(2, n + 2)), keepdims=True)
    elif all(a % b == 0 for a, b in zip(x.shape[2:], sizes, strict=True)):
        out = md.avg_pool(x, tuple(a // b for a, b in zip(x.shape[2:], sizes, strict=True)))
    else:
        out = _averages(x, sizes)
    return out[0] if single else out


@by_kernel("averages")
def _averages(x: md.Tensor, /, sizes: tuple[int, ...]) -> md.Tensor:
    x, widths, _, counts = _spread(x, sizes, 0.0)
    out = md.avg_pool(x, widths)
    for i, (width, each) in enumerate(zip(widths, counts, strict=True)):
        if min(each) < width:
            scale = md.asarray([width / c for c in each], dtype=out.dtype, backend=x.backend, device=x.device)
            out = out * scale.reshape((-1,) + (1,) * (len(sizes) - 1 - i))
    return out


def adaptive_max_pool(n: int, input: md.Tensor, output_size: OutSize, return_indices: bool = False) -> Any:
    """The maximum over windows that share the last n axes among output_size places (None: as many as there are)."""
    x, single, sizes = _adaptive(f"adaptive_max_pool{n}d", n, input, output_size)
    size = x.shape[2:]
    x, widths, starts, _ = _spread(x, sizes, _lowest(x.dtype))
    if not return_indices:
        out = md.max_pool(x, widths)
        return out[0] if single else out
    out, inside = md.max_pool(x, widths, return_indices=True)
    begin = [md.asarray(s, backend=x.backend, device=x.device) for s in starts]
    index = flat_positions(inside, begin, widths, (1,) * n, size)
    return (out[0], index[0]) if single else (out, index)


def adaptive_avg_pool1d(input: md.Tensor, output_size: OutSize) -> md.Tensor:
    """The mean of the last axis of [N, C, L] in output_size windows.

    >>> md.nn.functional.adaptive_avg_pool1d(md.reshape(md.arange(4.0), (1, 1, 4)), 2).tolist()
    [[[0.5, 2.5]]]
    """
    return adaptive_avg_pool(1, input, output_size)


def adaptive_avg_pool2d(input: md.Tensor, output_size: OutSize) -> md.Tensor:
    """The mean of the last two axes of [N, C, H, W] in output_size windows: one size for both, or a pair; None keeps an axis.

    >>> adaptive_avg_pool2d(md.ones((1, 2, 7, 5)), (3, None)).shape
    (1, 2, 3, 5)
    """
    return adaptive_avg_pool(2, input, output_size)


def adaptive_avg_pool3d(input: md.Tensor, output_size: OutSize) -> md.Tensor:
    """The mean of the last three axes of [N, C, D, H, W] in output_size windows.

    >>> md.nn.functional.adaptive_avg_pool3d(md.ones((1, 2, 4, 4, 4)), 1).shape
    (1, 2, 1, 1, 1)
    """
    return adaptive_avg_pool(3, input, output_size)


def adaptive_max_pool1d(input: md.Tensor, output_size: OutSize, return_indices: bool = False) -> Any:
    """The maximum of the last axis of [N, C, L] in output_size windows; with return_indices also where it was.

    >>> md.nn.functional.adaptive_max_pool1d(md.reshape(md.arange(4.0), (1, 1, 4)), 2).tolist()
    [[[1.0, 3.0]]]
    """
    return adaptive_max_pool(1, input, output_size, return_indices)


def adaptive_max_pool2d(input: md.Tensor, output_size: OutSize, return_indices: bool = False) -> Any:
    """The maximum of the last two axes of [N, C, H, W] in output_size windows; with return_indices also where it was.

    >>> md.nn.functional.adaptive_max_pool2d(md.reshape(md.arange(16.0), (1, 1, 4, 4)), 2).tolist()
    [[[[5.0, 7.0], [13.0, 15.0]]]]
    """
    return adaptive_max_pool(2, input, output_size, return_indices)


def adaptive_max_pool3d(input: md.Tensor, output_size: OutSize, return_indices: bool = False) -> Any:
    """The maximum of the last three axes of [N, C, D, H, W] in output_size windows; with return_indices also where it was.

    >>> md.nn.functional.adaptive_max_pool3d(md.ones((1, 2, 4, 4, 4)), 1).shape
    (1, 2, 1, 1, 1)
    """
    return adaptive_max_pool(3, input, output_size, return_indices)


# ---- back to the places of maxima -----------------------------------------------------------------------------------------------------
def max_unpool(
    n: int, input: md.Tensor, indices: md.Tensor, kernel_size: Size, stride: Size | None = None, padding: Size = 0,
    output_size: Sequence[int] | None = None,
) -> md.Tensor:  # fmt: skip
    """Zeros, but the values of input at the places that max_pool's return_indices gave; output_size decides where several sizes are possible.

    Raises ValueError for sizes that do not fit, IndexError for a place outside the output (on a CPU, where values can be looked at; elsewhere such a
    value is dropped).
    """
    if input.shape != indices.shape:
        raise ValueError(f"max_unpool{n}d: input {input.shape} and indices {indices.shape} differ in shape")
    x, single = batched(f"max_unpool{n}d", input, n)
    kernel, pad = per_axis("kernel_size", kernel_size, n), per_axis("padding", padding, n)
    stride = per_axis("stride", kernel_size if stride is None else stride, n)
    size = tuple((s - 1) * t - 2 * p + k for s, t, p, k in zip(x.shape[2:], stride, pad, kernel, strict=True))
    if output_size is not None:
        given = tuple(output_size)[-n:]
        if len(given) != n or any(not s - t < g < s + t for s, t, g in zip(size, stride, given, strict=True)):
            raise ValueError(f"max_unpool{n}d: output_size {tuple(output_size)} is not within a stride of {size}")
        size = given
    lead, area = x.shape[:2], math.prod(size)
    flat = (math.prod(lead), math.prod(x.shape[2:]))
    like = {"backend": x.backend, "device": x.device}
    places = indices.reshape(flat)
    values = seen(places)
    if values is not None and values.size and not 0 <= values.min() <= values.max() < area:
        raise IndexError(f"max_unpool{n}d: indices hold {values.min()} to {values.max()}; the output of {size} has places 0 to {area - 1}")
    row = md.arange(flat[0], **like)[:, None]
    out = md.zeros((flat[0], area), dtype=x.dtype, **like).at[row, places].set(x.reshape(flat), mode="drop").reshape((*lead, *size))
    return out[0] if single else out


def max_unpool1d(
    input: md.Tensor, indices: md.Tensor, kernel_size: Size, stride: Size | None = None, padding: Size = 0, output_size: Sequence[int] | None = None
) -> md.Tensor:
    """The partial inverse of max_pool1d, from its values and indices.

    >>> y, places = md.nn.functional.max_pool1d(md.reshape(md.arange(4.0), (1, 1, 4)), 2, return_indices=True)
    >>> md.nn.functional.max_unpool1d(y, places, 2).tolist()
    [[[0.0, 1.0, 0.0, 3.0]]]
    """
    return max_unpool(1, input, indices, kernel_size, stride, padding, output_size)


def max_unpool2d(
    input: md.Tensor, indices: md.Tensor, kernel_size: Size, stride: Size | None = None, padding: Size = 0, output_size: Sequence[int] | None = None
) -> md.Tensor:
    """The partial inverse of max_pool2d, from its values and indices.

    >>> y, places = md.nn.functional.max_pool2d(md.ones((1, 1, 4, 4)), 2, return_indices=True)
    >>> md.nn.functional.max_unpool2d(y, places, 2).sum().item()
    4.0
    """
    return max_unpool(2, input, indices, kernel_size, stride, padding, output_size)


def max_unpool3d(
    input: md.Tensor, indices: md.Tensor, kernel_size: Size, stride: Size | None = None, padding: Size = 0, output_size: Sequence[int] | None = None
) -> md.Tensor:
    """The partial inverse of max_pool3d, from its values and indices.

    >>> y, places = md.nn.functional.max_pool3d(md.ones((1, 1, 2, 2, 2)), 2, return_indices=True)
    >>> md.nn.functional.max_unpool3d(y, places, 2).sum().item()
    1.0
    """
    return max_unpool(3, input, indices, kernel_size, stride, padding, output_size)
