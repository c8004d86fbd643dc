"""Convolution and pooling layers in one to three dimensions."""

from __future__ import annotations

import math
from typing import Any

import minidl as md
from minidl.nn import functional as F
from minidl.nn import init, windows
from minidl.nn.linear import blank
from minidl.nn.module import Module
from minidl.nn.windows import Size, per_axis


class _Conv(Module):
    """weight [out_channels, in_channels/groups, *kernel] and bias [out_channels], uniform within 1/sqrt(fan in) of zero."""

    n = 0  # spatial axes

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Size,
        stride: Size = 1,
        padding: Size | str = 0,
        dilation: Size = 1,
        groups: int = 1,
        bias: bool = True,
        device: str | None = None,
        dtype: Any = None,
    ):
        super().__init__()
        name = type(self).__name__
        if groups < 1 or in_channels % groups or out_channels % groups:
            raise ValueError(f"{name}: {in_channels} and {out_channels} channels cannot be split into {groups} groups")
        if isinstance(padding, str) and padding not in ("same", "valid"):
            raise ValueError(f'{name}: padding is an integer, one per axis, "same" or "valid", not {padding!r}')
        self.in_channels, self.out_channels, self.groups = in_channels, out_channels, groups
        self.kernel_size = per_axis("kernel_size", kernel_size, self.n)
        self.stride, self.dilation = per_axis("stride", stride, self.n), per_axis("dilation", dilation, self.n)
        self.padding = padding if isinstance(padding, str) else per_axis("padding", padding, self.n)
        self.weight = blank(out_channels, in_channels // groups, *self.kernel_size, dtype=dtype, device=device)
        self.register_parameter("bias", blank(out_channels, dtype=dtype, device=device) if bias else None)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the initial values anew."""
        init.kaiming_uniform_(self.weight, a=math.sqrt(5))
        if self.bias is not None:
            bound = 1 / math.sqrt(init.fans(self.weight)[0])
            init.uniform_(self.bias, -bound, bound)

    def forward(self, x: md.Tensor) -> md.Tensor:
        return windows.conv(self.n, x, self.weight, self.bias, self.stride, self.padding, self.dilation, self.groups)

    def extra_repr(self) -> str:
        text = f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, stride={self.stride}"
        if self.padding != (0,) * self.n:
            text += f", padding={self.padding}"
        if self.dilation != (1,) * self.n:
            text += f", dilation={self.dilation}"
        return text + (f", groups={self.groups}" if self.groups != 1 else "") + (", bias=False" if self.bias is None else "")


class Conv1d(_Conv):
    """Correlation of [N, C, L] (or [C, L]) with learned kernels."""

    n = 1


class Conv2d(_Conv):
    """Correlation of [N, C, H, W] (or [C, H, W]) with learned kernels.

    >>> Conv2d(3, 6, 5)(md.ones((2, 3, 32, 32))).shape
    (2, 6, 28, 28)
    """

    n = 2


class Conv3d(_Conv):
    """Correlation of [N, C, D, H, W] (or [C, D, H, W]) with learned kernels."""

    n = 3


class _MaxPool(Module):
    n = 0

    def __init__(self, kernel_size: Size, stride: Size | None = None, padding: Size = 0, dilation: Size = 1, ceil_mode: bool = False):
        super().__init__()
        self.kernel_size, self.stride = kernel_size, kernel_size if stride is None else stride
        self.padding, self.dilation, self.ceil_mode = padding, dilation, ceil_mode

    def forward(self, x: md.Tensor) -> md.Tensor:
        return windows.max_pool(self.n, x, self.kernel_size, self.stride, self.padding, self.dilation, self.ceil_mode)

    def extra_repr(self) -> str:
        names = ("kernel_size", "stride", "padding", "dilation", "ceil_mode")
        return ", ".join(f"{n}={getattr(self, n)}" for n in names)


class MaxPool1d(_MaxPool):
    """The maximum of windows of the last axis."""

    n = 1


class MaxPool2d(_MaxPool):
    """The maximum of windows of the last two axes.

    >>> MaxPool2d(2, 2)(md.ones((1, 3, 8, 8))).shape
    (1, 3, 4, 4)
    """

    n = 2


class MaxPool3d(_MaxPool):
    """The maximum of windows of the last three axes."""

    n = 3


class _AvgPool(Module):
    n = 0

    def __init__(self, kernel_size: Size, stride: Size | None = None, padding: Size = 0, ceil_mode: bool = False, count_include_pad: bool = True):
        super().__init__()
        stride = kernel_size if stride is None else stride
        if self.n == 1:
            kernel_size, stride, padding = (per_axis("AvgPool1d", v, 1) for v in (kernel_size, stride, padding))
        self.kernel_size, self.stride, self.padding = kernel_size, stride, padding
        self.ceil_mode, self.count_include_pad = ceil_mode, count_include_pad

    def forward(self, x: md.Tensor) -> md.Tensor:
        return windows.avg_pool(self.n, x, self.kernel_size, self.stride, self.padding, self.ceil_mode, self.count_include_pad)

    def extra_repr(self) -> str:
        return f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}"


class AvgPool1d(_AvgPool):
    """The mean of windows of the last axis."""

    n = 1


class AvgPool2d(_AvgPool):
    """The mean of windows of the last two axes."""

    n = 2


class AvgPool3d(_AvgPool):
    """The mean of windows of the last three axes."""

    n = 3


class Dropout2d(Module):
    """In training, zero whole channels of [N, C, ...] with probability p and scale the rest by 1/(1-p)."""

    def __init__(self, p: float = 0.5, inplace: bool = False):
        super().__init__()
        if not 0 <= p <= 1:
            raise ValueError(f"Dropout2d: p is a probability, not {p}")
        self.p, self.inplace = p, inplace

    def forward(self, x: md.Tensor) -> md.Tensor:
        if not self.training or self.p == 0:
            return x
        mask = F.dropout(md.ones_like(x.detach()[(..., *(slice(0, 1),) * (x.ndim - 2))]), self.p, True)
        return x * mask

    def extra_repr(self) -> str:
        return f"p={self.p}, inplace={self.inplace}"
