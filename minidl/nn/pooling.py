"""Pooling layers in one to three dimensions: maxima, means, p-norms, windows of one size or of a wanted number."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import minidl as md
from minidl.nn.functional.convolution import Size, per_axis
from minidl.nn.functional.fractional import Ratio, fractional_max_pool, sizes_wanted
from minidl.nn.functional.pooling import OutSize, adaptive_avg_pool, adaptive_max_pool, avg_pool, lp_pool, max_pool, max_unpool
from minidl.nn.module import Module

__all__ = [
    "AdaptiveAvgPool1d", "AdaptiveAvgPool2d", "AdaptiveAvgPool3d", "AdaptiveMaxPool1d", "AdaptiveMaxPool2d", "AdaptiveMaxPool3d", "AvgPool1d",
    "AvgPool2d", "AvgPool3d", "FractionalMaxPool2d", "FractionalMaxPool3d",
    "LPPool1d", "LPPool2d", "LPPool3d", "MaxPool1d", "MaxPool2d", "MaxPool3d", "MaxUnpool1d", "MaxUnpool2d", "MaxUnpool3d",
]  # fmt: skip


class _MaxPool(Module):
    n: ClassVar[int] = 0

    def __init__(
        self,
        kernel_size: Size,
        stride: Size | None = None,
        padding: Size = 0,
        dilation: Size = 1,
        return_indices: bool = False,
        ceil_mode: bool = False,
    ):
        super().__init__()
        self.kernel_size, self.stride = kernel_size, kernel_size if stride is None else stride
        self.padding, self.dilation, self.return_indices, self.ceil_mode = padding, dilation, return_indices, ceil_mode

    def forward(self, input: md.Tensor) -> Any:
        return max_pool(self.n, input, self.kernel_size, self.stride, self.padding, self.dilation, self.ceil_mode, self.return_indices)

    def extra_repr(self) -> str:
        names = ("kernel_size", "stride", "padding", "dilation", "ceil_mode")
        return ", ".join(f"{n}={getattr(self, n)}" for n in names)


class MaxPool1d(_MaxPool):
    """The maximum of windows of the last axis; with return_indices also where it was.

    >>> md.nn.MaxPool1d(2)(md.reshape(md.arange(4.0), (1, 1, 4))).tolist()
    [[[1.0, 3.0]]]
    """

    n = 1


class MaxPool2d(_MaxPool):
    """The maximum of windows of the last two axes; with return_indices also where it was.

    >>> MaxPool2d(2, 2)(md.ones((1, 3, 8, 8))).shape
    (1, 3, 4, 4)
    """

    n = 2


class MaxPool3d(_MaxPool):
    """The maximum of windows of the last three axes; with return_indices also where it was.

    >>> md.nn.MaxPool3d(2)(md.ones((1, 2, 4, 4, 4))).shape
    (1, 2, 2, 2, 2)
    """

    n = 3


class _FractionalMaxPool(Module):
    n: ClassVar[int] = 0

    def __init__(
        self,
        kernel_size: Size,
        output_size: Size | None = None,
        output_ratio: Ratio = None,
        return_indices: bool = False,
        _random_samples: md.Tensor | None = None,
    ):
        super().__init__()
        self.kernel_size, self.return_indices = per_axis("kernel_size", kernel_size, self.n), return_indices
        self.output_size, self.output_ratio = sizes_wanted(type(self).__name__, self.n, output_size, output_ratio)
        self.register_buffer("_random_samples", _random_samples)

    def forward(self, input: md.Tensor) -> Any:
        return fractional_max_pool(
            self.n, input, self.kernel_size, self.output_size, self.output_ratio, self.return_indices, self._random_samples
        )


class FractionalMaxPool2d(_FractionalMaxPool):
    """The maximum of windows of the last two axes whose places are drawn anew in each call (B. Graham, arXiv 1412.6071).

    output_size: how many windows, or output_ratio: how many for each place of the input. _random_samples: see nn.functional.fractional_max_pool2d.
    Raises ValueError unless one of the two is given, and where the windows do not fit.

    >>> FractionalMaxPool2d(2, output_ratio=0.7)(md.ones((1, 2, 10, 10))).shape
    (1, 2, 7, 7)
    """

    n = 2


class FractionalMaxPool3d(_FractionalMaxPool):
    """The maximum of windows of the last three axes whose places are drawn anew in each call; see FractionalMaxPool2d.

    >>> FractionalMaxPool3d(2, output_size=(3, 4, 4))(md.ones((1, 2, 5, 6, 7))).shape
    (1, 2, 3, 4, 4)
    """

    n = 3


class _MaxUnpool(Module):
    n: ClassVar[int] = 0

    def __init__(self, kernel_size: Size, stride: Size | None = None, padding: Size = 0):
        super().__init__()
        self.kernel_size, self.stride = per_axis("kernel_size", kernel_size, self.n), per_axis("stride", stride or kernel_size, self.n)
        self.padding = per_axis("padding", padding, self.n)

    def forward(self, input: md.Tensor, indices: md.Tensor, output_size: Sequence[int] | None = None) -> md.Tensor:
        return max_unpool(self.n, input, indices, self.kernel_size, self.stride, self.padding, output_size)

    def extra_repr(self) -> str:
        return f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}"


class MaxUnpool1d(_MaxUnpool):
    """The partial inverse of MaxPool1d with return_indices: values at their places, zeros elsewhere.

    >>> y, places = md.nn.MaxPool1d(2, return_indices=True)(md.reshape(md.arange(4.0), (1, 1, 4)))
    >>> md.nn.MaxUnpool1d(2)(y, places).tolist()
    [[[0.0, 1.0, 0.0, 3.0]]]
    """

    n = 1


class MaxUnpool2d(_MaxUnpool):
    """The partial inverse of MaxPool2d with return_indices: values at their places, zeros elsewhere.

    >>> y, places = md.nn.MaxPool2d(2, return_indices=True)(md.ones((1, 1, 4, 4)))
    >>> md.nn.MaxUnpool2d(2)(y, places).sum().item()
    4.0
    """

    n = 2


class MaxUnpool3d(_MaxUnpool):
    """The partial inverse of MaxPool3d with return_indices: values at their places, zeros elsewhere.

    >>> y, places = md.nn.MaxPool3d(2, return_indices=True)(md.ones((1, 1, 2, 2, 2)))
    >>> md.nn.MaxUnpool3d(2)(y, places).sum().item()
    1.0
    """

    n = 3


class AvgPool1d(Module):
    """The mean of windows of the last axis.

    Input [N, C, L] or [C, L]. Raises ValueError for sizes that are not one integer.

    >>> md.nn.AvgPool1d(2)(md.reshape(md.arange(4.0), (1, 1, 4))).tolist()
    [[[0.5, 2.5]]]
    """

    def __init__(self, kernel_size: Size, stride: Size | None = None, padding: Size = 0, ceil_mode: bool = False, count_include_pad: bool = True):
        super().__init__()
        stride = kernel_size if stride is None else stride
        self.kernel_size, self.stride, self.padding = (per_axis("AvgPool1d", v, 1) for v in (kernel_size, stride, padding))
        self.ceil_mode, self.count_include_pad = ceil_mode, count_include_pad

    def forward(self, input: md.Tensor) -> md.Tensor:
        return avg_pool(1, input, self.kernel_size, self.stride, self.padding, self.ceil_mode, self.count_include_pad)

    def extra_repr(self) -> str:
        return f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}"


class _AvgPool(Module):
    n: ClassVar[int] = 0

    def __init__(
        self,
        kernel_size: Size,
        stride: Size | None = None,
        padding: Size = 0,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
        divisor_override: int | None = None,
    ):
        super().__init__()
        self.kernel_size, self.stride, self.padding = kernel_size, kernel_size if stride is None else stride, padding
        self.ceil_mode, self.count_include_pad, self.divisor_override = ceil_mode, count_include_pad, divisor_override

    def forward(self, input: md.Tensor) -> md.Tensor:
        more = (self.ceil_mode, self.count_include_pad, self.divisor_override)
        return avg_pool(self.n, input, self.kernel_size, self.stride, self.padding, *more)

    def extra_repr(self) -> str:
        return f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}"


class AvgPool2d(_AvgPool):
    """The mean of windows of the last two axes.

    >>> md.nn.AvgPool2d(2)(md.reshape(md.arange(16.0), (1, 1, 4, 4))).tolist()
    [[[[2.5, 4.5], [10.5, 12.5]]]]
    """

    n = 2


class AvgPool3d(_AvgPool):
    """The mean of windows of the last three axes.

    >>> md.nn.AvgPool3d(2)(md.ones((1, 2, 4, 4, 4))).shape
    (1, 2, 2, 2, 2)
    """

    n = 3


class _LPPool(Module):
    n: ClassVar[int] = 0

    def __init__(self, norm_type: float, kernel_size: Size, stride: Size | None = None, ceil_mode: bool = False):
        super().__init__()
        self.norm_type, self.kernel_size, self.stride, self.ceil_mode = norm_type, kernel_size, stride, ceil_mode

    def forward(self, input: md.Tensor) -> md.Tensor:
        return lp_pool(self.n, input, float(self.norm_type), self.kernel_size, self.stride, self.ceil_mode)

    def extra_repr(self) -> str:
        return f"norm_type={self.norm_type}, kernel_size={self.kernel_size}, stride={self.stride}, ceil_mode={self.ceil_mode}"


class LPPool1d(_LPPool):
    """(Σ x^p)^(1/p) over windows of the last axis.

    >>> md.nn.LPPool1d(2, 2)(md.tensor([[[3.0, 4.0]]])).tolist()
    [[[5.0]]]
    """

    n = 1


class LPPool2d(_LPPool):
    """(Σ x^p)^(1/p) over windows of the last two axes.

    >>> md.nn.LPPool2d(2, 2)(md.ones((1, 1, 4, 4))).tolist()
    [[[[2.0, 2.0], [2.0, 2.0]]]]
    """

    n = 2


class LPPool3d(_LPPool):
    """(Σ x^p)^(1/p) over windows of the last three axes.

    >>> md.nn.LPPool3d(2, 2)(md.ones((1, 1, 4, 4, 4))).shape
    (1, 1, 2, 2, 2)
    """

    n = 3


class _AdaptiveAvgPool(Module):
    n: ClassVar[int] = 0

    def __init__(self, output_size: OutSize):
        super().__init__()
        self.output_size = output_size

    def forward(self, input: md.Tensor) -> md.Tensor:
        return adaptive_avg_pool(self.n, input, self.output_size)

    def extra_repr(self) -> str:
        return f"output_size={self.output_size}"


class AdaptiveAvgPool1d(_AdaptiveAvgPool):
    """The mean of the last axis in output_size windows.

    >>> md.nn.AdaptiveAvgPool1d(2)(md.reshape(md.arange(4.0), (1, 1, 4))).tolist()
    [[[0.5, 2.5]]]
    """

    n = 1


class AdaptiveAvgPool2d(_AdaptiveAvgPool):
    """The mean of the last two axes in output_size windows: one size for both, or a pair; None keeps an axis.

    >>> AdaptiveAvgPool2d(1)(md.ones((2, 3, 8, 6))).shape
    (2, 3, 1, 1)
    """

    n = 2


class AdaptiveAvgPool3d(_AdaptiveAvgPool):
    """The mean of the last three axes in output_size windows.

    >>> md.nn.AdaptiveAvgPool3d(1)(md.ones((1, 2, 4, 4, 4))).shape
    (1, 2, 1, 1, 1)
    """

    n = 3


class _AdaptiveMaxPool(Module):
    n: ClassVar[int] = 0

    def __init__(self, output_size: OutSize, return_indices: bool = False):
        super().__init__()
        self.output_size, self.return_indices = output_size, return_indices

    def forward(self, input: md.Tensor) -> Any:
        return adaptive_max_pool(self.n, input, self.output_size, self.return_indices)

    def extra_repr(self) -> str:
        return f"output_size={self.output_size}"


class AdaptiveMaxPool1d(_AdaptiveMaxPool):
    """The maximum of the last axis in output_size windows; with return_indices also where it was.

    >>> md.nn.AdaptiveMaxPool1d(2)(md.reshape(md.arange(4.0), (1, 1, 4))).tolist()
    [[[1.0, 3.0]]]
    """

    n = 1


class AdaptiveMaxPool2d(_AdaptiveMaxPool):
    """The maximum of the last two axes in output_size windows; with return_indices also where it was.

    >>> md.nn.AdaptiveMaxPool2d(2)(md.reshape(md.arange(16.0), (1, 1, 4, 4))).tolist()
    [[[[5.0, 7.0], [13.0, 15.0]]]]
    """

    n = 2


class AdaptiveMaxPool3d(_AdaptiveMaxPool):
    """The maximum of the last three axes in output_size windows; with return_indices also where it was.

    >>> md.nn.AdaptiveMaxPool3d(1)(md.ones((1, 2, 4, 4, 4))).shape
    (1, 2, 1, 1, 1)
    """

    n = 3
