"""Convolution and its transpose as functions in one to three dimensions, and unfold and fold; all are names of minidl.nn.functional."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import minidl as md
from minidl.nn.functional.kernels import by_kernel

__all__ = ["conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d", "fold", "unfold"]
Size = int | Sequence[int]


def per_axis(name: str, value: Size, n: int) -> tuple[int, ...]:
    """n integers from one, or from a sequence of n. Raises ValueError for another length."""
    values = (value,) * n if isinstance(value, int) else tuple(value)
    if len(values) != n:
        raise ValueError(f"{name}: {value!r} should be one integer or {n} of them")
    return values


def batched(name: str, x: md.Tensor, n: int) -> tuple[md.Tensor, bool]:
    """x with a batch axis, and whether it had to be added."""
    if x.ndim not in (n + 1, n + 2):
        raise ValueError(f"{name}: expected [N, C, {', '.join('DHW'[3 - n :])}] or the same without N, got shape {x.shape}")
    return (x[None], True) if x.ndim == n + 1 else (x, False)


def same_sides(kernel: Sequence[int], dilation: Sequence[int]) -> tuple[tuple[int, int], ...]:
    """The padding on both sides of each axis that keeps its size at stride 1; an odd total has its larger half behind."""
    totals = [d * (k - 1) for k, d in zip(kernel, dilation, strict=True)]
    return tuple((t // 2, t - t // 2) for t in totals)


@md.low_precision
def conv(
    n: int,
    input: md.Tensor,
    weight: md.Tensor,
    bias: md.Tensor | None = None,
    stride: Size = 1,
    padding: Size | str = 0,
    dilation: Size = 1,
    groups: int = 1,
) -> md.Tensor:
    """Correlation in n dimensions: input [N, C, ...], weight [O, C/groups, ...], bias [O].

    padding: zeros on both sides, "valid" for none, "same" for an output of the input's size (stride 1). Raises ValueError for shapes that do
    not fit.
    """
    x, single = batched(f"conv{n}d", input, n)
    stride, dilation = per_axis("stride", stride, n), per_axis("dilation", dilation, n)
    if padding == "same":
        if any(s != 1 for s in stride):
            raise ValueError('conv: padding="same" wants stride 1')
        sides: Sequence[Any] = same_sides(weight.shape[2:], dilation)
    else:
        sides = per_axis("padding", 0 if padding == "valid" else padding, n)  # type: ignore[arg-type]
    out = md.conv(x, weight, bias, stride=stride, padding=sides, dilation=dilation, groups=groups)
    return out[0] if single else out


@md.low_precision
def conv1d(
    input: md.Tensor, weight: md.Tensor, bias: md.Tensor | None = None, stride: Size = 1, padding: Size | str = 0, dilation: Size = 1, groups: int = 1
) -> md.Tensor:
    """The correlation of input [N, C, L] with weight [O, C/groups, k], plus bias [O]; padding may be "same" or "valid".

    >>> md.nn.functional.conv1d(md.reshape(md.arange(4.0), (1, 1, 4)), md.tensor([[[1.0, 1.0]]])).tolist()
    [[[1.0, 3.0, 5.0]]]
    """
    return conv(1, input, weight, bias, stride, padding, dilation, groups)


@md.low_precision
def conv2d(
    input: md.Tensor, weight: md.Tensor, bias: md.Tensor | None = None, stride: Size = 1, padding: Size | str = 0, dilation: Size = 1, groups: int = 1
) -> md.Tensor:
    """The correlation of input [N, C, H, W] with weight [O, C/groups, kh, kw], plus bias [O]; padding may be "same" or "valid".

    >>> md.nn.functional.conv2d(md.ones((2, 3, 8, 8)), md.ones((4, 3, 3, 3)), padding=1).shape
    (2, 4, 8, 8)
    """
    return conv(2, input, weight, bias, stride, padding, dilation, groups)


@md.low_precision
def conv3d(
    input: md.Tensor, weight: md.Tensor, bias: md.Tensor | None = None, stride: Size = 1, padding: Size | str = 0, dilation: Size = 1, groups: int = 1
) -> md.Tensor:
    """The correlation of input [N, C, D, H, W] with weight [O, C/groups, kd, kh, kw], plus bias [O]; padding may be "same" or "valid".

    >>> md.nn.functional.conv3d(md.ones((1, 1, 4, 4, 4)), md.ones((2, 1, 3, 3, 3))).shape
    (1, 2, 2, 2, 2)
    """
    return conv(3, input, weight, bias, stride, padding, dilation, groups)


@md.low_precision
def conv_transpose(
    n: int,
    input: md.Tensor,
    weight: md.Tensor,
    bias: md.Tensor | None = None,
    stride: Size = 1,
    padding: Size = 0,
    output_padding: Size = 0,
    groups: int = 1,
    dilation: Size = 1,
) -> md.Tensor:
    """The transpose of conv in n dimensions: input [N, C, ...], weight [C, O/groups, ...], bias [O].

    The output's size is (in - 1) stride - 2 padding + dilation (kernel - 1) + output_padding + 1. Padding larger than the kernel crops the result.
    Raises ValueError for shapes that do not fit.
    """
    x, single = batched(f"conv_transpose{n}d", input, n)
    more = {k: per_axis(k, v, n) for k, v in (("stride", stride), ("padding", padding), ("output_padding", output_padding), ("dilation", dilation))}
    out = md.conv_transpose(x, weight, groups=groups, **more)
    if bias is not None:
        out = out + bias.reshape((-1,) + (1,) * n)
    return out[0] if single else out


@md.low_precision
def conv_transpose1d(
    input: md.Tensor, weight: md.Tensor, bias: md.Tensor | None = None, stride: Size = 1, padding: Size = 0, output_padding: Size = 0,
    groups: int = 1, dilation: Size = 1,
) -> md.Tensor:  # fmt: skip
    """The transpose of conv1d: input [N, C, L], weight [C, O/groups, k], bias [O].

    >>> md.nn.functional.conv_transpose1d(md.tensor([[[1.0, 2.0]]]), md.tensor([[[1.0, 1.0]]])).tolist()
    [[[1.0, 3.0, 2.0]]]
    """
    return conv_transpose(1, input, weight, bias, stride, padding, output_padding, groups, dilation)


@md.low_precision
def conv_transpose2d(
    input: md.Tensor, weight: md.Tensor, bias: md.Tensor | None = None, stride: Size = 1, padding: Size = 0, output_padding: Size = 0,
    groups: int = 1, dilation: Size = 1,
) -> md.Tensor:  # fmt: skip
    """The transpose of conv2d: input [N, C, H, W], weight [C, O/groups, kh, kw], bias [O].

    >>> md.nn.functional.conv_transpose2d(md.ones((1, 1, 2, 2)), md.ones((1, 3, 2, 2)), stride=2).shape
    (1, 3, 4, 4)
    """
    return conv_transpose(2, input, weight, bias, stride, padding, output_padding, groups, dilation)


@md.low_precision
def conv_transpose3d(
    input: md.Tensor, weight: md.Tensor, bias: md.Tensor | None = None, stride: Size = 1, padding: Size = 0, output_padding: Size = 0,
    groups: int = 1, dilation: Size = 1,
) -> md.Tensor:  # fmt: skip
    """The transpose of conv3d: input [N, C, D, H, W], weight [C, O/groups, kd, kh, kw], bias [O].

    >>> md.nn.functional.conv_transpose3d(md.ones((1, 1, 2, 2, 2)), md.ones((1, 3, 2, 2, 2)), stride=2).shape
    (1, 3, 4, 4, 4)
    """
    return conv_transpose(3, input, weight, bias, stride, padding, output_padding, groups, dilation)


# ---- windows as columns ---------------------------------------------------------------------------------------------------------------
def _blocks(
    name: str, size: Sequence[int], kernel: Any, dilation: Any, padding: Any, stride: Any
) -> tuple[tuple[int, ...], list[tuple[slice, ...]]]:
    """How many windows there are along each axis, and for each place in the window the slice of the padded image that it meets."""
    if min(*kernel, *dilation, *stride) < 1 or min(padding) < 0:
        settings = f"windows of {tuple(kernel)}, dilation {tuple(dilation)}, stride {tuple(stride)} and padding {tuple(padding)}"
        raise ValueError(f"{name}: {settings}; at least 1, and 0 of padding, are wanted")
    counts = tuple((s + 2 * p - d * (k - 1) - 1) // t + 1 for s, k, d, p, t in zip(size, kernel, dilation, padding, stride, strict=True))
    if min(counts) < 1:
        raise ValueError(f"{name}: windows of {tuple(kernel)} do not fit an image of {tuple(size)}")
    h, w = (
        [slice(i * d, i * d + (c - 1) * t + 1, t) for i in range(k)] for k, d, c, t in zip(kernel, dilation, counts, stride, strict=True)
    )
    return counts, [(a, b) for a in h for b in w]


def unfold(input: md.Tensor, kernel_size: Size, dilation: Size = 1, padding: Size = 0, stride: Size = 1) -> md.Tensor:
    """The windows of input [N, C, H, W] as columns: [N, C * kh * kw, number of windows] (or all without N).

    Sizes are an integer, or two for height and width. Raises ValueError for other sizes, another number of axes, and windows that do not fit.

    >>> md.nn.functional.unfold(md.ones((1, 2, 4, 4)), 2, stride=2).shape
    (1, 8, 4)
    """
    x, single = batched("unfold", input, 2)
    kernel, dilation, pad, stride = (per_axis("unfold", v, 2) for v in (kernel_size, dilation, padding, stride))
    _blocks("unfold", x.shape[2:], kernel, dilation, pad, stride)
    out = _unfold(x, kernel, dilation, pad, stride)
    return out[0] if single else out


@by_kernel("unfolded")
def _unfold(x: md.Tensor, /, kernel: tuple[int, ...], dilation: tuple[int, ...], pad: tuple[int, ...], stride: tuple[int, ...]) -> md.Tensor:
    counts, places = _blocks("unfold", x.shape[2:], kernel, dilation, pad, stride)
    x = md.pad(x, ((0, 0), (0, 0), (pad[0], pad[0]), (pad[1], pad[1])))
    return md.stack([x[:, :, a, b] for a, b in places], axis=2).reshape((x.shape[0], x.shape[1] * len(places), math.prod(counts)))


def fold(input: md.Tensor, output_size: Size, kernel_size: Size, dilation: Size = 1, padding: Size = 0, stride: Size = 1) -> md.Tensor:
    """The transpose of unfold: columns [N, C * kh * kw, windows] added up at their places in [N, C, *output_size] (or all without N).

    Sizes are an integer, or two for height and width. Raises ValueError for other sizes, and for an input that does not hold the windows of such an
    image.

    >>> md.nn.functional.fold(md.ones((1, 4, 1)), (2, 2), (2, 2)).tolist()
    [[[[1.0, 1.0], [1.0, 1.0]]]]
    """
    if input.ndim not in (2, 3):
        raise ValueError(f"fold: expected [N, C * kh * kw, windows] or the same without N, got shape {input.shape}")
    x = input[None] if input.ndim == 2 else input
    size, kernel, dilation, pad, stride = (per_axis("fold", v, 2) for v in (output_size, kernel_size, dilation, padding, stride))
    counts, places = _blocks("fold", size, kernel, dilation, pad, stride)
    if x.shape[1] % len(places) or x.shape[2] != math.prod(counts):
        raise ValueError(f"fold: {input.shape} does not hold {math.prod(counts)} windows of {kernel} of an image of {size}")
    out = _fold(x, size, kernel, dilation, pad, stride)
    return out[0] if input.ndim == 2 else out


@by_kernel("folded")
def _fold(
    x: md.Tensor, /, size: tuple[int, ...], kernel: tuple[int, ...], dilation: tuple[int, ...], pad: tuple[int, ...], stride: tuple[int, ...]
) -> md.Tensor:
    counts, places = _blocks("fold", size, kernel, dilation, pad, stride)
    columns = x.reshape((x.shape[0], x.shape[1] // len(places), len(places), *counts))
    full = (*columns.shape[:2], size[0] + 2 * pad[0], size[1] + 2 * pad[1])
    out = md.zeros(full, dtype=x.dtype, backend=x.backend, device=x.device)
    for i, (a, b) in enumerate(places):
        out = out.at[:, :, a, b].add(columns[:, :, i])
    return out[:, :, pad[0] : pad[0] + size[0], pad[1] : pad[1] + size[1]]
