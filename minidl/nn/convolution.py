"""Convolution layers and their transposes in one to three dimensions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar

import minidl as md
from minidl.nn import functional as F
from minidl.nn import init
from minidl.nn.functional.convolution import Size, batched, conv, conv_transpose, per_axis, same_sides
from minidl.nn.module import Module
from minidl.nn.parameter import blank

__all__ = ["Conv1d", "Conv2d", "Conv3d", "ConvTranspose1d", "ConvTranspose2d", "ConvTranspose3d"]
_PADDING_MODES = {"zeros": "constant", "reflect": "reflect", "replicate": "replicate", "circular": "circular"}


class _Windows(Module):
    """What convolutions and their transposes share: settings, initial values, the print."""

    n: ClassVar[int] = 0  # spatial axes
    transposed: ClassVar[bool] = False

    def _start(
        self, channels: tuple[int, int], kernel_size: Size, stride: Size, padding: Size | str, output_padding: Size, dilation: Size, groups: int,
        bias: bool, padding_mode: str, device: str | None, dtype: Any,
    ) -> None:  # fmt: skip
        super().__init__()
        name, n = type(self).__name__, self.n
        if groups < 1 or channels[0] % groups or channels[1] % groups:
            raise ValueError(f"{name}: {channels[0]} and {channels[1]} channels cannot be split into {groups} groups")
        if isinstance(padding, str) and padding not in ("same", "valid"):
            raise ValueError(f'{name}: padding is an integer, one per axis, "same" or "valid", not {padding!r}')
        if padding_mode not in (("zeros",) if self.transposed else _PADDING_MODES):
            known = "'zeros'" if self.transposed else ", ".join(map(repr, _PADDING_MODES))
            raise ValueError(f"{name}: padding_mode is {known}, not {padding_mode!r}")
        self.in_channels, self.out_channels = channels
        self.kernel_size, self.stride = per_axis("kernel_size", kernel_size, n), per_axis("stride", stride, n)
        self.dilation, self.output_padding = per_axis("dilation", dilation, n), per_axis("output_padding", output_padding, n)
        self.padding: str | tuple[int, ...] = padding if isinstance(padding, str) else per_axis("padding", padding, n)
        if padding == "same" and self.stride != (1,) * n:
            raise ValueError(f'{name}: padding="same" wants stride 1, not {stride}')
        self.groups, self.padding_mode = groups, padding_mode
        first, second = channels if self.transposed else channels[::-1]
        self.weight = blank(first, second // groups, *self.kernel_size, dtype=dtype, device=device)
        self.register_parameter("bias", blank(channels[1], dtype=dtype, device=device) if bias else None)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the initial values anew: uniform within 1/sqrt(fan in) of zero."""
        init.kaiming_uniform_(self.weight, a=math.sqrt(5))
        if self.bias is not None:
            fan_in = init.fans(self.weight)[0]
            bound = 1 / math.sqrt(fan_in) if fan_in else 0.0
            init.uniform_(self.bias, -bound, bound)

    def extra_repr(self) -> str:
        text = f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, stride={self.stride}"
        if self.padding != (0,) * self.n:
            text += f", padding={self.padding}"
        if self.dilation != (1,) * self.n:
            text += f", dilation={self.dilation}"
        if self.output_padding != (0,) * self.n:
            text += f", output_padding={self.output_padding}"
        text += (f", groups={self.groups}" if self.groups != 1 else "") + (", bias=False" if self.bias is None else "")
        return text + (f", padding_mode={self.padding_mode}" if self.padding_mode != "zeros" else "")


class _Conv(_Windows):
    """weight [out_channels, in_channels/groups, *kernel] and bias [out_channels], uniform within 1/sqrt(fan in) of zero."""

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
        padding_mode: str = "zeros",
        device: str | None = None,
        dtype: Any = None,
    ):
        self._start((in_channels, out_channels), kernel_size, stride, padding, 0, dilation, groups, bias, padding_mode, device, dtype)

    def forward(self, input: md.Tensor) -> md.Tensor:
        return self._conv_forward(input, self.weight, self.bias)

    def _conv_forward(self, input: md.Tensor, weight: md.Tensor, bias: md.Tensor | None) -> md.Tensor:
        """The layer with another weight, as PyTorch's, which layers that standardise or round theirs call."""
        padding: Size | str = self.padding
        if self.padding_mode != "zeros":
            sides = same_sides(self.kernel_size, self.dilation) if padding == "same" else tuple((p, p) for p in self.padding if isinstance(p, int))
            if sides:  # "valid" has none
                input = F.pad(input, [p for pair in reversed(sides) for p in pair], _PADDING_MODES[self.padding_mode])
            padding = 0
        return conv(self.n, input, weight, bias, self.stride, padding, self.dilation, self.groups)


class Conv1d(_Conv):
    """Correlation of [N, C, L] (or [C, L]) with learned kernels.

    >>> md.nn.Conv1d(3, 8, 5, padding=2)(md.ones((2, 3, 16))).shape
    (2, 8, 16)
    """

    n = 1


class Conv2d(_Conv):
    """Correlation of [N, C, H, W] (or [C, H, W]) with learned kernels.

    >>> Conv2d(3, 6, 5)(md.ones((2, 3, 32, 32))).shape
    (2, 6, 28, 28)
    """

    n = 2


class Conv3d(_Conv):
    """Correlation of [N, C, D, H, W] (or [C, D, H, W]) with learned kernels.

    >>> md.nn.Conv3d(1, 2, 3)(md.ones((1, 1, 4, 4, 4))).shape
    (1, 2, 2, 2, 2)
    """

    n = 3


class _ConvTranspose(_Windows):
    """weight [in_channels, out_channels/groups, *kernel] and bias [out_channels], uniform within 1/sqrt(weight's fan in) of zero."""

    transposed = True

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Size,
        stride: Size = 1,
        padding: Size = 0,
        output_padding: Size = 0,
        groups: int = 1,
        bias: bool = True,
        dilation: Size = 1,
        padding_mode: str = "zeros",
        device: str | None = None,
        dtype: Any = None,
    ):
        if isinstance(padding, str):
            raise ValueError(f"{type(self).__name__}: padding must be given in numbers, not {padding!r}")
        self._start((in_channels, out_channels), kernel_size, stride, padding, output_padding, dilation, groups, bias, padding_mode, device, dtype)

    def forward(self, input: md.Tensor, output_size: Sequence[int] | None = None) -> md.Tensor:
        """output_size: the spatial sizes wanted, among the `stride` many that the transpose may have."""
        assert not isinstance(self.padding, str)
        extra = self.output_padding
        batched(type(self).__name__, input, self.n)
        if output_size is not None:
            wanted = tuple(output_size)[-self.n :]
            settings = zip(input.shape[-self.n :], self.kernel_size, self.stride, self.padding, self.dilation, strict=True)
            least = tuple((s - 1) * t - 2 * p + d * (k - 1) + 1 for s, k, t, p, d in settings)
            extra = tuple(w - m for w, m in zip(wanted, least, strict=True))
            if any(not 0 <= e < t for e, t in zip(extra, self.stride, strict=True)):
                most = tuple(m + t - 1 for m, t in zip(least, self.stride, strict=True))
                raise ValueError(f"{type(self).__name__}: output_size {wanted} is not between {least} and {most}")
        return conv_transpose(self.n, input, self.weight, self.bias, self.stride, self.padding, extra, self.groups, self.dilation)


class ConvTranspose1d(_ConvTranspose):
    """The transpose of Conv1d: from [N, C, L] (or [C, L]) to a longer signal.

    >>> md.nn.ConvTranspose1d(3, 8, 2, stride=2)(md.ones((2, 3, 16))).shape
    (2, 8, 32)
    """

    n = 1


class ConvTranspose2d(_ConvTranspose):
    """The transpose of Conv2d: from [N, C, H, W] (or [C, H, W]) to a larger image.

    >>> ConvTranspose2d(6, 3, 4, stride=2, padding=1)(md.ones((1, 6, 8, 8))).shape
    (1, 3, 16, 16)
    """

    n = 2


class ConvTranspose3d(_ConvTranspose):
    """The transpose of Conv3d: from [N, C, D, H, W] (or [C, D, H, W]) to a larger volume.

    >>> md.nn.ConvTranspose3d(1, 2, 2, stride=2)(md.ones((1, 1, 2, 2, 2))).shape
    (1, 2, 4, 4, 4)
    """

    n = 3
